//! The manifest: which files the journal consists of, in Redis 7's own format.
//!
//! One line a file, `file NAME seq N type T`: at most one base (`b`), then files that a rewrite has replaced
//! (`h`), then the increments (`i`) in rising order. A manifest is replaced as a whole and in one step, after
//! the files that it names are durable. Whatever does not read back as exactly that is refused, with its line.

use std::fmt::Write as _;
use std::path::Path;

use crate::disk::{Disk, append_all};
use crate::error::{Error, ErrorKind, Result};

/// The longest line, its end included, that Redis 7 reads.
const MAX_LINE_BYTES: usize = 1024;

/// The largest manifest that is read, in bytes. Redis sets no limit; this one is above 4,000 files.
pub const MAX_MANIFEST_BYTES: u64 = 4 * 1024 * 1024;

/// What part a file plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// The data as of the last rewrite.
    Base,
    /// Replaced by a rewrite and about to be removed.
    History,
    /// Writes since the base, or since the increment before.
    Incr,
}

impl FileType {
    fn letter(self) -> char {
        match self {
            Self::Base => 'b',
            Self::History => 'h',
            Self::Incr => 'i',
        }
    }
}

/// One file of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// The name within the directory; never a path.
    pub name: String,
    /// Counted from 1, for bases and for increments apart.
    pub seq: u64,
    /// What part it plays.
    pub file_type: FileType,
}

/// The files of a journal, in the order in which they are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    /// The base; there is none in a journal that was begun by a Redis without one.
    pub base: Option<FileEntry>,
    /// Replaced files that are still to be removed.
    pub history: Vec<FileEntry>,
    /// The increments, rising.
    pub incrs: Vec<FileEntry>,
}

impl Manifest {
    /// Whether it names nothing that is to be read.
    pub fn has_no_data(&self) -> bool {
        self.base.is_none() && self.incrs.is_empty()
    }

    /// The files to read, in order.
    pub fn data_files(&self) -> impl Iterator<Item = &FileEntry> {
        self.base.iter().chain(&self.incrs)
    }

    /// The highest number among the increments, replaced ones included.
    pub fn last_incr_seq(&self) -> u64 {
        self.incrs.last().map_or(0, |entry| entry.seq)
    }

    /// Its text as Redis writes it.
    pub fn format(&self) -> String {
        let mut text = String::new();
        for entry in self.base.iter().chain(&self.history).chain(&self.incrs) {
            text.push_str("file ");
            push_name(&mut text, &entry.name);
            // Writing to a String cannot fail.
            let _ = writeln!(text, " seq {} type {}", entry.seq, entry.file_type.letter());
        }
        text
    }

    /// Reads the text of a manifest. `name` is the file's, for messages.
    pub fn parse(name: &str, text: &[u8]) -> Result<Self> {
        if text.is_empty() {
            return Err(broken(name, "the file is empty"));
        }
        let mut manifest = Self::default();
        for (at, line) in text.split_inclusive(|&byte| byte == b'\n').enumerate() {
            if line.starts_with(b"#") {
                continue;
            }
            let entry = parse_line(line).map_err(|what| broken_line(name, at + 1, line, &what))?;
            manifest.add(entry).map_err(|what| broken_line(name, at + 1, line, what))?;
        }
        Ok(manifest)
    }

