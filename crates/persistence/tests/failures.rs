//! The disk fails under a running journal: what the writer says, what it keeps, and how it comes back.

use std::path::Path;
use std::sync::Arc;

use mtcache_engine::UnixMillis;
use mtcache_persistence::disk::{Crash, Disk, Fault, SimDisk};
use mtcache_persistence::{Aof, AofOptions, AofWriter, BaseForm, ErrorKind, Lsn, NewBase, RdbOptions};

const PING: &[u8] = b"*1\r\n$4\r\nPING\r\n";
/// The line before a short group: `#CRC:`, 16 digits, two more, 4 digits, two spaces, the line end.
const LINE: u64 = 5 + 16 + 2 + 4 + 2 + 2;
const FIRST: &str = "/data/appendonlydir/appendonly.aof.1.incr.aof";
const SECOND: &str = "/data/appendonlydir/appendonly.aof.2.incr.aof";

fn open_with(disk: &SimDisk, options: AofOptions) -> (AofWriter, Vec<(u32, String)>) {
    let aof = Aof::open(Arc::new(disk.clone()), Path::new("/data"), options).unwrap();
    let mut found = Vec::new();
    let (writer, _) = aof
        .replay(|command| {
            let words: Vec<_> = command.args.iter().map(|arg| String::from_utf8_lossy(arg)).collect();
            found.push((command.db, words.join(" ")));
            Ok(())
        })
        .unwrap();
    (writer, found)
}

fn open(disk: &SimDisk) -> AofWriter {
    open_with(disk, AofOptions::default()).0
}

fn content(disk: &SimDisk) -> Vec<(u32, String)> {
    open_with(&disk.crash(Crash::Strict), AofOptions::default()).1
}

/// What stands in a file, without the lines that hold checksums.
fn groups(disk: &SimDisk, name: &str) -> Vec<u8> {
    let content = disk.content(name).unwrap();
    content
        .split_inclusive(|&byte| byte == b'\n')
        .filter(|line| !line.starts_with(b"#CRC:"))
        .flatten()
        .copied()
        .collect()
}

fn set(name: &str) -> Vec<u8> {
    format!("*3\r\n$3\r\nSET\r\n${}\r\n{name}\r\n$1\r\nv\r\n", name.len()).into_bytes()
}

fn in_db_0(names: &[&str]) -> Vec<(u32, String)> {
    names.iter().map(|name| (0, format!("SET {name} v"))).collect()
}

#[test]
fn a_new_journal_has_the_files_of_redis_7() {
    let disk = SimDisk::with_dir("/data");
    let writer = open(&disk);
    let manifest = disk.content("/data/appendonlydir/appendonly.aof.manifest").unwrap();
    let expected =
        "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n";
    assert_eq!(String::from_utf8(manifest).unwrap(), expected);
    let base = disk.content("/data/appendonlydir/appendonly.aof.1.base.rdb").unwrap();
    assert!(base.starts_with(b"REDIS0010"));
    assert_eq!((writer.base_size(), writer.current_size()), (base.len() as u64, base.len() as u64));
}

#[test]
fn places_tell_what_was_appended_written_and_synced() {
    let disk = SimDisk::with_dir("/data");
    let mut writer = open(&disk);
    assert_eq!(writer.append(PING, None).unwrap(), Lsn(14));
    assert_eq!((writer.written_lsn(), writer.synced_lsn()), (Lsn(14), Lsn(0)));
    assert_eq!(writer.sync().unwrap(), Lsn(14));
    let steps = disk.steps();
    assert_eq!(writer.sync().unwrap(), Lsn(14));
    assert_eq!(writer.append(b"", None).unwrap(), Lsn(14));
    assert_eq!(disk.steps(), steps, "there is nothing to do");
    assert_eq!(writer.current_size(), writer.base_size() + LINE + 14);
}

#[test]
fn a_full_disk_leaves_whole_groups_and_is_recovered_from_with_nothing_lost() {
    let disk = SimDisk::with_dir("/data");
    let mut writer = open(&disk);
    writer.append(&set("a"), None).unwrap();
    writer.sync().unwrap();
    writer.append(&set("b"), None).unwrap();
    disk.inject(Fault::Full { free: 10 });
    let error = writer.append(&set("c"), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("free some space"), "{error}");
    assert_eq!(writer.failure(), Some("No space left on device"));
    assert_eq!(groups(&disk, FIRST), [set("a"), set("b")].concat(), "no half of a group stays");
    assert_eq!(writer.append(&set("d"), None).unwrap_err().kind(), ErrorKind::Failed);
    assert_eq!(writer.sync().unwrap_err().kind(), ErrorKind::Failed);
    assert_eq!((writer.appended_lsn(), writer.synced_lsn()), (Lsn(27 * 3), Lsn(27)));

    writer.start_new_incr().unwrap_err();
    assert!(writer.is_failed());
    disk.heal();
    writer.start_new_incr().unwrap();
    assert!(!writer.is_failed());
    assert_eq!(writer.synced_lsn(), Lsn(27 * 3));
    writer.append(&set("e"), None).unwrap();
    writer.sync().unwrap();
    assert_eq!(content(&disk), in_db_0(&["a", "b", "c", "e"]));
}

