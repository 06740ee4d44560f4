//! Which arguments of a command are keys.
//!
//! Positions come from the row's key specifications, with the few commands that no specification can
//! describe (SORT's STORE, MIGRATE's KEYS, GEORADIUS' STORE) searched by hand. Arguments from a client are
//! untrusted: whatever they say, positions lie inside them, in ascending order within one specification.

use smallvec::SmallVec;

use super::flags::{CommandFlags, KeyFlags};
use super::key_spec::{BeginSearch, FindKeys, KeyShape, KeySpec};
use super::{CommandId, CommandSpec};
use crate::number::parse_i64;

/// Positions of keys among a command's arguments.
pub type KeyIndices = SmallVec<[usize; 8]>;

/// The arguments are such that no keys can be told; the command itself reports what is wrong with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyError;

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the command's arguments do not tell where its keys are")
    }
}

impl std::error::Error for KeyError {}

/// A key's position and what the command does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRef {
    /// Position among the arguments.
    pub index: usize,
    /// What is done with it.
    pub flags: KeyFlags,
}

/// Appends the positions of the keys of `args` (name first) to `out`.
///
/// A command without keys gives none; so does a script that is called with none. Call it after the arity
/// check. Patterns of SORT's BY and GET name further keys that nobody can tell beforehand.
///
/// ```
/// use mtcache_protocol::{KeyIndices, lookup};
///
/// let args: Vec<&[u8]> = vec![b"ZUNIONSTORE", b"dst", b"2", b"a", b"b"];
/// let mut keys = KeyIndices::new();
/// lookup(args[0]).unwrap().keys(&args, &mut keys)?;
/// assert_eq!(keys.as_slice(), [1, 3, 4]);
/// # Ok::<(), mtcache_protocol::KeyError>(())
/// ```
#[inline]
pub fn keys(spec: &CommandSpec, args: &[&[u8]], out: &mut KeyIndices) -> Result<(), KeyError> {
    match spec.key_shape {
        KeyShape::None => Ok(()),
        KeyShape::First if args.len() > 1 => {
            out.push(1);
            Ok(())
        }
        KeyShape::Run { tail, step } if args.len() > 1 + usize::from(tail) => {
            out.extend((1..args.len() - usize::from(tail)).step_by(usize::from(step).max(1)));
            Ok(())
        }
        KeyShape::First | KeyShape::Run { .. } => Err(KeyError),
        KeyShape::Search => collect(spec, args, out, |index, _| index),
    }
}

/// Like [`keys`], with what is done with each key: for ACL and COMMAND GETKEYSANDFLAGS.
pub fn keys_with_flags(
    spec: &CommandSpec,
    args: &[&[u8]],
    out: &mut SmallVec<[KeyRef; 8]>,
) -> Result<(), KeyError> {
    let start = out.len();
    collect(spec, args, out, |index, flags| KeyRef { index, flags })?;
    for key in out.iter_mut().skip(start).filter(|key| key.flags.contains(KeyFlags::VARIABLE_FLAGS)) {
        key.flags = actual_flags(spec, args).unwrap_or(key.flags);
    }
    Ok(())
}

/// Goes by the specifications; where these fall short, by the rules for this one command.
fn collect<T>(
    spec: &CommandSpec,
    args: &[&[u8]],
    out: &mut SmallVec<[T; 8]>,
    make: impl Fn(usize, KeyFlags) -> T,
) -> Result<(), KeyError> {
    if matches!(spec.id, GEORADIUS | GEORADIUSBYMEMBER) {
        return special(spec, args, &mut |index, flags| out.push(make(index, flags)));
    }
    let start = out.len();
    for group in spec.key_specs.iter().filter(|group| !group.flags.contains(KeyFlags::NOT_KEY)) {
        match find(group, args) {
            Found::Run { first, last, step } => {
                out.extend((first..=last).step_by(step).map(|index| make(index, group.flags)));
            }
            Found::Absent => {}
            Found::Unclear => {
                out.truncate(start);
                return special(spec, args, &mut |index, flags| out.push(make(index, flags)));
            }
        }
    }
    Ok(())
}

/// What a specification says about some arguments.
enum Found {
    /// Keys from `first` to `last`, both inside the arguments.
    Run { first: usize, last: usize, step: usize },
    /// Its keyword is not used.
    Absent,
    /// It cannot tell, or the arguments are malformed.
    Unclear,
}

