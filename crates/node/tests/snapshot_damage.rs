//! Truncations and flipped bits of a snapshot and of a rewritten journal's base that hold every type: always noticed and
//! located, never a panic.

use std::path::Path;
use std::sync::Arc;

use mtcache_engine::NoMailbox;
use mtcache_node::{Node, NodeOptions, Snapshots};
use mtcache_persistence::disk::SimDisk;
use mtcache_persistence::{AofOptions, ErrorKind, check_aof_file, check_rdb};
use mtcache_protocol::{Reply, Version};

const DIR: &str = "/data";
/// Damages of each sort; 10,000 and more with `MTCACHE_DAMAGES`.
const DAMAGES: usize = 1_500;

fn damages() -> usize {
    std::env::var("MTCACHE_DAMAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(DAMAGES)
}

/// A snapshot with every type in its small and its large encoding.
fn snapshot() -> Vec<u8> {
    let disk = SimDisk::with_dir(DIR);
    let mut options = NodeOptions { snapshots: Some(Snapshots::in_dir(DIR)), ..NodeOptions::default() };
    options.engine.config.set("save", "").unwrap();
    let node = Node::open_on(&options, Arc::new(disk.clone())).unwrap();
    let engine = node.engine();
    let mut session = engine.new_session(engine.connect(String::new(), String::new(), Box::new(NoMailbox)));
    let mut run = |line: &str| {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut reply = Reply::new(Version::Resp2);
        engine.dispatch(&mut session, &args, engine.now(), &mut reply);
        assert_ne!(reply.as_bytes().first(), Some(&b'-'), "{line}: {reply:?}");
    };
    run("SET number 12345");
    run(&format!("SET compressed {}", "again ".repeat(40).trim_end().replace(' ', "_")));
    run("SET expiring value PX 100000000");
    for (name, count) in [("small", 3), ("large", 300)] {
        for number in 0..count {
            run(&format!("RPUSH list:{name} element-{number}"));
            run(&format!("SADD integers:{name} {}", number * 1000));
            run(&format!("SADD set:{name} member-{number}"));
            run(&format!("HSET hash:{name} field-{number} value"));
            run(&format!("ZADD zset:{name} {number}.5 member-{number}"));
        }
    }
    run("SELECT 5");
    run("SET elsewhere value");
    run("SAVE");
    drop(node);
    disk.content(Path::new(DIR).join("dump.rdb")).unwrap()
}

/// So many places, spread over all of `len`, and others for another `round`.
fn places(len: usize, count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count.min(len)).map(move |number| (number * 7919 + round * 104_729) % len)
}

#[test]
fn every_damage_of_a_snapshot_is_noticed_and_located() {
    let sound = snapshot();
    let disk = SimDisk::with_dir(DIR);
    let path = Path::new(DIR).join("dump.rdb");
    let check = |content: &[u8], what: &str| {
        disk.place(&path, content);
        let checked = check_rdb(&disk, &path).unwrap();
        let error = checked.outcome.expect_err(what);
        assert!(error.offset().is_some_and(|offset| offset <= content.len() as u64), "{what}: {error}");
        assert!(matches!(error.kind(), ErrorKind::Damaged | ErrorKind::Unsupported), "{what}: {error}");
    };
    disk.place(&path, &sound);
    assert_eq!(check_rdb(&disk, &path).unwrap().outcome.unwrap().keys, 14);
    for len in places(sound.len(), damages(), 0) {
        check(&sound[..len], &format!("cut off at {len}"));
    }
    for bit in places(sound.len() * 8, damages(), 1) {
        let mut flipped = sound.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        check(&flipped, &format!("bit {bit}"));
    }
}

#[test]
fn every_damage_of_a_base_in_front_of_commands_is_noticed() {
    let base = snapshot();
    let sound = [&base[..], b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"].concat();
    let disk = SimDisk::with_dir(DIR);
    let path = Path::new(DIR).join("appendonly.aof.1.base.rdb");
    let options = AofOptions::default();
    disk.place(&path, &sound);
    let checked = check_aof_file(&disk, &path, &options).unwrap();
    assert_eq!((checked.keys, checked.commands, checked.problem), (14, 1, None));
    let is_sound = |content: &[u8]| {
        disk.place(&path, content);
        check_aof_file(&disk, &path, &options).is_ok_and(|checked| checked.problem.is_none())
    };
    for bit in places(base.len() * 8, damages() / 3, 2) {
        let mut flipped = sound.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_sound(&flipped), "bit {bit}");
    }
    for len in places(base.len(), damages() / 3, 3).filter(|len| *len > 0) {
        assert!(!is_sound(&sound[..len]), "cut off at {len}");
    }
}
