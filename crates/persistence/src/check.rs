//! Looks a journal through without loading it, and cuts damage off its end where that is asked for.
//!
//! The invariant: nothing on disk changes except by [`Fix::CutOff`] and [`cut_off_aof_file`], and they change one file only,
//! by making it shorter. Damage in a file before it is reported and left alone: what follows it could not be
//! replayed on top of a gap.

use std::path::Path;

use crate::aof::{Command, FileOutcome, Record, Scanner, Tail, Warnings, end_of_base, replay_file};
use crate::disk::Disk;
use crate::error::{Error, ErrorKind, Result};
use crate::manifest::Manifest;
use crate::rdb::{RdbKey, RdbReport, load_rdb};
use crate::receiver::Receiver;
use crate::recover::{AofOptions, CutOff, cut_off, lock};

/// Whether to repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fix {
    /// Only look.
    No,
    /// Cut the last file off where it stops to be sound.
    CutOff,
}

/// What was found in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckedFile {
    /// Its name.
    pub name: String,
    /// Its length, in bytes, before a repair.
    pub len: u64,
    /// Up to where it is sound, in bytes.
    pub sound_up_to: u64,
    /// Its commands up to there.
    pub commands: u64,
    /// Its keys, where it begins with a snapshot.
    pub keys: u64,
    /// What is wrong after that.
    pub problem: Option<String>,
}

/// What was found in a journal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Its files, in the order in which they are replayed.
    pub files: Vec<CheckedFile>,
    /// What was cut off.
    pub cut_off: Option<CutOff>,
    /// Oddities that do no harm, a bounded number.
    pub warnings: Vec<String>,
}

impl CheckReport {
    /// Whether a server would load all of it, as it is now.
    pub fn is_sound(&self) -> bool {
        let is_cut = |file: &CheckedFile| self.cut_off.as_ref().is_some_and(|cut| cut.file == file.name);
        self.files.iter().all(|file| file.problem.is_none() || is_cut(file))
    }
}

/// Looks the journal in `dir` through. Fails if there is none, if it is in use, or if it cannot be read at all; what
/// is wrong within its files is in the report.
pub fn check(disk: &dyn Disk, dir: &Path, options: &AofOptions, fix: Fix) -> Result<CheckReport> {
    let aof_dir = dir.join(&options.dir_name);
    let missing = || {
        let message =
            format!("there is no AOF manifest in {}: give the directory of --dir", aof_dir.display());
        Error::new(ErrorKind::Manifest, message)
    };
    if !disk
        .exists(&aof_dir)
        .map_err(|error| Error::io(format_args!("look for {}", aof_dir.display()), error))?
    {
        return Err(missing());
    }
    let _lock = lock(disk, &aof_dir, options)?;
    let manifest = Manifest::load(disk, &aof_dir, &options.manifest_name())?.ok_or_else(missing)?;
    let mut report = CheckReport::default();
    let mut warnings = Warnings::default();
    for entry in manifest.data_files() {
        report.files.push(check_file(disk, &aof_dir, &entry.name, options, &mut warnings)?);
    }
    report.warnings = warnings.into_texts();
    if fix == Fix::CutOff {
        report.cut_off = repair(disk, &aof_dir, &report.files)?;
    }
    Ok(report)
}