fn find(group: &KeySpec, args: &[&[u8]]) -> Found {
    let begin = match group.begin {
        BeginSearch::Index(at) => usize::from(at),
        BeginSearch::Keyword { keyword, from } => match find_keyword(keyword, from, args) {
            Some(at) => at + 1,
            None => return Found::Absent,
        },
        BeginSearch::Unknown => return Found::Unclear,
    };
    if group.flags.contains(KeyFlags::INCOMPLETE) {
        return Found::Unclear;
    }
    match run(group.find, begin, args) {
        Some((first, last, step)) if 0 < first && first <= last && last < args.len() => {
            Found::Run { first, last, step: usize::from(step).max(1) }
        }
        _ => Found::Unclear,
    }
}

fn run(find: FindKeys, begin: usize, args: &[&[u8]]) -> Option<(usize, usize, u8)> {
    match find {
        FindKeys::Range { last, step, .. } if last >= 0 => {
            Some((begin, begin + last.unsigned_abs() as usize, step))
        }
        FindKeys::Range { last, step, limit } => {
            let rest = args.len().checked_sub(begin)? / usize::from(limit.max(1));
            Some((begin, (begin + rest).checked_sub(last.unsigned_abs() as usize)?, step))
        }
        FindKeys::KeyNum { index, first, step } => {
            // Redis goes on with the lower 32 bits. The command itself refuses such a count.
            let count = parse_i64(args.get(begin + usize::from(index))?).filter(|count| *count >= 0)? as i32;
            let count = usize::try_from(count).ok()?;
            let first = begin + usize::from(first);
            let span = count.checked_sub(1)?.checked_mul(usize::from(step))?;
            Some((first, first.checked_add(span)?, step))
        }
        FindKeys::Unknown => None,
    }
}

/// Where `keyword` is, looked for from argument `from` on, or backwards when that counts from the end.
fn find_keyword(keyword: &str, from: i8, args: &[&[u8]]) -> Option<usize> {
    let is_it = |at: &usize| args.get(*at).is_some_and(|arg| arg.eq_ignore_ascii_case(keyword.as_bytes()));
    if from >= 0 {
        // The last argument cannot be it: a key must follow.
        (from.unsigned_abs() as usize..args.len().saturating_sub(1)).find(is_it)
    } else {
        (2..=args.len().checked_sub(from.unsigned_abs() as usize)?).rev().find(is_it)
    }
}

const SORT: CommandId = CommandId::of("sort");
const SORT_RO: CommandId = CommandId::of("sort_ro");
const MIGRATE: CommandId = CommandId::of("migrate");
const GEORADIUS: CommandId = CommandId::of("georadius");
const GEORADIUSBYMEMBER: CommandId = CommandId::of("georadiusbymember");
const SET: CommandId = CommandId::of("set");
const BITFIELD: CommandId = CommandId::of("bitfield");

const STORED: KeyFlags = KeyFlags::of(&[KeyFlags::OW, KeyFlags::UPDATE]);

fn special(
    spec: &CommandSpec,
    args: &[&[u8]],
    found: &mut dyn FnMut(usize, KeyFlags),
) -> Result<(), KeyError> {
    let first_flags = spec.key_specs.first().map_or(KeyFlags::NONE, |group| group.flags);
    match spec.id {
        SORT | SORT_RO if args.len() > 1 => {
            found(1, first_flags);
            if let Some(store) = sort_store(args).filter(|_| spec.id == SORT) {
                found(store, STORED);
            }
        }
        GEORADIUS if args.len() > 5 => radius_keys(6, first_flags, args, found),
        GEORADIUSBYMEMBER if args.len() > 4 => radius_keys(5, first_flags, args, found),
        MIGRATE => migrate_keys(args).ok_or(KeyError)?.for_each(|index| found(index, first_flags)),
        _ if spec.flags.contains(CommandFlags::NO_MANDATORY_KEYS)
            && args.get(2) == Some(&b"0".as_slice()) => {}
        _ => return counted_loosely(spec, args, found).ok_or(KeyError),
    }
    Ok(())
}

