//! The thresholds at which a value leaves its compact encoding, under redis.conf's own names.
//!
//! The defaults are Redis 7.0's. A value converts when a write would cross a threshold and never converts back.

/// A compact encoding never holds more than this many bytes, whatever the other thresholds say.
///
/// Redis draws the same line, for the same reason: one reallocation must stay affordable.
pub(super) const PACKED_MAX_BYTES: usize = 1 << 30;

/// Thresholds between the compact and the general encodings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodingLimits {
    /// Most fields of a hash kept as `listpack`. Default: 512.
    pub hash_max_listpack_entries: usize,
    /// Longest field or value, in bytes, of a hash kept as `listpack`. Default: 64.
    pub hash_max_listpack_value: usize,
    /// Most members of a set kept as `intset`. Default: 512.
    pub set_max_intset_entries: usize,
    /// Most members of a sorted set kept as `listpack`. Default: 128.
    pub zset_max_listpack_entries: usize,
    /// Longest member, in bytes, of a sorted set kept as `listpack`. Default: 64.
    pub zset_max_listpack_value: usize,
    /// Size of a list's chunks: -1 to -5 mean 4, 8, 16, 32 or 64 KiB, a positive number a count of elements.
    /// Default: -2.
    pub list_max_listpack_size: i32,
}

impl EncodingLimits {
    /// Redis 7.0's defaults.
    pub const DEFAULT: Self = Self {
        hash_max_listpack_entries: 512,
        hash_max_listpack_value: 64,
        set_max_intset_entries: 512,
        zset_max_listpack_entries: 128,
        zset_max_listpack_value: 64,
        list_max_listpack_size: -2,
    };
}

impl Default for EncodingLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
