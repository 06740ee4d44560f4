//! Random histories of a journal, with a loss of power at every single step of each.
//!
//! The property: what comes back is a beginning of what was appended, in order and in the right databases, and
//! it contains everything that had been acknowledged as synced. It holds for every way in which the unsynced
//! part may survive, for crashes during the recovery itself, and after failed writes and syncs.

use std::path::Path;
use std::sync::Arc;

use mtcache_engine::UnixMillis;
use mtcache_engine::rdb::{Compression, opcode, write_string};
use mtcache_persistence::disk::{Crash, Disk, Fault, SimDisk};
use mtcache_persistence::{
    Aof, AofOptions, AofWriter, BaseForm, Command, ErrorKind, JournalBuffer, Lsn, NewBase, RdbKey,
    RdbOptions, Receiver, ReplayReport, Rewrite,
};
use mtcache_protocol::encode_command;

const DIR: &str = "/data";
const HISTORIES: u64 = 150;
const HISTORIES_WITH_FAULTS: u64 = 100;

/// Numbers that depend on the seed alone.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }

    fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }
}

/// Command number `number` is for this database, and has a value of this length.
fn db_of(number: u64) -> u32 {
    (Random(number / 3).below(4)) as u32
}

fn value_of(number: u64) -> Vec<u8> {
    let mut random = Random(number);
    let len = if random.one_in(20) { 900 } else { random.below(40) };
    // Values that look like what surrounds them.
    (0..len).map(|at| b"*1\r\n$3\r\n#x\0"[((at + number) % 11) as usize]).collect()
}

fn options(seed: u64) -> AofOptions {
    let mut options = AofOptions::default();
    options.base_form = if seed.is_multiple_of(2) { BaseForm::Rdb } else { BaseForm::Aof };
    if seed.is_multiple_of(5) {
        options.max_unsynced_bytes = 200;
    }
    options
}

/// What a client has been promised, as the number of the first command that it has not.
#[derive(Clone, Copy, Debug, Default)]
struct Promises {
    appended: u64,
    written: u64,
    synced: u64,
}

/// A rewrite in the making.
struct Rewriting {
    rewrite: Rewrite,
    /// The number of the first command after the cut.
    cut: u64,
    base: Option<NewBase>,
}

/// A journal in use: commands are numbered from `first` on.
struct Session {
    writer: AofWriter,
    buffer: JournalBuffer,
    /// The place after each command of this session.
    ends: Vec<Lsn>,
    first: u64,
    rewriting: Option<Rewriting>,
}

impl Session {
    fn promises(&self) -> Promises {
        let up_to = |lsn: Lsn| self.first + self.ends.iter().filter(|&&end| end <= lsn).count() as u64;
        Promises {
            appended: self.first + self.ends.len() as u64,
            written: up_to(self.writer.written_lsn()),
            synced: up_to(self.writer.synced_lsn()),
        }
    }

    fn append_one(&mut self) {
        let number = self.first + self.ends.len() as u64;
        let (name, value) = (number.to_string(), value_of(number));
        self.ends.push(self.buffer.append_args(db_of(number), &[b"SET", name.as_bytes(), &value]));
    }

