//! The words in which the table's rows are written; all of it runs while compiling.

use super::flags::{AclCategories, CommandFlags, KeyFlags};
use super::key_spec::{BeginSearch, FindKeys, KeyShape, KeySpec, LegacyRange};
use super::{CommandId, CommandSpec, Deprecation, Group};

/// Starts a row; `full_name` of a subcommand is `container|name`.
pub(super) const fn cmd(
    full_name: &'static str,
    arity: i32,
    since: &'static str,
    complexity: &'static str,
) -> CommandSpec {
    let (container, name) = split_name(full_name);
    CommandSpec {
        id: CommandId(0),
        name,
        full_name,
        container,
        arity,
        flags: CommandFlags::NONE,
        acl_categories: AclCategories::NONE,
        key_specs: &[],
        key_shape: KeyShape::None,
        legacy_range: LegacyRange { first: 0, last: 0, step: 0 },
        tips: &[],
        since,
        group: Group::Generic,
        complexity,
        summary: "",
        deprecated: None,
        subcommands: &[],
    }
}

impl CommandSpec {
    pub(super) const fn flags(mut self, flags: &[CommandFlags]) -> Self {
        self.flags = CommandFlags::of(flags);
        self
    }

    /// Categories beyond those that follow from the flags.
    pub(super) const fn acl(mut self, categories: &[AclCategories]) -> Self {
        self.acl_categories = AclCategories::of(categories);
        self
    }

    pub(super) const fn key_specs(mut self, specs: &'static [KeySpec]) -> Self {
        self.key_specs = specs;
        self
    }

    pub(super) const fn tips(mut self, tips: &'static [&'static str]) -> Self {
        self.tips = tips;
        self
    }

    pub(super) const fn deprecated(mut self, since: &'static str, replaced_by: &'static str) -> Self {
        self.deprecated = Some(Deprecation { since, replaced_by });
        self
    }

    pub(super) const fn summary(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    /// Fills in what follows from the rest of the row and from its place in the table.
    pub(super) const fn placed(mut self, id: u16, group: Group, subcommands: &'static [Self]) -> Self {
        self.id = CommandId(id);
        self.group = group;
        self.subcommands = subcommands;
        self.key_shape = KeyShape::of(self.key_specs);
        self.legacy_range = LegacyRange::of(self.key_specs);
        self.acl_categories = self.acl_categories.union(implied_categories(self.flags, self.acl_categories));
        self
    }
}

/// The categories that a command is in because of its flags.
const fn implied_categories(flags: CommandFlags, own: AclCategories) -> AclCategories {
    use {AclCategories as C, CommandFlags as F};
    let mut implied = if flags.contains(F::FAST) { C::FAST } else { C::SLOW };
    if flags.contains(F::WRITE) {
        implied = implied.union(C::WRITE);
    }
    // Read-only scripts are about scripting: what they read is up to them.
    if flags.contains(F::READONLY) && !own.contains(C::SCRIPTING) {
        implied = implied.union(C::READ);
    }
    if flags.contains(F::ADMIN) {
        implied = implied.union(C::ADMIN).union(C::DANGEROUS);
    }
    if flags.contains(F::PUBSUB) {
        implied = implied.union(C::PUBSUB);
    }
    if flags.contains(F::BLOCKING) {
        implied = implied.union(C::BLOCKING);
    }
    implied
}

/// One key at a position.
pub(super) const fn key(at: u8, flags: &[KeyFlags]) -> KeySpec {
    span(at, 0, 1, flags)
}

/// Keys from a position to `last`, an offset from there or negative from the end, every `step`.
pub(super) const fn span(at: u8, last: i8, step: u8, flags: &[KeyFlags]) -> KeySpec {
    KeySpec {
        begin: BeginSearch::Index(at),
        find: FindKeys::Range { last, step, limit: 0 },
        flags: KeyFlags::of(flags),
    }
}

/// A number of keys at a position, the keys behind it.
pub(super) const fn counted(at: u8, flags: &[KeyFlags]) -> KeySpec {
    KeySpec {
        begin: BeginSearch::Index(at),
        find: FindKeys::KeyNum { index: 0, first: 1, step: 1 },
        flags: KeyFlags::of(flags),
    }
}

/// Keys behind a word.
pub(super) const fn after(
    keyword: &'static str,
    from: i8,
    last: i8,
    limit: u8,
    flags: &[KeyFlags],
) -> KeySpec {
    KeySpec {
        begin: BeginSearch::Keyword { keyword, from },
        find: FindKeys::Range { last, step: 1, limit },
        flags: KeyFlags::of(flags),
    }
}

/// Keys that no rule finds.
pub(super) const fn unknown(flags: &[KeyFlags]) -> KeySpec {
    KeySpec { begin: BeginSearch::Unknown, find: FindKeys::Unknown, flags: KeyFlags::of(flags) }
}

/// Splits `container|name`.
const fn split_name(full_name: &'static str) -> (Option<&'static str>, &'static str) {
    let mut at = 0;
    let mut rest = full_name.as_bytes();
    while let [byte, tail @ ..] = rest {
        if *byte == b'|' {
            let (container, _) = full_name.split_at(at);
            let (_, name) = full_name.split_at(at + 1);
            return (Some(container), name);
        }
        at += 1;
        rest = tail;
    }
    (None, full_name)
}
