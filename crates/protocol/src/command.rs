//! The command table: one row per command of Redis 7.0, run here or not.
//!
//! Parser checks, ACL, COMMAND, key routing and the documentation all read these rows. Facts (arity, flags,
//! key positions, categories) are Redis' and a test compares them with a running redis-server; summaries are
//! ours. Ids are dense: top-level commands first, then the subcommands, container by container.

mod describe;
mod flags;
mod index;
mod key_spec;
mod keys;
mod row;
mod table;

pub use flags::{AclCategories, CommandFlags, KeyFlags};
pub use index::{RecentCommand, lookup, lookup_sub};
pub use key_spec::{BeginSearch, FindKeys, KeyShape, KeySpec, LegacyRange};
pub use keys::{KeyError, KeyIndices, KeyRef, keys, keys_with_flags};
pub use table::{COMMAND_COUNT, COMMANDS, TOP_LEVEL_COUNT};

/// The number of a command: dense, so that arrays can be indexed by it. Not stable between versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommandId(pub(crate) u16);

impl CommandId {
    /// The command of that full name (`"get"`, `"config|get"`), found while compiling.
    ///
    /// ```
    /// use mtcache_protocol::CommandId;
    /// const GET: CommandId = CommandId::of("get");
    /// assert_eq!(GET.spec().arity, 2);
    /// ```
    ///
    /// # Panics
    /// If there is no such command; in a constant that is a compile error.
    #[allow(clippy::panic, reason = "meant for constants, where it stops the compiler")]
    pub const fn of(full_name: &str) -> Self {
        match table::position(full_name) {
            Some(index) => Self(index as u16),
            None => panic!("no such command"),
        }
    }

    /// Position in [`COMMANDS`], below [`COMMAND_COUNT`].
    #[inline]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The row.
    #[inline]
    #[allow(clippy::indexing_slicing, reason = "ids are made from positions in this very array")]
    pub const fn spec(self) -> &'static CommandSpec {
        &COMMANDS[self.0 as usize]
    }
}

/// The family that COMMAND DOCS puts a command in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names say it")]
pub enum Group {
    Bitmap,
    Cluster,
    Connection,
    Generic,
    Geo,
    Hash,
    HyperLogLog,
    List,
    PubSub,
    Scripting,
    Server,
    Set,
    SortedSet,
    Stream,
    String,
    Transactions,
}

impl Group {
    /// The name that COMMAND DOCS prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bitmap => "bitmap",
            Self::Cluster => "cluster",
            Self::Connection => "connection",
            Self::Generic => "generic",
            Self::Geo => "geo",
            Self::Hash => "hash",
            Self::HyperLogLog => "hyperloglog",
            Self::List => "list",
            Self::PubSub => "pubsub",
            Self::Scripting => "scripting",
            Self::Server => "server",
            Self::Set => "set",
            Self::SortedSet => "sorted-set",
            Self::Stream => "stream",
            Self::String => "string",
            Self::Transactions => "transactions",
        }
    }
}

/// What replaces a command that new code should not use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deprecation {
    /// The version from which on.
    pub since: &'static str,
    /// What to use instead.
    pub replaced_by: &'static str,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct CommandSpec {
    /// Position in [`COMMANDS`].
    pub id: CommandId,
    /// Lower-case name; of a subcommand its own alone (`get` of `config|get`).
    pub name: &'static str,
    /// Of a subcommand, the command that contains it.
    pub container: Option<&'static str>,
    /// Number of arguments, the name (and container) included; negative means at least so many.
    pub arity: i32,
    /// How the command behaves.
    pub flags: CommandFlags,
    /// ACL categories, those that follow from the flags included.
    pub acl_categories: AclCategories,
    /// Where its keys are.
    pub key_specs: &'static [KeySpec],
    /// The same, when simple enough to be found without looking at the arguments.
    pub key_shape: KeyShape,
    /// First key, last key and step as COMMAND shows them; zeros when there are none.
    pub legacy_range: LegacyRange,
    /// Hints for clients and proxies.
    pub tips: &'static [&'static str],
    /// The Redis version that brought the command.
    pub since: &'static str,
    /// The family.
    pub group: Group,
    /// Time complexity; empty for a container.
    pub complexity: &'static str,
    /// One line of what it does.
    pub summary: &'static str,
    /// Set when new code should use something else.
    pub deprecated: Option<Deprecation>,
    /// Its subcommands, by name; empty when it is no container.
    pub subcommands: &'static [CommandSpec],
    full_name: &'static str,
}