fn check_file(
    disk: &dyn Disk,
    dir: &Path,
    name: &str,
    options: &AofOptions,
    warnings: &mut Warnings,
) -> Result<CheckedFile> {
    let io = |error| Error::io(format_args!("read the AOF file {name}"), error);
    let file = disk.open_read(&dir.join(name)).map_err(io)?;
    let len = file.len().map_err(io)?;
    let mut looker = Looker::default();
    let outcome = replay_file(file, name, options.max_bulk_bytes, warnings, &mut looker);
    let Looker { commands, keys, .. } = looker;
    let checked = CheckedFile { name: name.to_owned(), len, sound_up_to: len, commands, keys, problem: None };
    match outcome {
        Ok(FileOutcome { tail: Tail::Clean, .. }) => Ok(checked),
        Ok(FileOutcome { tail, valid_up_to, .. }) => {
            let problem = Some(format!("{}, after offset {valid_up_to}", tail.describe()));
            Ok(CheckedFile { sound_up_to: valid_up_to, problem, ..checked })
        }
        Err(error) => match error.sound_up_to() {
            Some(sound_up_to) => {
                // Of the transaction that the problem lies in, commands may have been counted: only what is sound counts.
                let mut looker = Looker { ends_at: Some(sound_up_to), ..Looker::default() };
                let file = disk.open_read(&dir.join(name)).map_err(io)?;
                // What is wrong is known already.
                let _ =
                    replay_file(file, name, options.max_bulk_bytes, &mut Warnings::default(), &mut looker);
                let Looker { commands, keys, .. } = looker;
                let problem = Some(error.to_string());
                Ok(CheckedFile { sound_up_to, commands, keys, problem, ..checked })
            }
            // Not damage that cutting off would mend.
            None => Err(error),
        },
    }
}

/// Looks one file of a journal through, without a manifest. What is wrong within it is in what comes back.
pub fn check_aof_file(disk: &dyn Disk, path: &Path, options: &AofOptions) -> Result<CheckedFile> {
    let dir = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    check_file(disk, dir, &name, options, &mut Warnings::default())
}

/// Cuts a file of a journal off at `len`, durably, if no server has its directory open.
pub fn cut_off_aof_file(disk: &dyn Disk, path: &Path, len: u64) -> Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let io = |error| Error::io(format_args!("look into {}", dir.display()), error);
    let mut locks = Vec::new();
    for name in disk.list(dir).map_err(io)? {
        if let Some(file_name) = name.strip_suffix(".lock") {
            let options = AofOptions { file_name: file_name.to_owned(), ..AofOptions::default() };
            locks.push(lock(disk, dir, &options)?);
        }
    }
    cut_off(disk, path, len)
}

/// Where in a file of a journal the first timestamp annotation (`#TS:`) stands that is later than this, in seconds since
/// 1970; `None` if there is none. A timestamp says when the commands behind it were run.
pub fn first_after(disk: &dyn Disk, path: &Path, seconds: u64, options: &AofOptions) -> Result<Option<u64>> {
    let name = path.display().to_string();
    let file =
        disk.open_read(path).map_err(|error| Error::io(format_args!("read the AOF file {name}"), error))?;
    let begin = end_of_base(&*file, &name, &mut Looker::default())?;
    let mut scanner = Scanner::new(file, &name, begin, options.max_bulk_bytes)?;
    loop {
        match scanner.advance()? {
            Record::Command => {}
            Record::Annotation => {
                let stamp = scanner.line().strip_prefix(b"#TS:").map(<[u8]>::trim_ascii);
                let stamp = stamp.and_then(|text| std::str::from_utf8(text).ok()?.parse::<u64>().ok());
                if stamp.is_some_and(|stamp| stamp > seconds) {
                    return Ok(Some(scanner.record_offset()));
                }
            }
            Record::End | Record::Torn(_) | Record::Bad(..) => return Ok(None),
        }
    }
}

/// What was found in a snapshot.
#[derive(Debug)]
#[non_exhaustive]
pub struct CheckedRdb {
    /// The keys that could be read before the end, or before what is wrong.
    pub keys: u64,
    /// The last of them.
    pub last_key: Option<Vec<u8>>,
    /// What the file is, or what is wrong and where.
    pub outcome: Result<RdbReport>,
}

/// Looks a snapshot through. Fails if there is none.
pub fn check_rdb(disk: &dyn Disk, path: &Path) -> Result<CheckedRdb> {
    let mut looker = Looker::default();
    let outcome = match load_rdb(disk, path, &mut looker) {
        Ok(Some(report)) => Ok(report),
        Ok(None) => {
            let message = format!("there is no file {}", path.display());
            return Err(Error::new(ErrorKind::Manifest, message));
        }
        Err(error) if error.kind() == ErrorKind::Io => return Err(error),
        Err(error) => Err(error),
    };
    Ok(CheckedRdb { keys: looker.keys, last_key: looker.last_key, outcome })
}

