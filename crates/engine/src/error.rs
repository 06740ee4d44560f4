//! Error replies, in Redis' exact words, all in one place.
//!
//! A [`CommandError`] is what a command gives back instead of writing its reply; the first word is the code by which
//! clients tell errors apart.

use std::borrow::Cow;
use std::fmt;

/// What a command answers when it refuses: the text of a RESP error without the leading dash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError(Cow<'static, str>);

/// What a command gives back when it has written its reply, or why it has not.
pub type CommandResult = Result<(), CommandError>;

macro_rules! texts {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        impl CommandError {
            $($(#[$doc])* pub const $name: Self = Self(Cow::Borrowed($text));)*
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
    /// A count or similar below zero.
    OUT_OF_RANGE_POSITIVE = "ERR value is out of range, must be positive";
    /// An increment that would leave the range of 64-bit integers.
    OVERFLOW = "ERR increment or decrement would overflow";
    /// An increment that would give NaN or an infinity.
    NAN_OR_INFINITY = "ERR increment would produce NaN or Infinity";
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
    /// A cursor that is no number.
    INVALID_CURSOR = "ERR invalid cursor";
    /// A database number that is not configured.
    DB_OUT_OF_RANGE = "ERR DB index is out of range";
    /// A write while the data cannot be made durable.
    MISCONF_AOF = "MISCONF Errors writing to the AOF file. Writes are refused until the disk can be written again; see the log.";
}

impl CommandError {
    /// An error with a text made at run time. The text starts with its code.
    pub fn new(text: impl Into<Cow<'static, str>>) -> Self {
        Self(text.into())
    }

    /// The text of a wrong number of arguments; `command` as `COMMAND` lists it, a subcommand as `config|get`.
    pub fn arity(command: &str) -> Self {
        Self::new(format!("ERR wrong number of arguments for '{command}' command"))
    }

    /// The text of an expiry that is not positive or too far away.
    pub fn invalid_expire(command: &str) -> Self {
        Self::new(format!("ERR invalid expire time in '{command}' command"))
    }

    /// The text of an unknown command, with the start of its arguments as Redis shows it.
    pub fn unknown_command(args: &[&[u8]]) -> Self {
        const SHOWN: usize = 128;
        let (name, rest) = args.split_first().map_or((&[][..], args), |(name, rest)| (*name, rest));
        let mut shown = String::new();
        for arg in rest {
            if shown.len() >= SHOWN {
                break;
            }
            shown.push('\'');
            shown.push_str(&clip(arg, SHOWN - shown.len()));
            shown.push_str("' ");
        }
        Self::new(format!("ERR unknown command '{}', with args beginning with: {shown}", clip(name, SHOWN)))
    }

    /// The text of an unknown subcommand.
    pub fn unknown_subcommand(container: &str, subcommand: &[u8]) -> Self {
        Self::new(format!(
            "ERR unknown subcommand '{}'. Try {} HELP.",
            clip(subcommand, 128),
            container.to_ascii_uppercase()
        ))
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CommandError {}

fn clip(bytes: &[u8], limit: usize) -> String {
    String::from_utf8_lossy(bytes.get(..limit).unwrap_or(bytes)).into_owned()
}