#[test]
fn a_failed_sync_is_never_believed_again() {
    let disk = SimDisk::with_dir("/data");
    let mut writer = open(&disk);
    writer.append(&set("a"), None).unwrap();
    writer.sync().unwrap();
    writer.append(&set("b"), None).unwrap();
    disk.inject(Fault::SyncFails { times: 1 });
    writer.sync().unwrap_err();
    assert_eq!(writer.failure(), Some("Input/output error"));
    // Asked again the disk would say that all is well.
    assert_eq!(writer.sync().unwrap_err().kind(), ErrorKind::Failed);
    assert_eq!(writer.synced_lsn(), Lsn(27));
    assert_eq!(groups(&disk, FIRST), set("a"), "what may be lost is not shown");
    writer.start_new_incr().unwrap();
    assert_eq!(groups(&disk, SECOND), set("b"));
    assert_eq!(content(&disk), in_db_0(&["a", "b"]));
}

#[test]
fn the_new_file_goes_on_in_the_database_of_the_old_one() {
    let disk = SimDisk::with_dir("/data");
    let mut writer = open(&disk);
    let select = b"*2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n";
    writer.append(&[select, set("a").as_slice()].concat(), None).unwrap();
    writer.sync().unwrap();
    writer.append(&set("b"), Some(7)).unwrap();
    disk.inject(Fault::SyncFails { times: 1 });
    writer.sync().unwrap_err();
    writer.start_new_incr().unwrap();
    writer.append(&set("c"), Some(7)).unwrap();
    writer.start_new_incr().unwrap();
    writer.append(&set("d"), Some(7)).unwrap();
    writer.sync().unwrap();
    let expected: Vec<_> = ["a", "b", "c", "d"].map(|name| (7, format!("SET {name} v"))).into();
    assert_eq!(content(&disk), expected);
}

#[test]
fn a_sync_on_another_thread_promises_what_was_written_when_it_began() {
    let disk = SimDisk::with_dir("/data");
    let mut writer = open(&disk);
    assert!(writer.begin_sync().unwrap().is_none());
    writer.append(&set("a"), None).unwrap();
    let pending = writer.begin_sync().unwrap().unwrap();
    let result = std::thread::scope(|scope| {
        let syncing = scope.spawn(|| pending.run());
        writer.append(&set("b"), None).unwrap();
        syncing.join().unwrap()
    });
    assert_eq!(writer.finish_sync(&pending, result).unwrap(), Lsn(27));
    assert_eq!(writer.written_lsn(), Lsn(54));
    // The rest is still in the writer's keeping.
    disk.inject(Fault::SyncFails { times: 1 });
    writer.sync().unwrap_err();
    writer.start_new_incr().unwrap();
    assert_eq!(content(&disk), in_db_0(&["a", "b"]));
}

#[test]
fn the_result_of_a_sync_of_a_file_given_up_changes_nothing() {
    let disk = SimDisk::with_dir("/data");
    let mut writer = open(&disk);
    writer.append(&set("a"), None).unwrap();
    let pending = writer.begin_sync().unwrap().unwrap();
    writer.start_new_incr().unwrap();
    writer.append(&set("b"), None).unwrap();
    assert_eq!(writer.finish_sync(&pending, pending.run()).unwrap(), Lsn(27));
    let failed = Err(std::io::Error::other("too late"));
    assert_eq!(writer.finish_sync(&pending, failed).unwrap(), Lsn(27));
    assert!(!writer.is_failed());
}

#[test]
fn unsynced_bytes_have_a_bound_whatever_the_policy() {
    let disk = SimDisk::with_dir("/data");
    let mut options = AofOptions::default();
    options.max_unsynced_bytes = 60 + 2 * LINE as usize;
    let (mut writer, _) = open_with(&disk, options);
    writer.append(&set("a"), None).unwrap();
    writer.append(&set("b"), None).unwrap();
    assert_eq!(writer.synced_lsn(), Lsn(0));
    writer.append(&set("c"), None).unwrap();
    assert_eq!(writer.synced_lsn(), Lsn(81));
}