impl CommandSpec {
    /// Whether a call with `argc` arguments, the name included, has an acceptable length.
    #[inline]
    pub const fn accepts(&self, argc: usize) -> bool {
        let needed = self.arity.unsigned_abs() as usize;
        if self.arity >= 0 { argc == needed } else { argc >= needed }
    }

    /// Whether the command may change the keyspace.
    #[inline]
    pub const fn is_write(&self) -> bool {
        self.flags.contains(CommandFlags::WRITE)
    }

    /// Name as Redis prints it: a subcommand's has its container's before a bar.
    #[inline]
    pub const fn full_name(&self) -> &'static str {
        self.full_name
    }

    /// Whether its second argument names a subcommand.
    #[inline]
    pub const fn is_container(&self) -> bool {
        !self.subcommands.is_empty()
    }

    /// Positions of the keys among `args`; see [`keys`].
    #[inline]
    pub fn keys(&self, args: &[&[u8]], out: &mut KeyIndices) -> Result<(), KeyError> {
        keys(self, args, out)
    }
}

/// The commands that have a name of their own, without subcommands, in table order.
pub fn top_level() -> &'static [CommandSpec] {
    COMMANDS.get(..TOP_LEVEL_COUNT).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_positions_and_every_row_is_found_by_its_name() {
        assert_eq!(COMMANDS.len(), COMMAND_COUNT);
        for (at, spec) in COMMANDS.iter().enumerate() {
            assert_eq!(spec.id.index(), at);
            assert!(std::ptr::eq(spec.id.spec(), spec));
            let found = match spec.container {
                None => lookup(spec.name.as_bytes()),
                Some(container) => {
                    let container = lookup(container.as_bytes()).unwrap();
                    assert!(container.subcommands.iter().any(|sub| sub.id == spec.id));
                    lookup_sub(container, spec.name.to_uppercase().as_bytes())
                }
            };
            assert_eq!(found.unwrap().id, spec.id, "{}", spec.full_name());
        }
    }

    #[test]
    fn every_row_is_complete() {
        for spec in &COMMANDS {
            let name = spec.full_name();
            assert!(!spec.summary.is_empty() && !spec.summary.ends_with('.'), "{name}");
            let containers_only = (spec.is_container() || name == "debug") && name != "command";
            assert_eq!(spec.complexity.is_empty(), containers_only, "{name}");
            assert_ne!(spec.arity, 0, "{name}");
            assert_eq!(spec.since.split('.').count(), 3, "{name}");
            let fast = spec.acl_categories.contains(AclCategories::FAST);
            assert_ne!(fast, spec.acl_categories.contains(AclCategories::SLOW), "{name}");
            assert!(!spec.flags.contains(CommandFlags::WRITE | CommandFlags::READONLY), "{name}");
            for key in spec.key_specs {
                let kinds = [KeyFlags::RO, KeyFlags::RW, KeyFlags::OW, KeyFlags::RM];
                let set = kinds.iter().filter(|kind| key.flags.contains(**kind)).count();
                assert_eq!(set, usize::from(!key.flags.contains(KeyFlags::NOT_KEY)), "{name}");
            }
        }
    }

    #[test]
    fn arity_bounds_the_number_of_arguments() {
        let get = CommandId::of("get").spec();
        assert!(get.accepts(2) && !get.accepts(1) && !get.accepts(3));
        let set = CommandId::of("set").spec();
        assert!(!set.accepts(2) && set.accepts(3) && set.accepts(9));
    }
}