    /// A transaction of as many commands as are in the same database.
    fn append_transaction(&mut self) {
        let first = self.first + self.ends.len() as u64;
        let db = db_of(first);
        let count = (1..3).take_while(|more| db_of(first + more) == db).count() as u64 + 1;
        let mut bytes = b"*1\r\n$5\r\nMULTI\r\n".to_vec();
        for number in first..first + count {
            let (name, value) = (number.to_string(), value_of(number));
            bytes.extend_from_slice(format!("*3\r\n$3\r\nSET\r\n${}\r\n{name}\r\n", name.len()).as_bytes());
            bytes.extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
            bytes.extend_from_slice(&value);
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
        let end = self.buffer.append_encoded(db, db, &bytes);
        self.ends.extend((0..count).map(|_| end));
    }

    fn flush(&mut self) {
        if self.writer.is_failed() {
            return;
        }
        let batch = self.buffer.take();
        let _ = self.writer.append(&batch.bytes, batch.db_before);
        self.buffer.recycle(batch.bytes);
    }

    /// One step of a rewrite: the cut, the base, or the end.
    fn rewrite_on(&mut self, seed: u64) {
        let Some(rewriting) = &mut self.rewriting else {
            self.buffer.mark_cut();
            let cut = self.first + self.ends.len() as u64;
            self.flush();
            if let Ok(rewrite) = self.writer.begin_rewrite() {
                self.rewriting = Some(Rewriting { rewrite, cut, base: None });
            }
            return;
        };
        let Some(base) = rewriting.base.take() else {
            rewriting.base = write_base(&self.writer, rewriting.cut, seed).ok();
            return;
        };
        if let Ok(replaced) = self.writer.finish_rewrite(&rewriting.rewrite, &base) {
            let removed = self.writer.base_place().remove_history(replaced);
            let _ = self.writer.forget_history(&removed);
        }
        self.rewriting = None;
    }
}

/// All commands before `cut`, as a base.
fn write_base(writer: &AofWriter, cut: u64, seed: u64) -> Result<NewBase, mtcache_persistence::Error> {
    let form = options(seed).base_form;
    let mut base = writer.base_place().create_base(form, &RdbOptions::new(UnixMillis(0), 0))?;
    let mut bytes = Vec::new();
    for number in 0..cut {
        let (name, value, db) = (number.to_string(), value_of(number), db_of(number));
        match form {
            BaseForm::Rdb => {
                bytes.extend_from_slice(&[opcode::SELECT_DB, db as u8, 0]);
                write_string(name.as_bytes(), Compression::Off, &mut bytes);
                write_string(&value, Compression::Off, &mut bytes);
            }
            BaseForm::Aof => {
                encode_command(&[b"SELECT", db.to_string().as_bytes()], &mut bytes);
                encode_command(&[b"SET", name.as_bytes(), &value], &mut bytes);
            }
        }
        if number % 4 == 3 {
            base.append(&bytes)?;
            bytes.clear();
        }
    }
    base.append(&bytes)?;
    base.finish()
}

/// Checks that what comes back is command after command.
struct InOrder {
    next: u64,
}

impl Receiver for InOrder {
    fn command(&mut self, command: Command<'_>) -> Result<(), String> {
        let (next, name) = (self.next, self.next.to_string());
        let expected = [&b"SET"[..], name.as_bytes(), &value_of(next)];
        if command.args != expected || command.db != db_of(next) {
            return Err(format!("command {next} came back as {:?} in {}", command.args, command.db));
        }
        self.next += 1;
        Ok(())
    }

    fn key(&mut self, key: RdbKey<'_>) -> Result<(), String> {
        let (next, name) = (self.next, self.next.to_string());
        if key.key != name.as_bytes() || u32::from(key.db as u8) != db_of(next) {
            return Err(format!("key {next} came back as {:?} in {}", key.key, key.db));
        }
        self.next += 1;
        Ok(())
    }
}

/// Opens the journal and checks what comes back; the session goes on after it.
fn recover(disk: &SimDisk, seed: u64) -> Result<(Session, ReplayReport), Failure> {
    let mut receiver = InOrder { next: 0 };
    let aof = Aof::open(Arc::new(disk.clone()), Path::new(DIR), options(seed))
        .map_err(|error| Failure { replayed: 0, error })?;
    let replayed = aof.replay_into(&mut receiver);
    let first = receiver.next;
    let (writer, report) = replayed.map_err(|error| Failure { replayed: first, error })?;
    assert_eq!(report.commands + report.keys, first);
    let buffer = JournalBuffer::new(1 << 20);
    Ok((Session { writer, buffer, ends: Vec::new(), first, rewriting: None }, report))
}

#[derive(Debug)]
struct Failure {
    replayed: u64,
    error: mtcache_persistence::Error,
}

/// Whether a history has faults other than the loss of power.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Faults {
    None,
    Some,
}

