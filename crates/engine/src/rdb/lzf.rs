//! LZF, the compression of strings in RDB files: runs of literal bytes, and copies of what came before.
//!
//! A control byte below 32 says how many literal bytes follow, less one. Any other begins a copy: three bits of length
//! (7 means that another byte adds to it), then thirteen bits of distance less one; lengths count from two. Reading
//! checks every length and never makes more than was announced; writing gives up where nothing is gained.

use std::cell::RefCell;

use super::{Damage, Fault};

/// The farthest that a copy reaches back.
const MAX_DISTANCE: usize = 1 << 13;
/// The longest copy.
const MAX_COPY: usize = 2 + 7 + 255;
/// The longest run of literal bytes.
const MAX_LITERALS: usize = 32;
/// The most that one byte of compressed text can stand for: three bytes make a copy of [`MAX_COPY`].
pub(super) const MAX_GROWTH: u64 = (MAX_COPY / 3) as u64;

const TABLE_BITS: u32 = 13;

const BROKEN: Fault = Fault::Damaged(Damage::Compression);

/// Expands `packed`, which must give exactly `len` bytes, into `out`, which is emptied before.
pub(super) fn expand(packed: &[u8], len: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    out.clear();
    if len as u64 > (packed.len() as u64).saturating_mul(MAX_GROWTH) {
        return Err(BROKEN);
    }
    out.reserve(len);
    let mut rest = packed;
    while let Some((&control, tail)) = rest.split_first() {
        rest = tail;
        if usize::from(control) < MAX_LITERALS {
            let (literals, tail) = rest.split_at_checked(usize::from(control) + 1).ok_or(BROKEN)?;
            out.extend_from_slice(literals);
            rest = tail;
        } else {
            let mut count = usize::from(control >> 5) + 2;
            if control >> 5 == 7 {
                let (&more, tail) = rest.split_first().ok_or(BROKEN)?;
                count += usize::from(more);
                rest = tail;
            }
            let (&low, tail) = rest.split_first().ok_or(BROKEN)?;
            rest = tail;
            let distance = (usize::from(control & 0x1f) << 8 | usize::from(low)) + 1;
            let start = out.len().checked_sub(distance).ok_or(BROKEN)?;
            if out.len() + count > len {
                return Err(BROKEN);
            }
            copy_within(out, start, count);
        }
        if out.len() > len {
            return Err(BROKEN);
        }
    }
    if out.len() == len { Ok(()) } else { Err(BROKEN) }
}

/// Appends `count` bytes from `start` on; what is being appended may be part of them.
fn copy_within(out: &mut Vec<u8>, start: usize, count: usize) {
    let mut left = count;
    while left > 0 {
        // What is there can be copied at once; where the copy overlaps itself, each round doubles it.
        let chunk = left.min(out.len() - start);
        out.extend_from_within(start..start + chunk);
        left -= chunk;
    }
}

/// Where each hash of three bytes was seen last. Positions count from `base`, so that a new text need not wipe the table.
struct Seen {
    places: Box<[u32]>,
    base: u32,
}

impl Seen {
    fn new() -> Self {
        Self { places: vec![0; 1 << TABLE_BITS].into_boxed_slice(), base: 1 }
    }

    fn begin(&mut self, len: usize) {
        if u32::try_from(len).ok().and_then(|len| self.base.checked_add(len)).is_none() {
            self.places.fill(0);
            self.base = 1;
        }
    }

    /// Puts `at` in the place of the three bytes and says what was there, if it was of this text.
    #[inline]
    fn replace(&mut self, three: [u8; 3], at: usize) -> Option<usize> {
        let [a, b, c] = three;
        let hash = u32::from_le_bytes([a, b, c, 0]).wrapping_mul(0x9e37_79b1) >> (32 - TABLE_BITS);
        let place = self.places.get_mut(hash as usize)?;
        let before = std::mem::replace(place, self.base + at as u32);
        before.checked_sub(self.base).map(|at| at as usize)
    }
}

thread_local! {
    static SEEN: RefCell<Seen> = RefCell::new(Seen::new());
}

/// Appends the compressed form of `text` if it is at most `max` bytes; whether it was. Otherwise `out` is as before.
pub(super) fn compress(text: &[u8], max: usize, out: &mut Vec<u8>) -> bool {
    // Positions are kept in 32 bits.
    if text.len() >= u32::MAX as usize {
        return false;
    }
    let mark = out.len();
    let done = SEEN.with_borrow_mut(|seen| {
        seen.begin(text.len());
        let done = compress_with(seen, text, mark + max, out);
        seen.base = seen.base.saturating_add(text.len() as u32);
        done
    });
    if !done {
        out.truncate(mark);
    }
    done
}

