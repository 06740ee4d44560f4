//! Processes whose clock is wrong: the library of Debian's package `faketime`, loaded by ourselves, since the program of that name would
//! stand between us and our child. The clock by which Rust waits is left alone. Debian's redis-server does not start under it: both want to
//! be first in the memory allocator.

use std::path::PathBuf;

use mtcache_conformance::ServerOptions;

/// What a process is started with whose clock is so many seconds ahead; nothing if it is right.
pub(crate) fn environment(ahead: i32) -> Vec<(&'static str, String)> {
    if ahead == 0 {
        return Vec::new();
    }
    vec![
        ("LD_PRELOAD", library().to_str().unwrap().to_owned()),
        ("FAKETIME", format!("{ahead:+}s")),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ]
}

/// A server whose clock is so many seconds ahead.
pub(crate) fn server(ahead: i32) -> ServerOptions {
    environment(ahead)
        .iter()
        .fold(ServerOptions::new(), |options, (name, value)| options.environment(name, value))
}

fn library() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
        .expect("the package faketime is to be installed: scripts/install-test-tools.sh")
}
