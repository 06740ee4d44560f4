//! What HSCAN, SSCAN and ZSCAN share: their options, and the shape of the reply.

use mtcache_protocol::{Reply, glob};

use super::parse;
use crate::error::CommandError;

/// Elements that one step looks at unless `COUNT` says otherwise.
const DEFAULT_COUNT: usize = 10;

/// `MATCH` and `COUNT`.
pub(super) struct ScanOptions<'a> {
    pattern: Option<&'a [u8]>,
    pub(super) count: usize,
}

impl<'a> ScanOptions<'a> {
    /// Reads the options of `HSCAN key cursor [MATCH pattern] [COUNT count]`.
    pub(super) fn parse(mut args: &[&'a [u8]]) -> Result<Self, CommandError> {
        let mut options = Self { pattern: None, count: DEFAULT_COUNT };
        while let Some((option, rest)) = args.split_first() {
            let Some((value, rest)) = rest.split_first() else { return Err(CommandError::SYNTAX) };
            if parse::is(option, "count") {
                let count = parse::integer(value)?;
                if count < 1 {
                    return Err(CommandError::SYNTAX);
                }
                options.count = usize::try_from(count).unwrap_or(usize::MAX);
            } else if parse::is(option, "match") {
                options.pattern = (*value != b"*").then_some(value);
            } else {
                return Err(CommandError::SYNTAX);
            }
            args = rest;
        }
        Ok(options)
    }

    pub(super) fn admits(&self, element: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, element, false))
    }
}

/// The reply for a key that is not there: the walk is over, and there was nothing.
pub(super) fn nothing(out: &mut Reply) {
    out.array(2);
    out.bulk(b"0");
    out.array(0);
}