    fn add(&mut self, entry: FileEntry) -> Result<(), &'static str> {
        let is_known = self.data_files().chain(&self.history).any(|known| known.name == entry.name);
        if is_known {
            return Err("that file has been named before");
        }
        match entry.file_type {
            FileType::Base if self.base.is_some() => return Err("a base file has been named before"),
            FileType::Base => self.base = Some(entry),
            FileType::History => self.history.push(entry),
            FileType::Incr if entry.seq <= self.last_incr_seq() => {
                return Err("the increments' numbers do not rise");
            }
            FileType::Incr => self.incrs.push(entry),
        }
        Ok(())
    }

    /// Reads the manifest `name` in `dir`, if there is one.
    pub fn load(disk: &dyn Disk, dir: &Path, name: &str) -> Result<Option<Self>> {
        let path = dir.join(name);
        let io = |error| Error::io(format_args!("read the manifest {}", path.display()), error);
        if !disk.exists(&path).map_err(io)? {
            return Ok(None);
        }
        let file = disk.open_read(&path).map_err(io)?;
        let len = file.len().map_err(io)?;
        if len > MAX_MANIFEST_BYTES {
            return Err(broken(name, "the file is far too long for a manifest"));
        }
        let mut text = vec![0; len as usize];
        let mut filled = 0;
        while let Some(rest) = text.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(io(error)),
            }
        }
        text.truncate(filled);
        Self::parse(name, &text).map(Some)
    }

    /// Puts this manifest in the place of the one on disk, in one durable step: after a crash at any point there
    /// is the old one or this one, whole. The caller has made the files that it names durable before.
    ///
    /// The error says whether the new one may be found already, although it is not durable.
    pub fn store(&self, disk: &dyn Disk, dir: &Path, name: &str) -> Result<(), StoreError> {
        let text = self.format();
        let before = |what, error| StoreError { error: Error::io(what, error), may_have_replaced: false };
        if text.split_inclusive('\n').any(|line| line.len() > MAX_LINE_BYTES) {
            let error =
                broken(name, "a file name in it is too long for Redis to read back: choose a shorter one");
            return Err(StoreError { error, may_have_replaced: false });
        }
        let temp = dir.join(format!("{TEMP_PREFIX}{name}"));
        let path = dir.join(name);
        let mut file = disk.create(&temp).map_err(|error| before("make a new AOF manifest", error))?;
        append_all(&mut *file, text.as_bytes()).map_err(|error| before("write the AOF manifest", error))?;
        file.sync_all().map_err(|error| before("sync the AOF manifest", error))?;
        drop(file);
        let after = |what, error| StoreError { error: Error::io(what, error), may_have_replaced: true };
        disk.rename(&temp, &path).map_err(|error| after("put the new AOF manifest in place", error))?;
        disk.sync_dir(dir).map_err(|error| after("sync the directory of the AOF manifest", error))
    }
}

/// What Redis and we put before the name of a file that is not complete yet.
pub(crate) const TEMP_PREFIX: &str = "temp-";

/// Why a manifest was not stored.
#[derive(Debug)]
pub struct StoreError {
    /// The failure.
    pub error: Error,
    /// Whether the new manifest may be the one that is found from now on.
    pub may_have_replaced: bool,
}

impl From<StoreError> for Error {
    fn from(store: StoreError) -> Self {
        store.error
    }
}

fn broken(name: &str, what: &str) -> Error {
    let advice = "restore it from a backup; without it the order of the AOF files is unknown";
    Error::new(ErrorKind::Manifest, format!("the AOF manifest {name} cannot be used: {what}; {advice}"))
}

fn broken_line(name: &str, number: usize, line: &[u8], what: &str) -> Error {
    let shown: String = String::from_utf8_lossy(line).trim_end().chars().take(200).collect();
    broken(name, &format!("line {number} ({shown:?}): {what}"))
}

fn parse_line(line: &[u8]) -> Result<FileEntry, String> {
    if line.len() > MAX_LINE_BYTES {
        return Err("the line is too long".into());
    }
    if !line.ends_with(b"\n") {
        return Err("the line does not end: the file was cut short".into());
    }
    let words = split_words(line)?;
    if words.len() < 6 || words.len() % 2 != 0 {
        return Err("it is not `file NAME seq NUMBER type b|h|i`".into());
    }
    let (mut name, mut seq, mut file_type) = (None, None, None);
    for pair in words.chunks_exact(2) {
        let [key, value] = pair else { continue };
        match key.to_ascii_lowercase().as_slice() {
            b"file" => name = Some(parse_name(value)?),
            b"seq" => seq = Some(parse_seq(value)?),
            b"type" => file_type = Some(parse_type(value)?),
            // Later versions of Redis may add pairs; 7 ignores what it does not know.
            _ => {}
        }
    }
    match (name, seq, file_type) {
        (Some(name), Some(seq), Some(file_type)) => Ok(FileEntry { name, seq, file_type }),
        _ => Err("it needs `file`, `seq` and `type`".into()),
    }
}

fn parse_name(value: &[u8]) -> Result<String, String> {
    let name = std::str::from_utf8(value).map_err(|_| "the file's name is not UTF-8")?;
    if name.contains(['/', '\\', '\0']) {
        return Err("the file's name must be a plain name, not a path".into());
    }
    if matches!(name, "" | "." | "..") {
        return Err("that is not the name of a file".into());
    }
    Ok(name.to_owned())
}

fn parse_seq(value: &[u8]) -> Result<u64, String> {
    let seq = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    // Redis counts in a signed 64-bit number.
    seq.filter(|&seq| seq > 0 && seq < i64::MAX as u64)
        .ok_or_else(|| "`seq` is not a number from 1 on".into())
}

