//! Snapshots: what is written is the data of the cut, whatever happens while it is written.

use std::collections::BTreeMap;

use proptest::prelude::*;

use crate::rdb::{Loaded, ValueKind, array, byte, length, opcode, read_object, string};
use crate::testing::Rig;
use crate::time::UnixMillis;
use crate::types::EncodingLimits;
use crate::{Engine, Progress, Snapshot};

/// Loads what a snapshot has given out into another engine.
fn load(bytes: &[u8], into: &Engine) {
    let mut source = bytes;
    let (mut db, mut expires_at, mut key) = (0, None, Vec::new());
    while !source.is_empty() {
        match byte(&mut source).unwrap() {
            opcode::SELECT_DB => db = length(&mut source).unwrap(),
            opcode::EXPIRE_MILLIS => {
                expires_at = Some(UnixMillis(u64::from_le_bytes(array(&mut source).unwrap())));
            }
            opcode::IDLE => drop(length(&mut source).unwrap()),
            kind => {
                string(&mut source, &mut key).unwrap();
                let kind = ValueKind::from_byte(kind).unwrap();
                let mut loaded =
                    Loaded::new(read_object(&mut source, kind, &EncodingLimits::DEFAULT).unwrap());
                loaded.expires_at = expires_at.take();
                into.load(db, &key, loaded, UnixMillis(0)).unwrap();
            }
        }
    }
}

fn step(snapshot: &mut Snapshot, out: &mut Vec<u8>) -> bool {
    match snapshot.next(out) {
        Progress::More => true,
        Progress::Done => false,
        Progress::Abandoned => panic!("given up"),
    }
}

fn command() -> impl Strategy<Value = String> {
    let key = || (0..12_u8).prop_map(|n| format!("k{n}"));
    prop_oneof![
        (key(), 0..100_u8).prop_map(|(key, n)| format!("SET {key} {n}")),
        (key(), 0..100_u8).prop_map(|(key, n)| format!("SET {key} longer{n}text KEEPTTL")),
        key().prop_map(|key| format!("DEL {key}")),
        key().prop_map(|key| format!("APPEND {key} more")),
        (key(), 0..9_u8).prop_map(|(key, n)| format!("HSET {key} f{n} v")),
        (key(), 0..9_u8).prop_map(|(key, n)| format!("RPUSH {key} e{n}")),
        (key(), 0..9_u8).prop_map(|(key, n)| format!("SADD {key} {n}")),
        (key(), 0..9_u8).prop_map(|(key, n)| format!("ZADD {key} {n} m{n}")),
        key().prop_map(|key| format!("LPOP {key}")),
        key().prop_map(|key| format!("SPOP {key}")),
        key().prop_map(|key| format!("PERSIST {key}")),
        (key(), 1..900_u32).prop_map(|(key, n)| format!("EXPIRE {key} {n}000")),
        (key(), key()).prop_map(|(a, b)| format!("RENAME {a} {b}")),
        (key(), key()).prop_map(|(a, b)| format!("COPY {a} {b} DB 1")),
        (key(), 0..3_u8).prop_map(|(key, db)| format!("MOVE {key} {db}")),
        (0..3_u8).prop_map(|db| format!("SELECT {db}")),
        (0..3_u8, 0..3_u8).prop_map(|(a, b)| format!("SWAPDB {a} {b}")),
        Just("FLUSHDB".to_owned()),
        Just("INCRBYFLOAT k1 0.5".to_owned()),
        Just("MULTI".to_owned()),
        Just("EXEC".to_owned()),
    ]
}

fn state(rig: &Rig) -> BTreeMap<(u8, String), String> {
    rig.state()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(crate::testing::cases(128)))]
    #[test]
    fn a_snapshot_is_the_data_of_its_cut(
        before in proptest::collection::vec(command(), 0..60),
        during in proptest::collection::vec((command(), any::<bool>()), 0..60),
        gives_up in any::<bool>(),
    ) {
        let mut rig = Rig::new();
        for line in &before {
            rig.run(line);
        }
        rig.run("DISCARD");
        if gives_up {
            // One that comes to nothing leaves no trace in the next.
            let mut snapshot = rig.engine.begin_snapshot(|| {}).unwrap();
            snapshot.next(&mut Vec::new());
            rig.run("SET k1 changed");
            drop(snapshot);
        }
        let expected = state(&rig);
        let mut snapshot = rig.engine.begin_snapshot(|| {}).unwrap();
        let is_alone = rig.engine.begin_snapshot(|| {}).is_none();
        prop_assert!(is_alone);
        let mut bytes = Vec::new();
        let mut more = true;
        for (line, steps) in &during {
            rig.run(line);
            if *steps && more {
                more = step(&mut snapshot, &mut bytes);
            }
        }
        while more {
            more = step(&mut snapshot, &mut bytes);
        }
        drop(snapshot);
        let loaded = Rig::new();
        load(&bytes, &loaded.engine);
        prop_assert_eq!(state(&loaded), expected);
        // And the next one finds all of it.
        rig.run("DISCARD");
        let after = state(&rig);
        let mut snapshot = rig.engine.begin_snapshot(|| {}).unwrap();
        let mut bytes = Vec::new();
        while step(&mut snapshot, &mut bytes) {}
        let loaded = Rig::new();
        load(&bytes, &loaded.engine);
        prop_assert_eq!(state(&loaded), after);
    }
}
