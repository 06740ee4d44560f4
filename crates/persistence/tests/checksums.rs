//! Damage of a journal with `#CRC:` lines: every flipped bit and every truncation is seen, located, and what lies before it kept.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mtcache_persistence::disk::SimDisk;
use mtcache_persistence::{Aof, AofOptions, CheckReport, Error, ErrorKind, Fix, ReplayReport, check};

const FILE: &str = "appendonly.aof.1.incr.aof";
/// Damages of the long journal; 10,000 and more with `MTCACHE_DAMAGES`.
const DAMAGES: u64 = 60;

fn path() -> PathBuf {
    Path::new("/data/appendonlydir").join(FILE)
}

fn encode(commands: &[&[&[u8]]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for command in commands {
        mtcache_protocol::encode_command(command, &mut bytes);
    }
    bytes
}

/// Numbers that look random, the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

/// A group, its commands as they come back, and where it ends in the file.
struct Group {
    words: Vec<Vec<Vec<u8>>>,
    end: usize,
}

/// A journal of these groups, as the writer writes it: its disk, and the groups.
fn journal(groups: &[Vec<Vec<Vec<u8>>>]) -> (SimDisk, Vec<Group>) {
    let disk = SimDisk::with_dir("/data");
    let (mut writer, _) = open(&disk, |_| {}).unwrap();
    let mut written = Vec::new();
    for words in groups {
        let commands: Vec<Vec<&[u8]>> =
            words.iter().map(|command| command.iter().map(Vec::as_slice).collect()).collect();
        let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
        writer.append(&encode(&commands), Some(0)).unwrap();
        writer.sync().unwrap();
        written.push(Group { words: words.clone(), end: disk.content(path()).unwrap().len() });
    }
    drop(writer);
    (disk, written)
}

type Opened = Result<(mtcache_persistence::AofWriter, ReplayReport), Error>;

fn open(disk: &SimDisk, mut seen: impl FnMut(Vec<Vec<u8>>)) -> Opened {
    Aof::open(Arc::new(disk.clone()), Path::new("/data"), AofOptions::default())?.replay(|command| {
        seen(command.args.iter().map(|arg| arg.to_vec()).collect());
        Ok(())
    })
}

fn look(disk: &SimDisk) -> CheckReport {
    check(disk, Path::new("/data"), &AofOptions::default(), Fix::No).unwrap()
}

/// Holds what comes of a damaged journal against the rule: all before the damaged group comes back, nothing else does, and the
/// place is told. `first` is the first byte that is not as it was.
fn assert_seen(disk: &SimDisk, content: &[u8], groups: &[Group], first: usize, what: &str) {
    let sound = groups.iter().take_while(|group| group.end <= first).count();
    let expected: Vec<_> = groups[..sound].iter().flat_map(|group| group.words.clone()).collect();
    let sound_up_to = sound.checked_sub(1).map_or(0, |last| groups[last].end) as u64;
    disk.place(path(), content);
    let report = look(disk);
    let file = report.files.last().unwrap();
    let is_cut_between = content.len() as u64 == sound_up_to;
    assert_eq!(
        (file.sound_up_to, file.problem.is_some()),
        (sound_up_to, !is_cut_between),
        "{what}: {file:?}"
    );
    let mut words = Vec::new();
    match open(disk, |command| words.push(command)) {
        Ok((_, report)) => {
            let cut = report.cut_off.as_ref().map(|cut| cut.offset);
            assert_eq!(cut, (!is_cut_between).then_some(sound_up_to), "{what}");
        }
        Err(error) => {
            assert_eq!(
                (error.kind(), error.sound_up_to()),
                (ErrorKind::Damaged, Some(sound_up_to)),
                "{what}"
            );
            let end = groups[sound].end as u64;
            assert!((sound_up_to..end).contains(&error.offset().unwrap()), "{what}: {error}");
        }
    }
    // A SELECT is understood and not handed on.
    assert_eq!(words, expected, "{what}");
}

fn command(text: &str) -> Vec<Vec<u8>> {
    text.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

#[test]
fn every_flipped_bit_and_every_truncation_is_seen_and_located() {
    let (disk, groups) = journal(&[
        vec![command("SET a 1")],
        vec![command("RPUSH l x y z"), command("SET \0\0 \0\0\0\0")],
        vec![command("INCR counter")],
        vec![command("DEL a")],
    ]);
    let content = disk.content(path()).unwrap();
    assert_eq!(groups.last().unwrap().end, content.len());
    for bit in 0..content.len() * 8 {
        let mut flipped = content.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_seen(&disk, &flipped, &groups, bit / 8, &format!("bit {bit}"));
    }
    for len in 0..content.len() {
        assert_seen(&disk, &content[..len], &groups, len, &format!("cut at {len}"));
        let mut zeros = content[..len].to_vec();
        zeros.resize(len + 4096, 0);
        assert_seen(&disk, &zeros, &groups, len, &format!("zeros from {len} on"));
    }
}

#[test]
fn damage_of_a_long_journal_is_seen_wherever_it_is() {
    let damages =
        std::env::var("MTCACHE_DAMAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(DAMAGES);
    let mut random = Random(7);
    let mut groups = Vec::new();
    for number in 0..40 {
        let mut commands = Vec::new();
        for _ in 0..=random.below(5) {
            let len = if number == 7 { 120_000 } else { random.below(200) };
            let value: Vec<u8> = (0..len).map(|_| random.below(256) as u8).collect();
            commands.push(vec![b"SET".to_vec(), format!("key:{}", random.below(1000)).into_bytes(), value]);
        }
        groups.push(commands);
    }
    let (disk, groups) = journal(&groups);
    let content = disk.content(path()).unwrap();
    for damage in 0..damages {
        // Most bytes are in a few long values, and most that can go wrong is around the ends of groups.
        let at = if damage % 3 == 0 {
            random.below(content.len())
        } else {
            let end = groups[random.below(groups.len())].end;
            (end.saturating_sub(200) + random.below(260)).min(content.len() - 1)
        };
        if damage % 4 == 0 {
            assert_seen(&disk, &content[..at], &groups, at, &format!("cut at {at}"));
            continue;
        }
        let mut broken = content.clone();
        let run = if damage % 4 == 1 { 1 } else { 1 + random.below(5) };
        for byte in broken.iter_mut().skip(at).take(run) {
            *byte ^= 1 << random.below(8);
        }
        assert_seen(&disk, &broken, &groups, at, &format!("{run} bytes at {at}"));
    }
}

#[test]
fn what_stands_without_lines_is_taken_as_it_comes() {
    // As after redis-server has gone on with the file.
    let (disk, _) = journal(&[vec![command("SET a 1")]]);
    let mut content = disk.content(path()).unwrap();
    content.extend_from_slice(&encode(&[&[b"SET", b"b", b"2"]]));
    disk.place(path(), &content);
    let (mut writer, _) = open(&disk, |_| {}).unwrap();
    writer.append(&encode(&[&[b"SET", b"c", b"3"]]), Some(0)).unwrap();
    drop(writer);
    let mut words = Vec::new();
    open(&disk, |command| words.push(command)).unwrap();
    assert_eq!(words, [command("SET a 1"), command("SET b 2"), command("SET c 3")]);
}