fn compress_with(seen: &mut Seen, text: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
    let three_at = |at: usize| text.get(at..).and_then(|rest| rest.first_chunk::<3>()).copied();
    let (mut at, mut literals_from) = (0, 0);
    while let Some(three) = three_at(at) {
        let before = seen.replace(three, at);
        let copied = before
            .filter(|&before| at > before && at - before <= MAX_DISTANCE && three_at(before) == Some(three));
        let Some(before) = copied else {
            at += 1;
            continue;
        };
        let count = 3 + common(text, before + 3, at + 3);
        push_literals(text.get(literals_from..at).unwrap_or_default(), out);
        push_copy(count, at - before, out);
        if out.len() > limit {
            return false;
        }
        // The end of the copy is learnt, which is where the next one is likely to begin.
        let end = at + count;
        for learnt in end.saturating_sub(2)..end {
            if let Some(three) = three_at(learnt) {
                seen.replace(three, learnt);
            }
        }
        at = end;
        literals_from = end;
    }
    push_literals(text.get(literals_from..).unwrap_or_default(), out);
    out.len() <= limit
}

/// How far the text at `a` and the one at `b` agree, up to what one copy can say beyond its first three bytes.
fn common(text: &[u8], a: usize, b: usize) -> usize {
    let (from, to) = (text.get(a..).unwrap_or_default(), text.get(b..).unwrap_or_default());
    from.iter().zip(to).take(MAX_COPY - 3).take_while(|(x, y)| x == y).count()
}

fn push_literals(literals: &[u8], out: &mut Vec<u8>) {
    for run in literals.chunks(MAX_LITERALS) {
        out.push((run.len() - 1) as u8);
        out.extend_from_slice(run);
    }
}

fn push_copy(count: usize, distance: usize, out: &mut Vec<u8>) {
    let (count, distance) = (count - 2, distance - 1);
    let high = (distance >> 8) as u8;
    if count < 7 {
        out.push((count as u8) << 5 | high);
    } else {
        out.extend_from_slice(&[7 << 5 | high, (count - 7) as u8]);
    }
    out.push(distance as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expanded(packed: &[u8], len: usize) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        expand(packed, len, &mut out).ok().map(|()| out)
    }

    #[test]
    fn a_copy_may_overlap_what_it_makes() {
        assert_eq!(expanded(b"\x00a\xe0\x14\x00", 30).unwrap(), [b'a'; 30]);
    }

    #[test]
    fn what_reaches_before_the_beginning_or_beyond_the_end_is_refused() {
        for (packed, len) in [
            (&b"\x00a\x20\x01"[..], 4),
            (b"\x05abc", 6),
            (b"\x00a\xe0\x14", 30),
            (b"\x00a\xe0\x14\x00", 29),
            (b"\x00a\xe0\x14\x00", 31),
            (b"\x00a", 1 << 40),
            (b"", 1),
        ] {
            assert_eq!(expanded(packed, len), None, "{packed:?} {len}");
        }
    }

    #[test]
    fn text_that_repeats_itself_becomes_much_shorter() {
        let text = b"the quick brown fox ".repeat(100);
        let mut packed = Vec::new();
        assert!(compress(&text, text.len(), &mut packed));
        assert!(packed.len() < 80, "{}", packed.len());
        assert_eq!(expanded(&packed, text.len()).unwrap(), text);
    }

    proptest! {
        #[test]
        fn what_was_compressed_expands_to_itself(
            parts in proptest::collection::vec((proptest::collection::vec(0..4_u8, 0..40), 1..400_usize), 0..12),
        ) {
            let text: Vec<u8> = parts.iter().flat_map(|(part, times)| part.repeat(*times)).collect();
            let mut packed = b"before".to_vec();
            prop_assert!(compress(&text, text.len() + text.len() / 32 + 1, &mut packed));
            prop_assert_eq!(&packed[..6], b"before");
            prop_assert_eq!(expanded(&packed[6..], text.len()).unwrap(), text);
        }

        #[test]
        fn any_bytes_are_expanded_without_a_panic(
            packed in proptest::collection::vec(any::<u8>(), 0..100),
            len in 0..3000_usize,
        ) {
            if let Some(out) = expanded(&packed, len) {
                prop_assert_eq!(out.len(), len);
            }
        }
    }
}