fn parse_type(value: &[u8]) -> Result<FileType, String> {
    match value {
        b"b" => Ok(FileType::Base),
        b"h" => Ok(FileType::History),
        b"i" => Ok(FileType::Incr),
        _ => Err("`type` is none of b, h and i".into()),
    }
}

/// Splits a line into words as Redis does in its configuration: quoted by `"` (with escapes) or by `'`.
fn split_words(line: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_ascii();
    while let Some(&first) = rest.first() {
        let (word, tail) = match first {
            b'"' => double_quoted(rest)?,
            b'\'' => single_quoted(rest)?,
            _ => plain(rest)?,
        };
        if !tail.first().is_none_or(u8::is_ascii_whitespace) {
            return Err("a closing quote must be followed by a space".into());
        }
        words.push(word);
        rest = tail.trim_ascii_start();
    }
    Ok(words)
}

const OPEN_QUOTE: &str = "a quote is not closed";

fn plain(text: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    let (word, tail) = text.split_at_checked(end).ok_or(OPEN_QUOTE)?;
    if word.contains(&0) {
        return Err("there is a zero byte in it".into());
    }
    Ok((word.to_vec(), tail))
}

fn single_quoted(text: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    let mut word = Vec::new();
    let mut rest = text.get(1..).ok_or(OPEN_QUOTE)?;
    loop {
        rest = match rest {
            [b'\\', b'\'', tail @ ..] => {
                word.push(b'\'');
                tail
            }
            [b'\'', tail @ ..] => return Ok((word, tail)),
            [byte, tail @ ..] => {
                word.push(*byte);
                tail
            }
            [] => return Err(OPEN_QUOTE.into()),
        };
    }
}

fn double_quoted(text: &[u8]) -> Result<(Vec<u8>, &[u8]), String> {
    let mut word = Vec::new();
    let mut rest = text.get(1..).ok_or(OPEN_QUOTE)?;
    loop {
        let (byte, tail) = match rest {
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                (hex_digit(*high) * 16 + hex_digit(*low), tail)
            }
            [b'\\', escaped, tail @ ..] => (unescape(*escaped), tail),
            [b'"', tail @ ..] => return Ok((word, tail)),
            [byte, tail @ ..] => (*byte, tail),
            [] => return Err(OPEN_QUOTE.into()),
        };
        word.push(byte);
        rest = tail;
    }
}

fn hex_digit(digit: u8) -> u8 {
    char::from(digit).to_digit(16).unwrap_or(0) as u8
}