/// Lives through a history until its end, or until the power fails. The same seed gives the same history.
fn live(disk: &SimDisk, seed: u64, faults: Faults) -> Promises {
    let mut random = Random(seed);
    let mut promises = Promises::default();
    let Ok((mut session, _)) = recover(disk, seed) else {
        assert!(disk.has_crashed());
        return promises;
    };
    let mut pending = None;
    for _ in 0..8 + random.below(18) {
        match random.below(20) {
            16..=19 => session.rewrite_on(seed),
            0..=5 => session.append_one(),
            6 => session.append_transaction(),
            7..=9 => session.flush(),
            10 | 11 => {
                session.flush();
                let _ = session.writer.sync();
            }
            12 => pending = session.writer.begin_sync().ok().flatten(),
            13 => {
                if let Some(pending) = pending.take() {
                    let _ = session.writer.finish_sync(&pending, pending.run());
                }
            }
            14 if random.one_in(2) => {
                let _ = session.writer.start_new_incr();
            }
            15 if random.one_in(2) => {
                // The process is stopped in order, and started again.
                session.flush();
                if session.writer.sync().is_err() {
                    continue;
                }
                promises = session.promises();
                drop(session);
                pending = None;
                match recover(disk, seed) {
                    Ok((next, _)) => session = next,
                    Err(failure) => {
                        assert!(disk.has_crashed() || faults == Faults::Some, "seed {seed}: {failure:?}");
                        return promises;
                    }
                }
            }
            _ if faults == Faults::Some => inject(disk, &mut random),
            _ => {}
        }
        if session.writer.is_failed() && random.one_in(3) {
            disk.heal();
            let is_recovered = session.writer.start_new_incr().is_ok();
            assert!(is_recovered || disk.has_crashed(), "seed {seed}: a sound disk was not enough");
        }
        promises = session.promises();
        if disk.has_crashed() {
            break;
        }
    }
    promises
}

fn inject(disk: &SimDisk, random: &mut Random) {
    let times = 1 + random.below(2) as u32;
    disk.inject(match random.below(8) {
        0 | 1 => Fault::SyncFails { times },
        2 => Fault::WriteFails { times },
        3 => Fault::Full { free: random.below(120) },
        4 => Fault::DirSyncFails { after: random.below(3) as u32, times },
        5 => Fault::RenameFails { times },
        6 => Fault::TruncateFails { times },
        _ => Fault::ShortWrites { most: 1 + random.below(30) as usize },
    });
}

fn assert_recovers(disk: &SimDisk, seed: u64, at_least: u64, at_most: u64, what: &str) -> Session {
    match recover(disk, seed) {
        Ok((session, _)) => {
            let found = session.first;
            assert!(
                (at_least..=at_most).contains(&found),
                "seed {seed}, {what}: {found} commands came back, promised {at_least}, appended {at_most}"
            );
            session
        }
        Err(failure) => panic!("seed {seed}, {what}: {failure:?}"),
    }
}

fn check(seed: u64, faults: Faults, step: u64) -> bool {
    let mut promises = Promises::default();
    let mut crashed = true;
    let others = [
        Crash::Torn(seed ^ step),
        Crash::AnyNames(seed ^ step << 8),
        Crash::ProcessOnly,
        Crash::AnyNames(seed ^ step << 16),
        Crash::Holes(seed ^ step << 24),
    ];
    // The strictest way always; the others in turn, for time's sake.
    for how in [Crash::Strict, others[(seed + step) as usize % others.len()]] {
        let disk = SimDisk::with_dir(DIR);
        disk.crash_at(step);
        promises = live(&disk, seed, faults);
        crashed &= disk.has_crashed();
        let what = format!("step {step}, {how:?}");
        let after = disk.crash(how);
        if matches!(how, Crash::Holes(_)) {
            // Zeros in the middle of what was not synced are damage; without checksums it may be taken for data, but
            // never what lies before it.
            if let Err(failure) = recover(&after, seed) {
                let kind = failure.error.kind();
                assert!(
                    failure.replayed >= promises.synced,
                    "seed {seed}, {what}: {failure:?} of {promises:?}"
                );
                assert!(
                    matches!(kind, ErrorKind::Damaged | ErrorKind::Refused),
                    "seed {seed}, {what}: {failure:?}"
                );
            }
            continue;
        }
        let survives_process = how == Crash::ProcessOnly && faults == Faults::None;
        let at_least = if survives_process { promises.written } else { promises.synced };
        // A second loss of power, at some step of the recovery.
        let shaky = after.crash(Crash::ProcessOnly);
        shaky.crash_at(1 + (seed + step) % 9);
        let _ = recover(&shaky, seed);
        assert_recovers(&shaky.crash(how), seed, at_least, promises.appended, &format!("{what}, twice"));
        let after = shaky.crash(Crash::ProcessOnly);
        // What came back is seen by clients from then on, so it is durable, whether or not it was before.
        let found = assert_recovers(&after, seed, at_least, promises.appended, &what).first;
        let after = after.crash(Crash::Strict);
        let mut session = assert_recovers(&after, seed, found, found, &format!("{what}, seen before"));
        // And life goes on, and is kept.
        session.append_one();
        session.flush();
        session.writer.sync().unwrap();
        let all = session.promises().appended;
        drop(session);
        assert_recovers(&after.crash(Crash::Strict), seed, all, all, &format!("{what}, after it"));
    }
    assert!(promises.synced <= promises.written && promises.written <= promises.appended);
    crashed
}