/// The keys behind a count that is no proper number: Redis then asks `atoi`, which takes the digits that it finds. The command
/// itself refuses such a count. Destinations come last, and what is done with the keys is not known.
fn counted_loosely(spec: &CommandSpec, args: &[&[u8]], found: &mut dyn FnMut(usize, KeyFlags)) -> Option<()> {
    let (begin, index, first, step) =
        spec.key_specs.iter().find_map(|group| match (group.begin, group.find) {
            (BeginSearch::Index(begin), FindKeys::KeyNum { index, first, step }) => {
                Some((usize::from(begin), usize::from(index), usize::from(first), usize::from(step).max(1)))
            }
            _ => None,
        })?;
    let count = usize::try_from(atoi(args.get(begin + index)?)).ok().filter(|count| *count > 0)?;
    let first = begin + first;
    if count > args.len().checked_sub(first)? / step {
        return None;
    }
    (0..count).for_each(|number| found(first + number * step, KeyFlags::NONE));
    for group in spec.key_specs {
        if let (BeginSearch::Index(at), FindKeys::Range { .. }) = (group.begin, group.find) {
            found(usize::from(at), KeyFlags::NONE);
        }
    }
    Some(())
}

/// As C has it: white space, a sign, and digits as far as they go, cut to 32 bits; beyond 64 bits the nearest that fits is cut.
fn atoi(text: &[u8]) -> i32 {
    let blank = |byte: &&u8| matches!(byte, b' ' | 9..=13);
    let text = text.get(text.iter().take_while(blank).count()..).unwrap_or_default();
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        [b'+', digits @ ..] => (1, digits),
        digits => (1, digits),
    };
    let value = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0_i64, |value, digit| value.saturating_mul(10).saturating_add(sign * i64::from(digit - b'0')));
    value as i32
}

/// The destination of SORT: behind the last STORE that is no option's argument.
fn sort_store(args: &[&[u8]]) -> Option<usize> {
    let mut store = None;
    let mut at = 2;
    while let Some(word) = args.get(at) {
        at += match word.to_ascii_lowercase().as_slice() {
            b"limit" => 3,
            b"get" | b"by" => 2,
            b"store" if at + 1 < args.len() => {
                store = Some(at + 1);
                1
            }
            _ => 1,
        };
    }
    store
}

/// The source of GEORADIUS and every destination: with several the last one counts, yet the specifications
/// find the first, and a key that is written must not be missed.
fn radius_keys(
    options: usize,
    source_flags: KeyFlags,
    args: &[&[u8]],
    found: &mut dyn FnMut(usize, KeyFlags),
) {
    found(1, source_flags);
    let mut at = options;
    while let Some(word) = args.get(at) {
        let is_store = word.eq_ignore_ascii_case(b"store") || word.eq_ignore_ascii_case(b"storedist");
        if is_store && at + 1 < args.len() {
            at += 1;
            found(at, STORED);
        }
        at += 1;
    }
}

/// The one key of MIGRATE, or all those behind KEYS when the place of the one is left empty.
fn migrate_keys(args: &[&[u8]]) -> Option<std::ops::Range<usize>> {
    let mut at = 6;
    while let Some(word) = args.get(at) {
        at += match word.to_ascii_lowercase().as_slice() {
            b"keys" if args.get(3)?.is_empty() && at + 1 < args.len() => return Some(at + 1..args.len()),
            b"keys" => return None,
            b"auth" => 2,
            b"auth2" => 3,
            _ => 1,
        };
    }
    (args.len() > 3).then_some(3..4)
}