fn unescape(letter: u8) -> u8 {
    match letter {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

fn push_name(text: &mut String, name: &str) {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'\'');
    // A line that begins with `#` is a comment, but the name is never at its beginning.
    if !name.is_empty() && name.bytes().all(is_plain) {
        text.push_str(name);
        return;
    }
    text.push('"');
    for byte in name.bytes() {
        match byte {
            b'\\' => text.push_str("\\\\"),
            b'"' => text.push_str("\\\""),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            7 => text.push_str("\\a"),
            8 => text.push_str("\\b"),
            b' '..=b'~' => text.push(char::from(byte)),
            _ => {
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::{Crash, Fault, SimDisk};

    fn parse(text: &str) -> Result<Manifest> {
        Manifest::parse("m", text.as_bytes())
    }

    fn entry(name: &str, seq: u64, file_type: FileType) -> FileEntry {
        FileEntry { name: name.into(), seq, file_type }
    }

    #[test]
    fn a_manifest_of_redis_reads_and_writes_back() {
        let text = "file a.2.base.rdb seq 2 type b\nfile a.1.incr.aof seq 1 type h\nfile a.4.incr.aof seq 4 type i\n";
        let manifest = parse(text).unwrap();
        assert_eq!(manifest.base, Some(entry("a.2.base.rdb", 2, FileType::Base)));
        assert_eq!(manifest.history, [entry("a.1.incr.aof", 1, FileType::History)]);
        assert_eq!(manifest.last_incr_seq(), 4);
        assert_eq!(manifest.format(), text);
    }

    #[test]
    fn comments_unknown_pairs_and_other_spellings_are_taken() {
        let text =
            "# made by hand\nFILE 'my file' SEQ 1 TYPE b later yes\nfile \"a\\x20\\tb\"   seq 1\ttype i\r\n";
        let manifest = parse(text).unwrap();
        assert_eq!(manifest.base.unwrap().name, "my file");
        assert_eq!(manifest.incrs.first().unwrap().name, "a \tb");
    }

    #[test]
    fn broken_manifests_are_refused_with_their_line() {
        let good = "file a seq 1 type b\n";
        for (text, expected) in [
            ("", "the file is empty"),
            ("\n", "line 1"),
            ("file a seq 1 type b", "cut short"),
            ("file a seq 1 type b\n\nfile b seq 1 type i\n", "line 2"),
            ("file a seq 1\n", "file NAME"),
            ("file a seq 1 type b extra\n", "file NAME"),
            ("name a seq 1 type b\n", "needs `file`"),
            ("file a seq 0 type b\n", "from 1 on"),
            ("file a seq -1 type b\n", "from 1 on"),
            ("file a seq 9223372036854775807 type b\n", "from 1 on"),
            ("file a seq 1x type b\n", "from 1 on"),
            ("file a seq 1 type x\n", "none of b, h and i"),
            ("file a seq 1 type base\n", "none of b, h and i"),
            ("file ../a seq 1 type b\n", "not a path"),
            ("file .. seq 1 type b\n", "not the name"),
            ("file \"\" seq 1 type b\n", "not the name"),
            ("file \"a seq 1 type b\n", "not closed"),
            ("file 'a'b seq 1 type b\n", "followed by a space"),
            ("file \"\\xff\" seq 1 type b\n", "not UTF-8"),
            (&format!("{good}file b seq 2 type b\n"), "line 2"),
            (&format!("{good}file a seq 1 type i\n"), "named before"),
            ("file a seq 2 type i\nfile b seq 2 type i\n", "do not rise"),
            (&format!("file {} seq 1 type b\n", "a".repeat(1024)), "too long"),
        ] {
            let error = parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Manifest);
            assert!(error.to_string().contains(expected), "{text:?} gave: {error}");
        }
    }

    #[test]
    fn names_that_need_it_are_quoted() {
        let mut manifest = Manifest::default();
        manifest.incrs.push(entry("my \"file\"\u{e9}\n.aof", 1, FileType::Incr));
        let text = manifest.format();
        assert_eq!(text, "file \"my \\\"file\\\"\\xc3\\xa9\\n.aof\" seq 1 type i\n");
        assert_eq!(parse(&text).unwrap(), manifest);
    }

    #[test]
    fn a_crash_while_storing_leaves_the_old_or_the_new_one() {
        let dir = Path::new("/d");
        let old = parse("file a seq 1 type b\n").unwrap();
        let new = parse("file a seq 1 type b\nfile b seq 1 type i\n").unwrap();
        for step in 1..20 {
            for seed in 0..40 {
                let disk = SimDisk::with_dir(dir);
                old.store(&disk, dir, "m").unwrap();
                disk.crash_at(disk.steps() + step);
                let stored = new.store(&disk, dir, "m").is_ok();
                let how = if seed == 0 { Crash::Strict } else { Crash::Holes(seed) };
                let found = Manifest::load(&disk.crash(how), dir, "m").unwrap().unwrap();
                assert!(found == new || (!stored && found == old), "step {step} seed {seed}");
            }
        }
    }

    #[test]
    fn a_store_that_failed_says_whether_the_old_one_is_still_there() {
        let dir = Path::new("/d");
        let manifest = parse("file a seq 1 type b\n").unwrap();
        for (fault, may_have_replaced) in [
            (Fault::Full { free: 3 }, false),
            (Fault::SyncFails { times: 1 }, false),
            (Fault::RenameFails { times: 1 }, true),
            (Fault::DirSyncFails { after: 0, times: 1 }, true),
        ] {
            let disk = SimDisk::with_dir(dir);
            disk.inject(fault);
            assert_eq!(manifest.store(&disk, dir, "m").unwrap_err().may_have_replaced, may_have_replaced);
        }
    }

    proptest! {
        #[test]
        fn any_name_survives_the_round_trip(name in "[^/\\\\\0]{1,60}") {
            prop_assume!(name != "." && name != "..");
            let mut manifest = Manifest::default();
            manifest.incrs.push(entry(&name, 3, FileType::Incr));
            prop_assert_eq!(parse(&manifest.format()).unwrap(), manifest);
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Manifest::parse("m", &bytes);
        }

        #[test]
        fn any_words_are_read_without_a_panic(text in "(file|seq|type|1|b|i|\"|'|\\\\|x| |\n){0,40}") {
            let _ = Manifest::parse("m", text.as_bytes());
        }
    }
}
