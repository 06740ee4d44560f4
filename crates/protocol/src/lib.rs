//! RESP2 and RESP3 bytes to frames and back, and the table of commands: the lowest floor.
//!
//! Nothing here knows sockets, runtimes or how a command runs. Bytes come in as slices and leave in a
//! `Vec<u8>`; whatever arrives, nothing panics, nothing recurses without a bound and no length header
//! makes it allocate before the bytes it announces are there.
#![cfg_attr(
    not(test),
    warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod command;
mod decode;
mod double;
mod encode;
mod error;
mod frame;
mod frame_decoder;
pub mod glob;
mod inline;
mod limits;
mod number;
mod slot;

pub use command::{
    AclCategories, BeginSearch, COMMAND_COUNT, COMMANDS, CommandFlags, CommandId, CommandSpec, Deprecation,
    FindKeys, Group, KeyError, KeyFlags, KeyIndices, KeyRef, KeyShape, KeySpec, LegacyRange, RecentCommand,
    TOP_LEVEL_COUNT, keys, keys_with_flags, lookup, lookup_sub, top_level,
};
pub use decode::{Args, Peeked, Progress, RequestDecoder, peek};
pub use double::write_double;
pub use encode::{Deferred, Reply, Version, encode_command, write_array_header, write_bulk, write_integer};
pub use error::{ProtocolError, ProtocolErrorKind};
pub use frame::Frame;
pub use frame_decoder::{FrameDecoder, FrameProgress, decode_frame};
pub use inline::split_args;
pub use limits::{
    Limits, MAX_ARGS, MAX_BULK_LEN, MAX_INLINE, MAX_REPLY_BYTES, MAX_REPLY_DEPTH, MAX_UNAUTHENTICATED_ARGS,
    MAX_UNAUTHENTICATED_BULK_LEN, ReplyLimits,
};
pub use number::parse_i64;
pub use slot::{CLUSTER_SLOTS, hash_tag, key_slot};
