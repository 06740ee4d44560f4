//! Error replies, in Redis' exact words, all in one place.
//!
//! A [`CommandError`] is what a command gives back instead of writing its reply; the first word is the code by which
//! clients tell errors apart.

use std::borrow::Cow;
use std::fmt;

/// What a command answers when it refuses: the text of a RESP error without the leading dash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError(Cow<'static, [u8]>);

/// How many bytes of a name, and of all arguments together, an error shows.
const SHOWN: usize = 128;

/// What a command gives back when it has written its reply, or why it has not.
pub type CommandResult = Result<(), CommandError>;

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        impl CommandError {
            $($(#[$doc])* pub const $name: Self = Self(Cow::Borrowed($text.as_bytes()));)*
        }
    };
}

texts! {
    /// The key holds a value of another type.
    WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value";
    /// An argument or a stored value is no 64-bit integer.
    NOT_INTEGER = "ERR value is not an integer or out of range";
    /// An argument or a stored value is no finite number.
    NOT_FLOAT = "ERR value is not a valid float";
    /// A bound of a range of scores that is no number.
    MIN_OR_MAX_NOT_FLOAT = "ERR min or max is not a float";
    /// Options that do not fit together or are unknown.
    SYNTAX = "ERR syntax error";
    /// The key is not there, and the command needs it.
    NO_SUCH_KEY = "ERR no such key";
    /// A list index that is not there.
    INDEX_OUT_OF_RANGE = "ERR index out of range";
    /// A number whose use would leave the range of 64-bit integers.
    OUT_OF_RANGE = "ERR value is out of range";
    /// A count or similar below zero.
    OUT_OF_RANGE_POSITIVE = "ERR value is out of range, must be positive";
    /// An increment that would leave the range of 64-bit integers.
    OVERFLOW = "ERR increment or decrement would overflow";
    /// An increment that would give NaN or an infinity.
    NAN_OR_INFINITY = "ERR increment would produce NaN or Infinity";
    /// Replies that `client-output-buffer-limit` does not allow, or that nobody can want.
    REPLY_TOO_LARGE = "ERR the reply is larger than client-output-buffer-limit allows";
    /// A string that would be longer than 512 MB.
    STRING_TOO_LONG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
    /// An offset below zero.
    OFFSET_OUT_OF_RANGE = "ERR offset is out of range";
    /// No memory left under `maxmemory`, and nothing to evict.
    OOM = "OOM command not allowed when used memory > 'maxmemory'.";
    /// A client that has not authenticated.
    NO_AUTH = "NOAUTH Authentication required.";
    /// `EXEC` after a command that could not be queued.
    EXEC_ABORT = "EXECABORT Transaction discarded because of previous errors.";
    /// `EXEC` without `MULTI`.
    EXEC_WITHOUT_MULTI = "ERR EXEC without MULTI";
    /// `DISCARD` without `MULTI`.
    DISCARD_WITHOUT_MULTI = "ERR DISCARD without MULTI";
    /// `MULTI` inside `MULTI`.
    NESTED_MULTI = "ERR MULTI calls can not be nested";
    /// `WATCH` inside `MULTI`.
    WATCH_INSIDE_MULTI = "ERR WATCH inside MULTI is not allowed";
    /// `EVALSHA` of a script that is not cached.
    NO_SCRIPT = "NOSCRIPT No matching script. Please use EVAL.";
    /// A command while a script takes too long.
    BUSY = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
    /// `SCRIPT KILL` without a script.
    NOT_BUSY = "NOTBUSY No scripts in execution right now.";
    /// `SCRIPT KILL` of one that has written.
    UNKILLABLE = "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.";
    /// A cursor that is no number.
    INVALID_CURSOR = "ERR invalid cursor";
    /// A database number that is not configured.
    DB_OUT_OF_RANGE = "ERR DB index is out of range";
    /// A command between two places that are the same.
    SAME_OBJECT = "ERR source and destination objects are the same";
    /// A use counter asked for under a policy that keeps none.
    NOT_LFU = "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.";
    /// An idle time asked for under a policy that keeps none.
    IS_LFU = "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.";
    /// The end of a wait that another client has asked for.
    UNBLOCKED = "UNBLOCKED client unblocked via CLIENT UNBLOCK";
    /// `RESTORE` of a key that is there.
    BUSY_KEY = "BUSYKEY Target key name already exists.";
    /// A payload of another format, or a damaged one.
    BAD_PAYLOAD = "ERR DUMP payload version or checksum are wrong";
    /// A payload that is no value.
    BAD_DATA = "ERR Bad data format";
    /// An expiry below zero.
    INVALID_TTL = "ERR Invalid TTL value, must be >= 0";
    /// An idle time below zero.
    INVALID_IDLE_TIME = "ERR Invalid IDLETIME value, must be >= 0";
    /// A use counter out of its range.
    INVALID_FREQ = "ERR Invalid FREQ value, must be >= 0 and <= 255";
    /// A write while snapshots cannot be written.
    MISCONF_RDB = "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. Commands that may modify the data set are disabled, because this instance is configured to report errors during writes if RDB snapshotting fails (stop-writes-on-bgsave-error option). Please check the Redis logs for details about the RDB error.";
    /// A write while the data cannot be made durable.
    MISCONF_AOF = "MISCONF Errors writing to the AOF file. Writes are refused until the disk can be written again; see the log.";
}

