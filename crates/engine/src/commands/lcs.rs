//! LCS: the longest common subsequence of two strings, as text, as length, or as matching ranges.
//!
//! Textbook dynamic programming over a table of (m+1) x (n+1) lengths, walked back from its last corner; on ties the walk
//! goes back in the second string, as Redis does, so that the same one of several longest subsequences comes out. The table
//! is bounded by the longest string allowed.

use mtcache_protocol::Reply;

use super::parse;
use crate::context::Ctx;
use crate::error::{CommandError, CommandResult};

pub(super) fn lcs(ctx: &mut Ctx<'_, '_>, args: &[&[u8]], out: &mut Reply) -> CommandResult {
    let not_strings = || CommandError::new("ERR The specified keys must contain string values");
    let first = ctx.read_string(args[1]).map_err(|_| not_strings())?.unwrap_or_default().to_vec();
    let limit = ctx.engine.settings.max_bulk_len();
    let second = ctx.read_string(args[2]).map_err(|_| not_strings())?.unwrap_or_default();
    let options = Options::parse(&args[3..])?;
    let table = Table::new(&first, second, limit)?;
    match options.wanted {
        Wanted::Length => out.integer(i64::from(table.length())),
        Wanted::Text => out.bulk(&table.text()),
        Wanted::Ranges => write_ranges(&table, &options, out),
    }
    Ok(())
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Text,
    Length,
    Ranges,
}

struct Options {
    wanted: Wanted,
    min_match_len: i64,
    with_match_len: bool,
}

impl Options {
    fn parse(args: &[&[u8]]) -> Result<Self, CommandError> {
        let (mut ranges, mut length) = (false, false);
        let mut options = Self { wanted: Wanted::Text, min_match_len: 0, with_match_len: false };
        let mut args = args.iter();
        while let Some(option) = args.next() {
            if parse::is(option, "idx") {
                ranges = true;
            } else if parse::is(option, "len") {
                length = true;
            } else if parse::is(option, "withmatchlen") {
                options.with_match_len = true;
            } else if parse::is(option, "minmatchlen")
                && let Some(value) = args.next()
            {
                options.min_match_len = parse::integer(value)?;
            } else {
                return Err(CommandError::SYNTAX);
            }
        }
        options.wanted = match (ranges, length) {
            (true, true) => {
                return Err(CommandError::new(
                    "ERR If you want both the length and indexes, please just use IDX.",
                ));
            }
            (true, false) => Wanted::Ranges,
            (false, true) => Wanted::Length,
            (false, false) => Wanted::Text,
        };
        Ok(options)
    }
}

/// For each pair of prefixes, the length of their longest common subsequence.
struct Table<'s> {
    first: &'s [u8],
    second: &'s [u8],
    lengths: Vec<u32>,
}

impl<'s> Table<'s> {
    fn new(first: &'s [u8], second: &'s [u8], limit: u64) -> Result<Self, CommandError> {
        let cells = (first.len() as u64 + 1).saturating_mul(second.len() as u64 + 1);
        if cells.saturating_mul(size_of::<u32>() as u64) > limit {
            return Err(CommandError::new(
                "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
            ));
        }
        let mut lengths = Vec::new();
        if lengths.try_reserve_exact(cells as usize).is_err() {
            return Err(CommandError::new(
                "ERR Insufficient memory, failed allocating transient memory for LCS",
            ));
        }
        let width = second.len() + 1;
        lengths.resize(width, 0);
        for byte in first {
            let above = lengths.len() - width;
            let mut left = 0;
            lengths.push(left);
            for (column, other) in second.iter().enumerate() {
                left = if byte == other {
                    lengths[above + column] + 1
                } else {
                    left.max(lengths[above + column + 1])
                };
                lengths.push(left);
            }
        }
        Ok(Self { first, second, lengths })
    }

    fn length(&self) -> u32 {
        self.lengths.last().copied().unwrap_or_default()
    }

    fn at(&self, row: usize, column: usize) -> u32 {
        self.lengths[row * (self.second.len() + 1) + column]
    }

    /// The matching pairs of positions, from the last to the first.
    fn matches(&self) -> impl Iterator<Item = (usize, usize)> {
        let (mut row, mut column) = (self.first.len(), self.second.len());
        std::iter::from_fn(move || {
            while row > 0 && column > 0 {
                if self.first[row - 1] == self.second[column - 1] {
                    row -= 1;
                    column -= 1;
                    return Some((row, column));
                }
                if self.at(row - 1, column) > self.at(row, column - 1) {
                    row -= 1;
                } else {
                    column -= 1;
                }
            }
            None
        })
    }

    fn text(&self) -> Vec<u8> {
        let mut text: Vec<u8> = self.matches().map(|(row, _)| self.first[row]).collect();
        text.reverse();
        text
    }
}

/// A run of matches without a gap on either side.
struct Run {
    first: usize,
    second: usize,
    len: usize,
}

fn write_ranges(table: &Table<'_>, options: &Options, out: &mut Reply) {
    out.map(2);
    out.bulk(b"matches");
    let mark = out.begin_deferred();
    let mut written = 0;
    let mut write = |run: Run| {
        if run.len as i64 >= options.min_match_len {
            write_run(&run, options, out);
            written += 1;
        }
    };
    let mut open: Option<Run> = None;
    for (first, second) in table.matches() {
        open = Some(match open {
            Some(run) if run.first == first + 1 && run.second == second + 1 => {
                Run { first, second, len: run.len + 1 }
            }
            ended => {
                ended.into_iter().for_each(&mut write);
                Run { first, second, len: 1 }
            }
        });
    }
    open.into_iter().for_each(&mut write);
    out.end_array(mark, written);
    out.bulk(b"len");
    out.integer(i64::from(table.length()));
}

fn write_run(run: &Run, options: &Options, out: &mut Reply) {
    out.array(2 + usize::from(options.with_match_len));
    for start in [run.first, run.second] {
        out.array(2);
        out.integer(start as i64);
        out.integer((start + run.len - 1) as i64);
    }
    if options.with_match_len {
        out.integer(run.len as i64);
    }
}
