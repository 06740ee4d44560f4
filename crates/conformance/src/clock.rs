//! Processes whose clock is wrong: the library of Debian's package `faketime`, loaded by ourselves, since the program of that name would
//! stand between us and our child. The clock by which Rust waits is left alone. Debian's redis-server does not start under it: both want to
//! be first in the memory allocator.
//!
//! Invariant: what a killed process has left does not keep another from starting. The library makes files that are named by its process's
//! number, and ends the next process of that number when it finds one of them.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Removes what an earlier process of this number has left, which no other can have any more, and goes on as the program.
const SCRIPT: &str = r#"rm -f "/dev/shm/faketime_shm_$$" "/dev/shm/sem.faketime_sem_$$"
export LD_PRELOAD="$1" FAKETIME="$2" FAKETIME_DONT_FAKE_MONOTONIC=1
shift 2
exec "$@""#;

/// A command for a program whose clock is so many seconds ahead.
pub fn command(program: &Path, seconds: i32) -> Result<Command, String> {
    let mut words = ahead(seconds)?.into_iter().chain([program.into()]);
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    Ok(command)
}

/// The words that go before a program whose clock is to be so many seconds ahead; none if it is to be right.
pub(crate) fn ahead(seconds: i32) -> Result<Vec<OsString>, String> {
    if seconds == 0 {
        return Ok(Vec::new());
    }
    let words = ["/bin/sh".into(), "-c".into(), SCRIPT.into(), "clock".into()];
    Ok([&words[..], &[library()?.into(), format!("{seconds:+}s").into()]].concat())
}

fn library() -> Result<PathBuf, String> {
    let folders = fs::read_dir("/usr/lib").map_err(|error| format!("/usr/lib: {error}"))?.flatten();
    folders
        .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
        .ok_or_else(|| "the package faketime is to be installed: scripts/install-test-tools.sh".to_owned())
}