impl CommandError {
    /// An error with a text made at run time. The text starts with its code.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self(match text.into() {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        })
    }

    /// An error with a text that quotes what was sent, or what a script said.
    pub(crate) fn from_bytes(text: Vec<u8>) -> Self {
        Self(Cow::Owned(text))
    }

    /// The text of a wrong number of arguments; `command` as `COMMAND` lists it, a subcommand as `config|get`.
    pub fn arity(command: &str) -> Self {
        Self::new(format!("ERR wrong number of arguments for '{command}' command"))
    }

    /// The text of an expiry that is not positive or too far away.
    pub fn invalid_expire(command: &str) -> Self {
        Self::new(format!("ERR invalid expire time in '{command}' command"))
    }

    /// The text of an option that the command does not have.
    pub fn unsupported_option(option: &[u8]) -> Self {
        Self(Cow::Owned([b"ERR Unsupported option ", clip(option, option.len())].concat()))
    }

    /// What `EXEC` answers when it may not run because of `reason`.
    pub(crate) fn exec_abort(reason: &Self) -> Self {
        let reason = reason.0.strip_prefix(b"ERR ").unwrap_or(&reason.0);
        Self(Cow::Owned([b"EXECABORT Transaction discarded because of: ", reason].concat()))
    }

    /// The text of an unknown command, with the start of its arguments as Redis shows it.
    pub fn unknown_command(args: &[&[u8]]) -> Self {
        let (name, rest) = args.split_first().map_or((&[][..], args), |(name, rest)| (*name, rest));
        let mut shown = Vec::new();
        for arg in rest {
            if shown.len() >= SHOWN {
                break;
            }
            let room = SHOWN - shown.len();
            shown.push(b'\'');
            shown.extend_from_slice(clip(arg, room));
            shown.extend_from_slice(b"' ");
        }
        Self(Cow::Owned(
            [b"ERR unknown command '", clip(name, SHOWN), b"', with args beginning with: ", &shown].concat(),
        ))
    }

    /// The text of an unknown subcommand.
    pub fn unknown_subcommand(container: &str, subcommand: &[u8]) -> Self {
        let container = container.to_ascii_uppercase();
        Self(Cow::Owned(
            [
                b"ERR unknown subcommand '",
                clip(subcommand, SHOWN),
                b"'. Try ",
                container.as_bytes(),
                b" HELP.",
            ]
            .concat(),
        ))
    }

    /// The text of a subcommand that is known but was given something else than it takes.
    pub fn wrong_arguments(args: &[&[u8]]) -> Self {
        let word = |index: usize| args.get(index).copied().unwrap_or_default();
        let container = word(0).to_ascii_uppercase();
        Self(Cow::Owned(
            [
                b"ERR unknown subcommand or wrong number of arguments for '",
                clip(word(1), SHOWN),
                b"'. Try ",
                &container,
                b" HELP.",
            ]
            .concat(),
        ))
    }

    /// The whole text: bytes, because it may quote what was sent.
    pub fn text(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl std::error::Error for CommandError {}

/// The start of what was sent, up to a NUL, where C's texts end.
fn clip(bytes: &[u8], limit: usize) -> &[u8] {
    let end = bytes.iter().take(limit).position(|byte| *byte == 0).unwrap_or(limit.min(bytes.len()));
    bytes.get(..end).unwrap_or(bytes)
}