/// Counts, and knows commands by their names alone.
#[derive(Default)]
struct Looker {
    /// Where commands stop to count.
    ends_at: Option<u64>,
    commands: u64,
    keys: u64,
    last_key: Option<Vec<u8>>,
}

impl Receiver for Looker {
    fn command(&mut self, command: Command<'_>) -> Result<(), String> {
        let is_known = command.args.first().is_some_and(|name| mtcache_protocol::lookup(name).is_some());
        if self.ends_at.is_none_or(|end| command.offset < end) {
            self.commands += 1;
        }
        if is_known { Ok(()) } else { Err("there is no such command".into()) }
    }

    fn key(&mut self, key: RdbKey<'_>) -> Result<(), String> {
        self.keys += 1;
        let last = self.last_key.get_or_insert_default();
        last.clear();
        last.extend_from_slice(key.key);
        Ok(())
    }
}

fn repair(disk: &dyn Disk, dir: &Path, files: &[CheckedFile]) -> Result<Option<CutOff>> {
    let Some((last, earlier)) = files.split_last() else { return Ok(None) };
    if let Some(broken) = earlier.iter().find(|file| file.problem.is_some()) {
        let message = format!(
            "the AOF file {} is not sound after offset {} and not the last one, so cutting it off would leave a gap in \
             the middle; restore the directory from a backup",
            broken.name, broken.sound_up_to
        );
        return Err(Error::new(ErrorKind::Damaged, message).at(broken.sound_up_to, broken.sound_up_to));
    }
    if last.problem.is_none() {
        return Ok(None);
    }
    cut_off(disk, &dir.join(&last.name), last.sound_up_to)?;
    Ok(Some(CutOff {
        file: last.name.clone(),
        offset: last.sound_up_to,
        bytes: last.len.saturating_sub(last.sound_up_to),
        reason: "it was not sound after that",
    }))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::disk::SimDisk;

    const SET: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n";
    const FIRST: &str = "appendonly.aof.1.incr.aof";
    const LAST: &str = "appendonly.aof.2.incr.aof";

    #[test]
    fn only_the_commands_of_the_sound_part_are_counted() {
        const BEGUN: &[u8] = b"*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n*2\r\n$4\r\nXNCR\r\n$1\r\nn\r\n*1\r\n$4\r\nEXEC\r\n";
        let disk = journal(SET, &[SET, BEGUN].concat());
        let checked = check_aof_file(&disk, &path(LAST), &AofOptions::default()).unwrap();
        assert_eq!((checked.sound_up_to, checked.commands), (SET.len() as u64, 1));
        assert!(checked.problem.is_some());
    }

    fn path(name: &str) -> PathBuf {
        Path::new("/data/appendonlydir").join(name)
    }

    fn journal(first: &[u8], last: &[u8]) -> SimDisk {
        let disk = SimDisk::with_dir("/data/appendonlydir");
        let manifest = format!("file {FIRST} seq 1 type i\nfile {LAST} seq 2 type i\n");
        disk.place(path("appendonly.aof.manifest"), manifest.as_bytes());
        disk.place(path(FIRST), first);
        disk.place(path(LAST), last);
        disk
    }

    fn run(disk: &SimDisk, fix: Fix) -> Result<CheckReport> {
        check(disk, Path::new("/data"), &AofOptions::default(), fix)
    }

    #[test]
    fn a_sound_journal_is_sound_and_stays_as_it_is() {
        let disk = journal(SET, SET);
        let report = run(&disk, Fix::CutOff).unwrap();
        assert!(report.is_sound());
        assert_eq!(report.files.iter().map(|file| file.commands).collect::<Vec<_>>(), [1, 1]);
        assert_eq!(report.cut_off, None);
    }

    #[test]
    fn damage_at_the_end_is_cut_off_only_when_asked_for() {
        let transaction = b"*1\r\n$5\r\nMULTI\r\n*1\r\n$4\r\nPING\r\n";
        for damage in [&b"garbage"[..], b"*3\r\n$3\r\nSE", b"\0\0", b"*1\r\n$5\r\nWHAT?\r\n", transaction] {
            let content = [SET, damage].concat();
            let disk = journal(SET, &content);
            let report = run(&disk, Fix::No).unwrap();
            assert!(!report.is_sound(), "{}", damage.escape_ascii());
            assert_eq!(disk.content(path(LAST)).unwrap(), content);
            let report = run(&disk, Fix::CutOff).unwrap();
            assert!(report.is_sound());
            assert_eq!(report.cut_off.unwrap().bytes, damage.len() as u64);
            assert_eq!(disk.content(path(LAST)).unwrap(), SET);
            assert!(run(&disk, Fix::No).unwrap().is_sound());
        }
    }

    #[test]
    fn damage_before_the_last_file_is_reported_and_left_alone() {
        let disk = journal(b"garbage", SET);
        let report = run(&disk, Fix::No).unwrap();
        assert_eq!(report.files.first().map(|file| file.sound_up_to), Some(0));
        assert!(run(&disk, Fix::CutOff).unwrap_err().to_string().contains("leave a gap"));
        assert_eq!(disk.content(path(FIRST)).unwrap(), b"garbage");
    }

    #[test]
    fn a_file_is_looked_at_alone_and_not_cut_off_while_a_server_has_it() {
        let disk = journal(SET, &[SET, b"garbage"].concat());
        let options = AofOptions::default();
        let checked = check_aof_file(&disk, &path(LAST), &options).unwrap();
        assert_eq!((checked.sound_up_to, checked.commands), (SET.len() as u64, 1));
        assert!(checked.problem.is_some());
        let held = lock(&disk, Path::new("/data/appendonlydir"), &options).unwrap();
        assert_eq!(cut_off_aof_file(&disk, &path(LAST), 3).unwrap_err().kind(), ErrorKind::Locked);
        drop(held);
        cut_off_aof_file(&disk, &path(LAST), checked.sound_up_to).unwrap();
        assert_eq!(disk.content(path(LAST)).unwrap(), SET);
    }

    #[test]
    fn the_first_later_timestamp_is_found() {
        let disk = journal(SET, &[b"#TS:100\r\n", SET, b"#TS:200\r\n", SET].concat());
        let find = |seconds| first_after(&disk, &path(LAST), seconds, &AofOptions::default()).unwrap();
        assert_eq!(find(99), Some(0));
        assert_eq!(find(100), Some(9 + SET.len() as u64));
        assert_eq!(find(200), None);
    }

    #[test]
    fn a_snapshot_tells_its_keys_or_where_it_is_damaged() {
        let disk = SimDisk::with_dir("/data");
        let rdb = b"REDIS0010\xfe\x03\xfb\x01\x00\x00\x01k\x01v\xff\0\0\0\0\0\0\0\0";
        let look = |content: &[u8]| {
            disk.place("/data/dump.rdb", content);
            check_rdb(&disk, Path::new("/data/dump.rdb")).unwrap()
        };
        assert_eq!(look(rdb).outcome.unwrap().keys, 1);
        let damaged = look(&rdb[..rdb.len() - 3]);
        assert_eq!((damaged.keys, damaged.last_key.as_deref()), (1, Some(&b"k"[..])));
        assert!(damaged.outcome.unwrap_err().offset().is_some());
        assert!(check_rdb(&disk, Path::new("/data/other.rdb")).is_err());
    }

    #[test]
    fn no_journal_is_an_error_that_says_so_and_makes_none() {
        let disk = SimDisk::with_dir("/data");
        assert!(run(&disk, Fix::CutOff).unwrap_err().to_string().contains("no AOF manifest"));
        assert_eq!(disk.list(Path::new("/data")).unwrap(), [""; 0]);
    }
}