fn check_every_step(seeds: impl Iterator<Item = u64>, faults: Faults) {
    let (mut histories, mut crashes) = (0_u64, 0_u64);
    for seed in seeds {
        let mut step = 1;
        // Until the history is over before the power fails.
        while check(seed, faults, step) {
            step += 1;
            assert!(step < 10_000, "seed {seed} does not end");
        }
        histories += 1;
        crashes += step;
    }
    println!("{histories} histories, {crashes} places to lose power, 2 ways each");
    assert!(crashes > histories * 8, "the histories are too short to prove anything");
}

/// `MTCACHE_SEED` runs one history, the one that a failure named; `MTCACHE_HISTORIES` sets how many are run.
fn seeds(first: u64, count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("MTCACHE_SEED") {
        Some(seed) => seed..seed + 1,
        None => first..first + number("MTCACHE_HISTORIES").unwrap_or(count),
    }
}

#[test]
fn no_synced_write_is_lost_whenever_the_power_fails() {
    check_every_step(seeds(1, HISTORIES), Faults::None);
}

#[test]
fn no_synced_write_is_lost_when_writes_and_syncs_fail_besides() {
    check_every_step(seeds(1_000_000, HISTORIES_WITH_FAULTS), Faults::Some);
}

#[test]
fn an_old_single_file_is_taken_over_whenever_the_power_fails() {
    let mut old = Vec::new();
    for number in 0..5 {
        let (name, value) = (number.to_string(), value_of(number));
        let db = db_of(number).to_string();
        for args in [vec![&b"SELECT"[..], db.as_bytes()], vec![b"SET", name.as_bytes(), &value]] {
            old.extend_from_slice(format!("*{}\r\n", args.len()).as_bytes());
            for arg in args {
                old.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
                old.extend_from_slice(arg);
                old.extend_from_slice(b"\r\n");
            }
        }
    }
    // And a torn one, which becomes a file that is not the last.
    old.extend_from_slice(b"*3\r\n$3\r\nSET\r\n$1\r\n5\r\n$100\r\nnot all of it");
    let mut step = 1;
    loop {
        let mut crashed = true;
        for how in (0..30).flat_map(|seed| [Crash::Strict, Crash::ProcessOnly, Crash::AnyNames(seed)]) {
            let disk = SimDisk::with_dir(DIR);
            disk.place(Path::new(DIR).join("appendonly.aof"), &old);
            disk.crash_at(step);
            let _ = recover(&disk, 0);
            crashed &= disk.has_crashed();
            let after = disk.crash(how);
            let mut session = assert_recovers(&after, 0, 5, 5, &format!("step {step}, {how:?}"));
            session.append_one();
            session.flush();
            session.writer.sync().unwrap();
            drop(session);
            let after = after.crash(Crash::Strict);
            let session = assert_recovers(&after, 0, 6, 6, &format!("step {step}, {how:?}, after it"));
            assert!(!after.exists(&Path::new(DIR).join("appendonly.aof")).unwrap());
            assert_eq!(session.writer.manifest().base.as_ref().unwrap().name, "appendonly.aof");
        }
        if !crashed {
            break;
        }
        step += 1;
    }
    assert!(step > 8, "the upgrade has more steps than {step}");
}
