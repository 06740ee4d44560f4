//! Every truncation and every flipped bit of a journal: located, never a panic, and what lies before it kept.

use std::path::Path;
use std::sync::Arc;

use mtcache_persistence::disk::{Disk, Fault, SimDisk};
use mtcache_persistence::{Aof, AofOptions, AofWriter, Error, ErrorKind, ReplayReport, TornTail};

const BASE: &str = "appendonly.aof.1.base.aof";
const FIRST: &str = "appendonly.aof.1.incr.aof";
const LAST: &str = "appendonly.aof.2.incr.aof";

type Words = (u32, Vec<String>);

/// Commands that count as one, and what comes back of them: each with its database.
type Step<'a> = (&'a [&'a str], &'a [(&'a str, u32)]);

fn disk(files: &[(&str, &[u8])]) -> SimDisk {
    let disk = SimDisk::with_dir("/data/appendonlydir");
    for (name, content) in files {
        disk.place(path(name), content);
    }
    disk
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new("/data/appendonlydir").join(name)
}

/// A journal whose only increment has this content.
fn one_file(content: &[u8]) -> SimDisk {
    let manifest = format!("file {BASE} seq 1 type b\nfile {FIRST} seq 1 type i\n");
    disk(&[("appendonly.aof.manifest", manifest.as_bytes()), (BASE, b""), (FIRST, content)])
}

fn two_files(first: &[u8], last: &[u8]) -> SimDisk {
    let manifest = format!("file {BASE} seq 1 type b\nfile {FIRST} seq 1 type i\nfile {LAST} seq 2 type i\n");
    disk(&[("appendonly.aof.manifest", manifest.as_bytes()), (BASE, b""), (FIRST, first), (LAST, last)])
}

struct Replayed {
    words: Vec<Words>,
    outcome: Result<(AofWriter, ReplayReport), Error>,
}

fn replay_with(disk: &SimDisk, options: AofOptions) -> Replayed {
    let mut words = Vec::new();
    let outcome = Aof::open(Arc::new(disk.clone()), Path::new("/data"), options).and_then(|aof| {
        aof.replay(|command| {
            let args = command.args.iter().map(|arg| arg.escape_ascii().to_string());
            words.push((command.db, args.collect()));
            Ok(())
        })
    });
    Replayed { words, outcome }
}

fn replay(disk: &SimDisk) -> Replayed {
    replay_with(disk, AofOptions::default())
}

fn strict() -> AofOptions {
    let mut options = AofOptions::default();
    options.torn_tail = TornTail::Refuse;
    options
}

fn encode(commands: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in commands {
        if command.starts_with('#') {
            bytes.extend_from_slice(command.as_bytes());
            bytes.extend_from_slice(b"\r\n");
            continue;
        }
        let words: Vec<&str> = command.split(' ').collect();
        bytes.extend_from_slice(format!("*{}\r\n", words.len()).as_bytes());
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
    }
    bytes
}

fn words(command: &str, db: u32) -> Words {
    (db, command.split(' ').map(str::to_owned).collect())
}

const JOURNAL: [&str; 12] = [
    "SELECT 0",
    "SET a 1",
    "#TS:1700000000",
    "RPUSH l x y z",
    "SELECT 3",
    "MULTI",
    "SET b 2",
    "SELECT 0",
    "DEL a",
    "EXEC",
    "SELECT 3",
    "SET c longervalue",
];

/// The commands of [`JOURNAL`] that are complete within so many bytes, a transaction being one; and up to where.
fn complete_within(len: usize) -> (Vec<Words>, u64) {
    let steps: [Step<'_>; 8] = [
        (&["SELECT 0"], &[]),
        (&["SET a 1"], &[("SET a 1", 0)]),
        (&["#TS:1700000000"], &[]),
        (&["RPUSH l x y z"], &[("RPUSH l x y z", 0)]),
        (&["SELECT 3"], &[]),
        (&["MULTI", "SET b 2", "SELECT 0", "DEL a", "EXEC"], &[("SET b 2", 3), ("DEL a", 0)]),
        (&["SELECT 3"], &[]),
        (&["SET c longervalue"], &[("SET c longervalue", 3)]),
    ];
    let (mut expected, mut at, mut valid) = (Vec::new(), 0, 0);
    for (commands, effects) in steps {
        let end = at + encode(commands).len();
        if end > len {
            break;
        }
        at = end;
        // An annotation is cut off with the torn command after it.
        if !commands[0].starts_with('#') || at == len {
            valid = end;
        }
        expected.extend(effects.iter().map(|&(command, db)| words(command, db)));
    }
    (expected, valid as u64)
}

#[test]
fn a_journal_comes_back_with_its_databases_transactions_and_annotations_understood() {
    let content = encode(&JOURNAL);
    let replayed = replay(&one_file(&content));
    let (_, report) = replayed.outcome.unwrap();
    assert_eq!(replayed.words, complete_within(content.len()).0);
    assert_eq!((report.commands, report.files, report.bytes), (5, 2, content.len() as u64));
    assert_eq!((report.cut_off, report.warnings.len()), (None, 0));
}

#[test]
fn each_file_begins_in_database_0() {
    let disk = two_files(&encode(&["SELECT 5", "SET a 1"]), &encode(&["SET b 2"]));
    assert_eq!(replay(&disk).words, [words("SET a 1", 5), words("SET b 2", 0)]);
}

#[test]
fn at_every_length_the_last_file_is_cut_off_after_its_last_complete_step() {
    let content = encode(&JOURNAL);
    for len in 0..content.len() {
        let disk = one_file(&content[..len]);
        let replayed = replay(&disk);
        let (mut writer, report) = replayed.outcome.unwrap();
        let (expected, valid) = complete_within(len);
        assert_eq!(replayed.words, expected, "cut at {len}");
        let cut = report.cut_off.map(|cut| (cut.offset, cut.bytes));
        let lost = len as u64 - valid;
        assert_eq!(cut, (lost > 0).then_some((valid, lost)), "cut at {len}");
        // What is appended then comes back too.
        writer.append(&encode(&["SELECT 1", "SET new 1"]), None).unwrap();
        drop(writer);
        let again = replay(&disk);
        assert_eq!(again.words.last(), Some(&words("SET new 1", 1)), "cut at {len}");
        assert_eq!(again.words.len(), expected.len() + 1, "cut at {len}");
        assert_eq!(again.outcome.unwrap().1.cut_off, None);
    }
}

#[test]
fn at_every_length_a_torn_tail_is_refused_where_that_was_asked_for() {
    let content = encode(&JOURNAL);
    for len in 0..content.len() {
        let disk = one_file(&content[..len]);
        let replayed = replay_with(&disk, strict());
        let (expected, valid) = complete_within(len);
        assert_eq!(replayed.words, expected);
        let rest = &content[valid as usize..len];
        // An annotation, whole or torn, is no command that is missing.
        if rest.is_empty() || (rest.starts_with(b"#") && rest.len() < 16) {
            replayed.outcome.unwrap();
        } else {
            let error = replayed.outcome.unwrap_err();
            assert_eq!((error.kind(), error.offset()), (ErrorKind::Truncated, Some(valid)));
            assert!(error.to_string().contains("aof-load-truncated"), "{error}");
            assert_eq!(disk.content(path(FIRST)).unwrap(), &content[..len], "nothing was changed");
        }
    }
}

#[test]
fn a_file_that_is_not_the_last_must_be_complete() {
    let content = encode(&JOURNAL);
    for len in 0..content.len() {
        let disk = two_files(&content[..len], b"");
        let replayed = replay(&disk);
        let (expected, valid) = complete_within(len);
        assert_eq!(replayed.words, expected);
        let rest = &content[valid as usize..len];
        // An annotation, whole or torn, is no command that is missing.
        if rest.is_empty() || (rest.starts_with(b"#") && rest.len() < 16) {
            replayed.outcome.unwrap();
        } else {
            let error = replayed.outcome.unwrap_err();
            assert_eq!((error.kind(), error.offset()), (ErrorKind::Damaged, Some(valid)));
            assert!(error.to_string().contains("not the last"), "{error}");
        }
        assert_eq!(disk.content(path(FIRST)).unwrap(), &content[..len], "nothing was changed");
    }
}

#[test]
fn a_flipped_bit_never_touches_what_lies_before_it() {
    let content = encode(&JOURNAL);
    let last_two = content.len() - encode(&JOURNAL[10..]).len();
    let (mut refused, mut cut, mut passed) = (0, 0, 0);
    for bit in 0..content.len() * 8 {
        let mut flipped = content.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let replayed = replay(&one_file(&flipped));
        let (before, valid) = complete_within(bit / 8);
        assert!(replayed.words.starts_with(&before), "bit {bit}");
        match replayed.outcome {
            Ok((_, report)) if report.cut_off.is_some() => {
                assert!(report.cut_off.unwrap().offset >= valid, "bit {bit}");
                // Too little follows to tell a wrong length from a torn end.
                assert!(bit / 8 >= last_two, "bit {bit}");
                cut += 1;
            }
            Ok(_) => passed += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Damaged, "bit {bit}: {error}");
                assert!(error.offset().unwrap() >= valid, "bit {bit}: {error}");
                let text = error.to_string();
                assert!(text.contains(FIRST) && text.contains("check-aof --fix"), "{text}");
                refused += 1;
            }
        }
    }
    // Flips within names and values cannot be told from other names and values before lines have checksums.
    println!("{refused} flips refused, {cut} taken for a torn tail, {passed} within data");
    assert!(refused > 1_000);
}

#[test]
fn a_wrong_length_is_no_torn_tail_when_commands_follow() {
    let mut content = encode(&["SET a 1", "SET b 2", "SET c 3", "SET d 4"]);
    let good = content.len();
    // The length of b's value: 1 becomes 9000001, far beyond the end.
    content.splice(48..49, *b"9000001");
    let replayed = replay(&one_file(&content));
    let error = replayed.outcome.unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::Damaged, Some(27)));
    assert!(error.to_string().contains("commands follow at 60"), "{error}");
    assert_eq!(replayed.words, [words("SET a 1", 0)]);
    // Torn besides, it cannot be told from a string that holds commands.
    let torn = replay(&one_file(&content[..good])).outcome.unwrap().1;
    assert_eq!(torn.cut_off.unwrap().offset, 27);
}

