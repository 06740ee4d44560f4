//! SCAN and its family: nothing that stays is missed, however the keyspace changes meanwhile.

use std::collections::BTreeSet;
use std::time::Duration;

use mtcache_conformance::Value;
use proptest::prelude::*;

use crate::testing::{Rig, cases};

/// What happens between two calls of SCAN, to keys that come and go.
#[derive(Debug, Clone)]
enum Between {
    Add(u16),
    Delete(u16),
    Overwrite(u16),
    OverwriteStable(u16),
    Expire(u16),
    ExpireStable(u16),
    Rename(u16, u16),
    Tick,
    Cycle,
}

fn between() -> impl Strategy<Value = Between> {
    let key = || 0..400_u16;
    prop_oneof![
        4 => key().prop_map(Between::Add),
        4 => key().prop_map(Between::Delete),
        2 => key().prop_map(Between::Overwrite),
        1 => (0..50_u16).prop_map(Between::OverwriteStable),
        2 => key().prop_map(Between::Expire),
        1 => (0..50_u16).prop_map(Between::ExpireStable),
        2 => (key(), key()).prop_map(|(from, to)| Between::Rename(from, to)),
        1 => Just(Between::Tick),
        1 => Just(Between::Cycle),
    ]
}

fn apply(rig: &mut Rig, step: &Between) {
    match step {
        Between::Add(key) => rig.run(&format!("SET t{key} v")),
        Between::Delete(key) => rig.run(&format!("DEL t{key}")),
        Between::Overwrite(key) => rig.run(&format!("SET t{key} {}", "v".repeat(usize::from(*key)))),
        Between::OverwriteStable(key) => rig.run(&format!("SADD s{key} member {}", rig.now().0)),
        Between::Expire(key) => rig.run(&format!("PEXPIRE t{key} 1")),
        Between::ExpireStable(key) => rig.run(&format!("EXPIRE s{key} 1000000")),
        Between::Rename(from, to) => rig.run(&format!("RENAME t{from} t{to}")),
        Between::Tick => {
            rig.advance(Duration::from_millis(1));
            String::new()
        }
        Between::Cycle => {
            rig.engine.expire_cycle(10);
            String::new()
        }
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(48)))]

    #[test]
    fn a_key_that_is_there_all_the_time_is_found_by_scan(
        before in proptest::collection::vec(between(), 0..200),
        during in proptest::collection::vec(proptest::collection::vec(between(), 0..30), 1..20),
        count in 1..30_u32,
    ) {
        let mut rig = Rig::new();
        for step in &before {
            apply(&mut rig, step);
        }
        for i in 0..50 {
            rig.run(&format!("SADD s{i} member"));
        }
        let mut found = BTreeSet::new();
        let mut cursor = "0".to_owned();
        let mut during = during.iter();
        loop {
            let Value::Array(reply) = rig.run_args(&["SCAN", &cursor, "COUNT", &count.to_string()]) else { panic!() };
            cursor = reply[0].text().unwrap();
            let keys: Vec<String> = reply[1].elements().unwrap().iter().map(|key| key.text().unwrap()).collect();
            // What lies together is returned together: a bucket and what it has displaced.
            prop_assert!(keys.len() < count as usize + 24);
            for key in &keys {
                prop_assert_eq!(rig.run(&format!("EXISTS {key}")), ":1", "an expired key was shown");
            }
            found.extend(keys);
            if cursor == "0" {
                break;
            }
            for step in during.next().into_iter().flatten() {
                apply(&mut rig, step);
            }
        }
        for i in 0..50 {
            prop_assert!(found.contains(&format!("s{i}")), "s{} was missed", i);
        }
    }
}

#[test]
fn any_cursor_is_answered() {
    let mut rig = Rig::new();
    for i in 0..100 {
        rig.run(&format!("SET k{i} v"));
    }
    for cursor in
        ["1", "17", "1099511627775", "1099511627776", "99999999999999", "18446744073709551615", "-1"]
    {
        let reply = rig.run(&format!("SCAN {cursor}"));
        assert!(reply.starts_with("[\""), "{cursor}: {reply}");
    }
}
