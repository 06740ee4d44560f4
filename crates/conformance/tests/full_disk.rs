//! A disk that is really full, and one that cannot be written: writes are refused, reads go on, and with room again all is well
//! by itself. Where a file system of a few megabytes cannot be mounted, the test says so and ends.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use mtcache_conformance::{Client, PATIENCE, ServerOptions, TestServer, Value, wait_until};
use tempfile::TempDir;

/// Writes that `everysec` has acknowledged before it finds the disk full have to find room afterwards.
const SIZE: usize = 32 * 1024 * 1024;
const FILLED: usize = SIZE - 2 * 1024 * 1024;

/// A small file system, with a file that leaves two megabytes of it.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn new() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={SIZE}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            eprintln!("nothing was tested: this machine does not let us mount a small disk");
            return None;
        }
        let disk = Self(dir);
        fs::write(disk.filler(), vec![0; FILLED]).unwrap();
        Some(disk)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn filler(&self) -> std::path::PathBuf {
        self.path().join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.path()).output();
    }
}

fn refused(reply: &Value) -> bool {
    matches!(reply, Value::Error(text) if text.starts_with(b"MISCONF "))
}

fn set(client: &mut Client, key: usize) -> std::io::Result<Value> {
    client.command(&["SET".to_owned(), format!("k{key}"), "v".repeat(10_000)])
}

#[test]
fn with_a_full_disk_writes_are_refused_until_there_is_room_and_nothing_acknowledged_is_lost() {
    for policy in ["always", "everysec", "no"] {
        let Some(disk) = SmallDisk::new() else { return };
        let dir = disk.path().to_str().unwrap();
        let options =
            ServerOptions::new().args(["--dir", dir, "--appendonly", "yes", "--appendfsync", policy]);
        let mut server = TestServer::mtcache(options).unwrap();
        let mut client = server.client().unwrap();
        let mut acknowledged = Vec::new();
        let begun = Instant::now();
        let mut key = 0;
        // With `always` a write whose fate is unknown ends its connection instead.
        while begun.elapsed() < PATIENCE {
            key += 1;
            match set(&mut client, key) {
                Ok(Value::Simple(_)) => acknowledged.push(key),
                Ok(reply) if refused(&reply) => break,
                Ok(reply) => panic!("{policy}: {reply:?}"),
                Err(_) => client = server.client().unwrap(),
            }
            assert!(key < 2000, "{policy}: the disk never gets full");
            // Slower than the disk, whatever else the machine does.
            std::thread::sleep(Duration::from_millis(3));
        }
        assert!(acknowledged.len() > 50, "{policy}");
        assert!(refused(&client.command(&["DEL", "k1"]).unwrap()), "{policy}");
        assert!(
            refused(&client.command(&["EVAL", "return redis.call('SET', 'x', 'y')", "0"]).unwrap()),
            "{policy}"
        );
        // Reads go on.
        assert_eq!(client.command(&["STRLEN", "k1"]).unwrap(), Value::Integer(10_000), "{policy}");
        let info = client.command(&["INFO", "persistence"]).unwrap();
        assert!(
            String::from_utf8_lossy(info.bytes().unwrap()).contains("aof_last_write_status:err"),
            "{policy}"
        );
        // Room again: nobody has to do anything.
        fs::remove_file(disk.filler()).unwrap();
        wait_until("writes are taken again", || match set(&mut client, 100_000) {
            Ok(reply) => !refused(&reply),
            Err(_) => {
                client = server.client().unwrap();
                false
            }
        });
        acknowledged.push(100_000);
        let info = client.command(&["INFO", "persistence"]).unwrap();
        assert!(
            String::from_utf8_lossy(info.bytes().unwrap()).contains("aof_last_write_status:ok"),
            "{policy}"
        );
        if policy == "always" {
            server.kill().unwrap();
        } else {
            assert!(server.stop().unwrap().success(), "{policy}: {}", server.log());
        }
        server.start_again().unwrap();
        let mut client = server.client().unwrap();
        for key in acknowledged {
            let len = client.command(&["STRLEN".to_owned(), format!("k{key}")]).unwrap();
            assert_eq!(len, Value::Integer(10_000), "{policy}: k{key}");
        }
    }
}

#[test]
fn a_snapshot_that_finds_no_room_leaves_the_old_one_and_refuses_writes_until_one_succeeds() {
    let Some(disk) = SmallDisk::new() else { return };
    let dir = disk.path().to_str().unwrap();
    // Save points: without, nobody relies on snapshots and writes are never refused.
    let options = ServerOptions::new().args(["--dir", dir, "--save", "3600 1000000"]);
    let server = TestServer::mtcache(options).unwrap();
    let mut client = server.client().unwrap();
    let ok = Value::Simple(b"OK".to_vec());
    client.command(&["SET", "first", "1"]).unwrap();
    assert_eq!(client.command(&["SAVE"]).unwrap(), ok);
    let old = fs::read(disk.path().join("dump.rdb")).unwrap();
    client.command(&["CONFIG", "SET", "rdbcompression", "no"]).unwrap();
    for key in 0..300 {
        assert_eq!(set(&mut client, key).unwrap(), ok);
    }
    client.command(&["BGSAVE"]).unwrap();
    wait_until("writes are refused", || refused(&client.command(&["SET", "second", "1"]).unwrap()));
    assert_eq!(fs::read(disk.path().join("dump.rdb")).unwrap(), old, "the old snapshot is as it was");
    assert_eq!(client.command(&["GET", "first"]).unwrap(), Value::Bulk(b"1".to_vec()));
    // What was begun takes no room.
    let files: Vec<_> = fs::read_dir(disk.path()).unwrap().map(|file| file.unwrap().file_name()).collect();
    assert!(files.len() <= 3, "{files:?}");
    fs::remove_file(disk.filler()).unwrap();
    assert_eq!(client.command(&["SAVE"]).unwrap(), ok);
    assert_eq!(client.command(&["SET", "second", "1"]).unwrap(), ok);
}