#[test]
fn a_sound_writer_stays_as_it_was_when_a_new_file_cannot_be_begun() {
    let disk = SimDisk::with_dir("/data");
    let mut writer = open(&disk);
    writer.append(&set("a"), None).unwrap();
    writer.sync().unwrap();
    disk.inject(Fault::Full { free: 0 });
    writer.start_new_incr().unwrap_err();
    disk.heal();
    assert!(!writer.is_failed());
    assert!(!disk.exists(Path::new(SECOND)).unwrap());
    writer.append(&set("b"), None).unwrap();
    writer.sync().unwrap();
    assert_eq!(content(&disk), in_db_0(&["a", "b"]));
}

#[test]
fn a_manifest_of_unknown_fate_makes_the_writer_fail_until_another_file_is_begun() {
    let disk = SimDisk::with_dir("/data");
    let mut writer = open(&disk);
    writer.append(&set("a"), None).unwrap();
    disk.inject(Fault::DirSyncFails { after: 1, times: 1 });
    writer.start_new_incr().unwrap_err();
    assert!(writer.is_failed(), "after a crash the old file may not be the last one");
    writer.start_new_incr().unwrap();
    writer.append(&set("b"), None).unwrap();
    writer.sync().unwrap();
    assert_eq!(writer.manifest().last_incr_seq(), 3);
    assert!(!disk.exists(Path::new(SECOND)).unwrap(), "the file between is removed");
    assert_eq!(content(&disk), in_db_0(&["a", "b"]));
}

fn begin_anew(disk: &SimDisk) -> AofWriter {
    let aof = Aof::open(Arc::new(disk.clone()), Path::new("/data"), AofOptions::default()).unwrap();
    aof.begin_anew(Lsn(0)).unwrap()
}

fn empty_base(writer: &AofWriter) -> NewBase {
    let base = writer.base_place().create_base(BaseForm::Aof, &RdbOptions::new(UnixMillis(0), 0)).unwrap();
    base.finish().unwrap()
}

#[test]
fn a_rewrite_is_refused_by_a_later_writer_of_the_same_files() {
    let disk = SimDisk::with_dir("/data");
    let mut writer = begin_anew(&disk);
    let before = writer.begin_rewrite().unwrap();
    let base = empty_base(&writer);
    writer.remove_if_detached();
    // Its increments have the numbers of those that are gone.
    let mut writer = begin_anew(&disk);
    let error = writer.finish_rewrite(&before, &base).unwrap_err();
    assert!(error.to_string().contains("a journal that has ended"), "{error}");
    assert!(disk.content(FIRST).is_some() && writer.is_detached());
    let rewrite = writer.begin_rewrite().unwrap();
    writer.append(&set("key"), None).unwrap();
    let replaced = writer.finish_rewrite(&rewrite, &empty_base(&writer)).unwrap();
    assert_eq!(replaced, ["appendonly.aof.1.incr.aof"]);
    writer.sync().unwrap();
    drop(writer);
    assert_eq!(content(&disk), in_db_0(&["key"]));
}

#[test]
fn given_up_before_its_first_rewrite_a_journal_leaves_nothing_behind() {
    let disk = SimDisk::with_dir("/data");
    let mut writer = begin_anew(&disk);
    writer.append(&set("key"), None).unwrap();
    let _ = writer.begin_rewrite().unwrap();
    writer.append(&set("other"), None).unwrap();
    writer.remove_if_detached();
    let files = disk.list(Path::new("/data/appendonlydir")).unwrap();
    assert!(!files.iter().any(|file| file.contains("incr")), "{files:?}");
}

#[test]
fn a_manifest_that_may_name_them_keeps_the_files_of_a_journal_that_is_given_up() {
    let disk = SimDisk::with_dir("/data");
    let mut writer = begin_anew(&disk);
    let rewrite = writer.begin_rewrite().unwrap();
    writer.append(&set("key"), None).unwrap();
    writer.sync().unwrap();
    let base = empty_base(&writer);
    // The first is that of the base's name, the second that of the manifest, which is in place by then.
    disk.inject(Fault::DirSyncFails { after: 1, times: 1 });
    writer.finish_rewrite(&rewrite, &base).unwrap_err();
    disk.heal();
    assert!(writer.is_detached());
    // Nor does another attempt take away what it names.
    let _ = writer.begin_rewrite().unwrap();
    writer.remove_if_detached();
    let found = open_with(&disk.crash(Crash::ProcessOnly), AofOptions::default()).1;
    assert_eq!(found, in_db_0(&["key"]));
}
