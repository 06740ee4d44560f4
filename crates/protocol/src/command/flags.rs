//! The three sets of named bits in the command table: command flags, ACL categories, key flags.
//!
//! Names are the ones that COMMAND and ACL print, in the order in which Redis prints them. A bit without a
//! public name there still has one here, and [`CommandFlags::HIDDEN`] says so.

/// Declares a set of named bits that can be put together in constants.
macro_rules! bit_set {
    ($(#[$meta:meta])* $name:ident($repr:ty) { $($(#[$bit_meta:meta])* $bit:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $name($repr);

        impl $name {
            /// No bit.
            pub const NONE: Self = Self(0);
            bit_set!(@bits $repr, 0, $($(#[$bit_meta])* $bit,)+);

            const NAMED: &'static [(&'static str, Self)] = &[$(($text, Self::$bit)),+];

            /// The bits of all `parts`.
            pub const fn of(parts: &[Self]) -> Self {
                let mut all = Self::NONE;
                let mut rest = parts;
                while let [first, tail @ ..] = rest {
                    all = all.union(*first);
                    rest = tail;
                }
                all
            }

            /// The bits of either.
            #[must_use]
            pub const fn union(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }

            /// The bits of `self` that `other` does not have.
            #[must_use]
            pub const fn without(self, other: Self) -> Self {
                Self(self.0 & !other.0)
            }

            /// Whether all bits of `other` are set.
            #[inline]
            pub const fn contains(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Whether any bit of `other` is set.
            #[inline]
            pub const fn intersects(self, other: Self) -> bool {
                self.0 & other.0 != 0
            }

            /// Whether no bit is set.
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// The names of the bits that are set.
            pub fn names(self) -> impl Iterator<Item = &'static str> {
                Self::NAMED.iter().filter(move |(_, bit)| self.contains(*bit)).map(|(name, _)| *name)
            }

            /// The bit of that name, in any case.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::NAMED.iter().find(|(text, _)| text.eq_ignore_ascii_case(name)).map(|(_, bit)| *bit)
            }

            /// Every bit with its name.
            pub fn all() -> impl Iterator<Item = (&'static str, Self)> {
                Self::NAMED.iter().copied()
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_set().entries(self.names()).finish()
            }
        }

        impl std::ops::BitOr for $name {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                self.union(other)
            }
        }
    };
    (@bits $repr:ty, $at:expr, $(#[$bit_meta:meta])* $bit:ident, $($rest:tt)*) => {
        $(#[$bit_meta])*
        pub const $bit: Self = Self(1 << ($at));
        bit_set!(@bits $repr, $at + 1, $($rest)*);
    };
    (@bits $repr:ty, $at:expr,) => {};
}

bit_set! {
    /// How a command behaves, apart from what it does.
    CommandFlags(u32) {
        /// May change the keyspace.
        WRITE = "write",
        /// Reads keys and changes none.
        READONLY = "readonly",
        /// Refused when memory is full.
        DENYOOM = "denyoom",
        /// For operators.
        ADMIN = "admin",
        /// Belongs to publish and subscribe.
        PUBSUB = "pubsub",
        /// Not callable from a script.
        NOSCRIPT = "noscript",
        /// May wait for another client.
        BLOCKING = "blocking",
        /// Allowed while data is being loaded.
        LOADING = "loading",
        /// Allowed on a replica that lost its primary.
        STALE = "stale",
        /// Not shown to MONITOR.
        SKIP_MONITOR = "skip_monitor",
        /// Not written to the slow log.
        SKIP_SLOWLOG = "skip_slowlog",
        /// Counts as ASKING itself.
        ASKING = "asking",
        /// Takes constant or logarithmic time.
        FAST = "fast",
        /// Allowed before the client has authenticated.
        NO_AUTH = "no_auth",
        /// May produce a write although it is none (`EVAL`, `PUBLISH`).
        MAY_REPLICATE = "may_replicate",
        /// Takes keys, yet runs without any.
        NO_MANDATORY_KEYS = "no_mandatory_keys",
        /// Refused unless the configuration allows it.
        PROTECTED = "protected",
        /// Refused during an asynchronous load even when allowed while loading.
        NO_ASYNC_LOADING = "no_async_loading",
        /// Not allowed inside MULTI.
        NO_MULTI = "no_multi",
        /// Key positions cannot be told from first, last and step alone.
        MOVABLE_KEYS = "movablekeys",
        /// Allowed while a script has the server busy.
        ALLOW_BUSY = "allow_busy",
        /// Between servers, not for users (`syscmd` in COMMAND DOCS).
        INTERNAL = "syscmd",
    }
}

impl CommandFlags {
    /// What COMMAND does not show.
    pub const HIDDEN: Self = Self::of(&[Self::MAY_REPLICATE, Self::PROTECTED, Self::INTERNAL]);
}

bit_set! {
    /// The ACL categories that a command belongs to; names without the `@`.
    AclCategories(u32) {
        /// Works on keys of any type.
        KEYSPACE = "keyspace",
        /// Reads keys.
        READ = "read",
        /// Changes keys.
        WRITE = "write",
        /// Sets.
        SET = "set",
        /// Sorted sets.
        SORTED_SET = "sortedset",
        /// Lists.
        LIST = "list",
        /// Hashes.
        HASH = "hash",
        /// Strings.
        STRING = "string",
        /// Bits of strings.
        BITMAP = "bitmap",
        /// `HyperLogLog` values.
        HYPERLOGLOG = "hyperloglog",
        /// Geographic indexes.
        GEO = "geo",
        /// Streams.
        STREAM = "stream",
        /// Publish and subscribe.
        PUBSUB = "pubsub",
        /// For operators.
        ADMIN = "admin",
        /// Fast commands.
        FAST = "fast",
        /// All others.
        SLOW = "slow",
        /// May wait.
        BLOCKING = "blocking",
        /// Can hurt the server or other users.
        DANGEROUS = "dangerous",
        /// About connections.
        CONNECTION = "connection",
        /// Transactions.
        TRANSACTION = "transaction",
        /// Scripts and functions.
        SCRIPTING = "scripting",
    }
}

bit_set! {
    /// What a command does with a key. Exactly one of the first four is set.
    KeyFlags(u16) {
        /// Reads the value, changes nothing.
        RO = "RO",
        /// Reads and changes.
        RW = "RW",
        /// Replaces the value without reading it.
        OW = "OW",
        /// Deletes the key.
        RM = "RM",
        /// Lets the user learn something of the value.
        ACCESS = "access",
        /// Changes the value, not merely adds or deletes.
        UPDATE = "update",
        /// Adds to the value.
        INSERT = "insert",
        /// Deletes from the value, or the value.
        DELETE = "delete",
        /// Looks like a key to the cluster and is none (a shard channel).
        NOT_KEY = "not_key",
        /// The specification does not find all keys.
        INCOMPLETE = "incomplete",
        /// The flags depend on other arguments.
        VARIABLE_FLAGS = "variable_flags",
    }
}
