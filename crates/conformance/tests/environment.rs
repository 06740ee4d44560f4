//! The program takes the regions' times from its environment, or says what is wrong with it; and what it does not say.

use std::process::{Command, Output};

use mtcache_conformance::Program;
use mtcache_conformance::programs::find;

fn selftest(variable: &str, value: &str) -> Output {
    Command::new(find(Program::Mtcache).unwrap()).arg("selftest").env(variable, value).output().unwrap()
}

#[test]
fn a_time_of_the_environment_that_is_none_stops_the_selftest() {
    for (variable, value) in [
        ("MTCACHE_REGION_SESSION_TTL", "abc"),
        ("MTCACHE_REGION_SESSION_TTL", "0s"),
        ("MTCACHE_REGION_NO_SUCH_REGION_TTL", "5s"),
    ] {
        let output = selftest(variable, value);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{variable}={value}");
        assert!(said.contains(variable) || said.contains("a TTL of 0ns"), "{said}");
    }
}

#[test]
fn a_time_of_the_environment_that_is_one_passes() {
    let output = selftest("MTCACHE_REGION_SESSION_TTL", "15m");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_password_is_not_shown_to_whoever_reads_that_no_cache_answers() {
    let url = "redis://user:sesame@127.0.0.1:1";
    let trace = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data/twitter_cluster52.u32pairs.zst");
    for args in [&["selftest", "--url", url][..], &["replay", "--url", url, trace], &["demo", "--url", url]] {
        let output = Command::new(find(Program::Mtcache).unwrap()).args(args).output().unwrap();
        assert!(!output.status.success(), "{args:?}");
        let said =
            [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(!said.contains("sesame"), "{args:?}: {said}");
    }
}