/// What commands whose arguments decide about it really do with their key.
fn actual_flags(spec: &CommandSpec, args: &[&[u8]]) -> Option<KeyFlags> {
    let options = |from: usize| args.iter().skip(from);
    match spec.id {
        SET if options(3).any(|word| word.eq_ignore_ascii_case(b"get")) => {
            Some(KeyFlags::RW | KeyFlags::ACCESS | KeyFlags::UPDATE)
        }
        SET => Some(STORED),
        BITFIELD => {
            // Only reads as long as nothing but GET type offset and OVERFLOW how is seen.
            let mut at = 2;
            while let Some(word) = args.get(at) {
                at += match word.to_ascii_lowercase().as_slice() {
                    b"get" if at + 2 < args.len() => 3,
                    b"overflow" if at + 1 < args.len() => 2,
                    _ => return Some(KeyFlags::RW | KeyFlags::ACCESS | KeyFlags::UPDATE),
                };
            }
            Some(KeyFlags::RO | KeyFlags::ACCESS)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::lookup;

    fn positions(line: &str) -> Result<Vec<usize>, KeyError> {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut out = KeyIndices::new();
        lookup(args[0]).unwrap().keys(&args, &mut out)?;
        let mut with_flags = SmallVec::new();
        keys_with_flags(lookup(args[0]).unwrap(), &args, &mut with_flags).unwrap();
        assert!(with_flags.iter().map(|key: &KeyRef| key.index).eq(out.iter().copied()), "{line}");
        Ok(out.to_vec())
    }

    #[test]
    fn keys_are_where_redis_says() {
        let cases: &[(&str, &[usize])] = &[
            ("ping", &[]),
            ("get k", &[1]),
            ("mget a b c", &[1, 2, 3]),
            ("mset a 1 b 2", &[1, 3]),
            ("rename a b", &[1, 2]),
            ("blpop a b 0", &[1, 2]),
            ("bitop and d a b", &[2, 3, 4]),
            ("eval s 0 x", &[]),
            ("eval s 2 a b x", &[3, 4]),
            ("zunionstore d 2 a b weights 1 2", &[1, 3, 4]),
            ("sintercard 2 a b limit 1", &[2, 3]),
            ("lmpop 1 l left", &[2]),
            ("blmpop 0 2 a b left", &[3, 4]),
            ("xread count 1 streams a b 0 0", &[4, 5]),
            ("xreadgroup group streams c streams a >", &[5]),
            ("sort k", &[1]),
            ("sort k by store get store store d", &[1, 7]),
            ("sort k store d store e", &[1, 5]),
            ("sort_ro k by x", &[1]),
            ("georadius k 1 2 3 m", &[1]),
            ("georadius k 1 2 3 m store d", &[1, 7]),
            ("georadius k 1 2 3 m store d store e", &[1, 7, 9]),
            ("georadiusbymember k m 3 m storedist d", &[1, 6]),
            ("migrate h 1 k 0 9", &[3]),
            ("migrate h 1  0 9 copy auth keys keys a b", &[10, 11]),
            ("spublish c m", &[]),
            ("object encoding k", &[]),
        ];
        for (line, expected) in cases {
            assert_eq!(positions(line).as_deref(), Ok(*expected), "{line}");
        }
    }

    #[test]
    fn malformed_key_counts_give_no_keys() {
        for line in [
            "eval s x",
            "eval s -1 a",
            "eval s 3 a b",
            "eval s 9223372036854775807 a",
            "zunionstore d 0 a",
            "lmpop 00 l left",
            "migrate h 1 k 0 9 keys a",
        ] {
            assert_eq!(positions(line), Err(KeyError), "{line}");
        }
    }

    #[test]
    fn improper_key_counts_are_taken_as_c_takes_them() {
        let keys = |count: &[u8]| {
            let mut out = SmallVec::<[usize; 8]>::new();
            keys(lookup(b"zunion").unwrap(), &[b"zunion", count, b"a", b"b"], &mut out).map(|()| out.to_vec())
        };
        for (count, expected) in [
            ("1e", Ok(vec![2])),
            ("1 ", Ok(vec![2])),
            (" +2x", Ok(vec![2, 3])),
            ("01", Ok(vec![2])),
            ("4294967298", Ok(vec![2, 3])),
            ("3x", Err(KeyError)),
            ("-1x", Err(KeyError)),
            ("x1", Err(KeyError)),
            ("99999999999999999999", Err(KeyError)),
        ] {
            assert_eq!(keys(count.as_bytes()), expected, "{count}");
        }
    }

    #[test]
    fn flags_follow_the_options() {
        let flags = |line: &str| {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let mut out = SmallVec::new();
            keys_with_flags(lookup(args[0]).unwrap(), &args, &mut out).unwrap();
            out.iter().flat_map(|key: &KeyRef| key.flags.names()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(flags("set k v"), "OW update");
        assert_eq!(flags("set k v get"), "RW access update");
        assert_eq!(flags("bitfield k get u8 0 get u8 8"), "RO access");
        assert_eq!(flags("bitfield k get u8 0 incrby u8 0 1"), "RW access update");
        assert_eq!(flags("get k"), "RO access");
    }
}