#[test]
fn a_torn_string_that_holds_commands_is_cut_off_in_one_pass() {
    let inner = encode(&["SET a 1"]).repeat(20_000);
    let mut content = encode(&["SET x 1"]);
    let head = format!("*3\r\n$3\r\nSET\r\n$1\r\ny\r\n${}\r\n", inner.len());
    content.extend_from_slice(head.as_bytes());
    content.extend_from_slice(&inner[..inner.len() - 5]);
    let began = std::time::Instant::now();
    let report = replay(&one_file(&content)).outcome.unwrap().1;
    assert_eq!(report.cut_off.unwrap().offset, 27);
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "that was no single pass");
}

#[test]
fn bytes_after_the_journal_that_are_none_are_refused_and_zeros_are_cut_off() {
    let mut content = encode(&JOURNAL);
    let sound = content.len() as u64;
    content.extend_from_slice(&[0; 4096]);
    let report = replay(&one_file(&content)).outcome.unwrap().1;
    assert_eq!(report.cut_off.map(|cut| (cut.offset, cut.bytes)), Some((sound, 4096)));
    content.push(b'x');
    let error = replay(&one_file(&content)).outcome.unwrap_err();
    assert_eq!((error.kind(), error.offset()), (ErrorKind::Damaged, Some(sound)));
}

