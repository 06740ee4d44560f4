//! Named bounds on what the other side may send, requests and replies.
//!
//! A length header never reserves memory by itself: these bounds say what is refused, the bytes that really
//! arrive say what is used.

/// What a peer may send. The defaults are Redis 7.0's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest argument in bytes (`proto-max-bulk-len`). Default: 512 MiB.
    pub max_bulk_len: usize,
    /// Most arguments of a command. Default: 2^31 - 1, so the bound that counts is that of the read buffer.
    pub max_args: usize,
    /// Longest inline command, and longest line that holds a count, in bytes. Default: 64 KiB.
    pub max_inline: usize,
    /// Longest argument before the client has authenticated, in bytes. Default: 16384.
    pub max_unauthenticated_bulk_len: usize,
    /// Most arguments before the client has authenticated. Default: 10.
    pub max_unauthenticated_args: usize,
}

/// Default of [`Limits::max_bulk_len`].
pub const MAX_BULK_LEN: usize = 512 * 1024 * 1024;
/// Default of [`Limits::max_args`].
pub const MAX_ARGS: usize = i32::MAX as usize;
/// Default of [`Limits::max_inline`].
pub const MAX_INLINE: usize = 64 * 1024;
/// Default of [`Limits::max_unauthenticated_bulk_len`].
pub const MAX_UNAUTHENTICATED_BULK_LEN: usize = 16_384;
/// Default of [`Limits::max_unauthenticated_args`].
pub const MAX_UNAUTHENTICATED_ARGS: usize = 10;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bulk_len: MAX_BULK_LEN,
            max_args: MAX_ARGS,
            max_inline: MAX_INLINE,
            max_unauthenticated_bulk_len: MAX_UNAUTHENTICATED_BULK_LEN,
            max_unauthenticated_args: MAX_UNAUTHENTICATED_ARGS,
        }
    }
}

/// What a server may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyLimits {
    /// Deepest nesting of aggregates. Default: 128.
    pub max_depth: usize,
    /// Longest string, and longest status or error line, in bytes. Default: 512 MiB.
    pub max_bulk_len: usize,
    /// Most elements of one aggregate (of a map: pairs). Default: 2^31 - 1.
    pub max_elements: usize,
}

/// Bytes of replies that are made at once where `client-output-buffer-limit` names no hard limit. Default: 1 GiB, as much as
/// a client may send at once. A command whose reply would be larger fails, and its connection ends.
pub const MAX_REPLY_BYTES: usize = 1 << 30;

/// Default of [`ReplyLimits::max_depth`].
pub const MAX_REPLY_DEPTH: usize = 128;

impl Default for ReplyLimits {
    fn default() -> Self {
        Self { max_depth: MAX_REPLY_DEPTH, max_bulk_len: MAX_BULK_LEN, max_elements: MAX_ARGS }
    }
}