#[test]
fn a_transaction_whose_exec_is_damaged_is_refused_and_not_cut_off_with_all_that_follows() {
    let content = encode(&["MULTI", "SET a 1", "EXEX", "SET b 2", "SET c 3"]);
    let replayed = replay(&one_file(&content));
    let error = replayed.outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert_eq!(error.offset(), Some(encode(&["MULTI", "SET a 1"]).len() as u64));
    assert_eq!(replayed.words, []);
}

#[test]
fn oddities_of_transactions_are_passed_over_as_redis_does_and_reported() {
    let content = encode(&[
        "EXEC", "MULTI", "SET a 1", "MULTI", "SET b 2", "EXEC", "MULTI", "SET x 1", "DISCARD", "DISCARD",
        "SET c 3",
    ]);
    let replayed = replay(&one_file(&content));
    assert_eq!(replayed.words, ["SET a 1", "SET b 2", "SET c 3"].map(|command| words(command, 0)));
    assert_eq!(replayed.outcome.unwrap().1.warnings.len(), 3);
}

#[test]
fn a_refused_command_stops_the_replay_and_is_named() {
    let disk = one_file(&encode(&["SET a 1", "SET b 2"]));
    let before = disk.content(path(FIRST));
    let aof = Aof::open(Arc::new(disk.clone()), Path::new("/data"), AofOptions::default()).unwrap();
    let mut count = 0;
    let refused = aof.replay(|_| {
        count += 1;
        if count == 2 { Err("no such command".into()) } else { Ok(()) }
    });
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.to_string().contains("SET at offset 27"), "{error}");
    assert_eq!(disk.content(path(FIRST)), before);
}

#[test]
fn a_file_that_the_manifest_names_and_is_missing_is_found_before_anything_is_replayed() {
    let disk = two_files(&encode(&["SET a 1"]), b"");
    disk.remove(&path(LAST)).unwrap();
    let replayed = replay(&disk);
    let error = replayed.outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Manifest);
    assert!(error.to_string().contains(LAST), "{error}");
    assert_eq!(replayed.words, []);
}

#[test]
fn a_second_process_is_refused() {
    let disk = one_file(b"");
    let (_writer, _) = replay(&disk).outcome.unwrap();
    let error = replay(&disk).outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("in use by another process"), "{error}");
}

#[test]
fn replaced_files_are_removed_at_the_start() {
    let manifest =
        format!("file {BASE} seq 1 type b\nfile old.aof seq 1 type h\nfile {FIRST} seq 1 type i\n");
    let disk = disk(&[
        ("appendonly.aof.manifest", manifest.as_bytes()),
        (BASE, b""),
        (FIRST, b""),
        ("old.aof", b"x"),
    ]);
    let (writer, _) = replay(&disk).outcome.unwrap();
    assert!(writer.manifest().history.is_empty());
    assert_eq!(disk.content(path("old.aof")), None);
    let stored = String::from_utf8(disk.content(path("appendonly.aof.manifest")).unwrap()).unwrap();
    assert_eq!(stored, format!("file {BASE} seq 1 type b\nfile {FIRST} seq 1 type i\n"));
}

#[test]
fn a_read_only_directory_is_one_clear_error() {
    let disk = one_file(&encode(&["SET a 1"]));
    disk.inject(Fault::ReadOnly);
    let error = replay(&disk).outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("mount it writable"), "{error}");
}

#[test]
fn names_that_are_paths_are_refused() {
    for name in ["", "..", "a/b"] {
        let mut options = AofOptions::default();
        options.file_name = name.into();
        assert!(replay_with(&one_file(b""), options).outcome.is_err());
    }
}
