//! What a user may do: commands, keys, channels, as the rules of `ACL SETUSER` build it up.
//!
//! Invariant: a rule either applies wholly or leaves everything as it was. The rules and the way in which they are shown
//! again are Redis'. A user has one selector; those in parentheses come later and are refused by [`super::user`].

use std::collections::BTreeMap;

use mtcache_protocol::{
    AclCategories, COMMAND_COUNT, CommandFlags, CommandId, CommandSpec, KeyFlags, glob, keys_with_flags,
    lookup, lookup_sub, top_level,
};
use smallvec::SmallVec;

use super::rule::RuleError;

const WORDS: usize = COMMAND_COUNT.div_ceil(64);

/// A set of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct CommandSet([u64; WORDS]);

impl CommandSet {
    const NONE: Self = Self([0; WORDS]);
    const ALL: Self = Self([u64::MAX; WORDS]);

    fn has(&self, id: CommandId) -> bool {
        self.0.get(id.index() / 64).is_some_and(|word| word >> (id.index() % 64) & 1 == 1)
    }

    fn put(&mut self, id: CommandId, on: bool) {
        let Some(word) = self.0.get_mut(id.index() / 64) else { return };
        let bit = 1 << (id.index() % 64);
        if on { *word |= bit } else { *word &= !bit }
    }

    /// Puts a command, with its subcommands, in or out.
    fn put_whole(&mut self, spec: &CommandSpec, on: bool) {
        self.put(spec.id, on);
        for sub in spec.subcommands {
            self.put(sub.id, on);
        }
    }

    fn put_category(&mut self, category: AclCategories, on: bool) {
        for spec in in_category(category) {
            self.put_whole(spec, on);
        }
    }
}

/// Every command and subcommand of a category.
pub(crate) fn in_category(category: AclCategories) -> impl Iterator<Item = &'static CommandSpec> {
    let all = top_level().iter().flat_map(|spec| std::iter::once(spec).chain(spec.subcommands));
    all.filter(move |spec| spec.acl_categories.contains(category))
}

/// What may be done with the keys of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Access {
    read: bool,
    write: bool,
}

impl Access {
    const ALL: Self = Self { read: true, write: true };

    /// What a command does with a key. Adding to a key is writing; to learn nothing of it and change nothing is neither.
    fn needed(flags: KeyFlags) -> Self {
        const CHANGES: KeyFlags = KeyFlags::of(&[KeyFlags::INSERT, KeyFlags::DELETE, KeyFlags::UPDATE]);
        Self { read: flags.contains(KeyFlags::ACCESS), write: flags.intersects(CHANGES) }
    }

    fn covers(self, needed: Self) -> bool {
        (self.read || !needed.read) && (self.write || !needed.write)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyPattern {
    pattern: Box<[u8]>,
    access: Access,
}

/// Why a command may not run: the kind, and the argument that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Command,
    Key(usize),
    Channel(usize),
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selector {
    commands: CommandSet,
    /// Commands that no version knows yet are allowed as well: the set was begun with `+@all`.
    future: bool,
    /// Nothing was taken away since then.
    all_commands: bool,
    all_keys: bool,
    all_channels: bool,
    /// Of commands that are not allowed as such, the first arguments with which they are, as in `+select|0`.
    first_args: BTreeMap<usize, Vec<Box<[u8]>>>,
    keys: Vec<KeyPattern>,
    channels: Vec<Box<[u8]>>,
}

impl Selector {
    /// Nothing is allowed.
    pub(crate) fn nothing() -> Self {
        Self {
            commands: CommandSet::NONE,
            future: false,
            all_commands: false,
            all_keys: false,
            all_channels: false,
            first_args: BTreeMap::new(),
            keys: Vec::new(),
            channels: Vec::new(),
        }
    }

    /// Everything is.
    pub(crate) fn everything() -> Self {
        Self {
            commands: CommandSet::ALL,
            future: true,
            all_commands: true,
            all_keys: true,
            all_channels: true,
            ..Self::nothing()
        }
    }

    /// Whether there is nothing to check.
    pub(crate) fn is_everything(&self) -> bool {
        self.all_commands && self.all_keys && self.all_channels
    }

    // ---- rules -----------------------------------------------------------------------------------------------------

    /// Applies one rule about commands, keys or channels.
    pub(crate) fn apply(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        match rule.to_ascii_lowercase().as_slice() {
            b"allkeys" | b"~*" => self.set_all_keys(true),
            b"resetkeys" => self.set_all_keys(false),
            b"allchannels" | b"&*" => self.set_all_channels(true),
            b"resetchannels" => self.set_all_channels(false),
            b"allcommands" | b"+@all" => self.set_all_commands(true),
            b"nocommands" | b"-@all" => self.set_all_commands(false),
            _ => return self.apply_single(rule),
        }
        Ok(())
    }

    fn apply_single(&mut self, rule: &[u8]) -> Result<(), RuleError> {
        match rule {
            [b'~', pattern @ ..] => self.add_keys(pattern, Access::ALL),
            [b'%', rest @ ..] => {
                let letters = rest.iter().take_while(|byte| **byte != b'~').count();
                let (letters, pattern) = rest.split_at_checked(letters).unwrap_or((rest, &[]));
                let access = parse_access(letters).ok_or(RuleError::Syntax)?;
                self.add_keys(pattern.get(1..).unwrap_or_default(), access)
            }
            [b'&', pattern @ ..] => self.add_channels(pattern),
            [sign @ (b'+' | b'-'), b'@', name @ ..] => {
                let name = std::str::from_utf8(name).ok();
                let category = name.and_then(AclCategories::from_name).ok_or(RuleError::Unknown)?;
                self.set_category(category, *sign == b'+');
                Ok(())
            }
            [b'-', name @ ..] => {
                self.set_command(find(name).ok_or(RuleError::Unknown)?, false);
                Ok(())
            }
            [b'+', name @ ..] => self.allow_command(name),
            _ => Err(RuleError::Syntax),
        }
    }

    fn set_all_keys(&mut self, on: bool) {
        self.all_keys = on;
        self.keys.clear();
    }

    fn set_all_channels(&mut self, on: bool) {
        self.all_channels = on;
        self.channels.clear();
    }

    fn set_all_commands(&mut self, on: bool) {
        self.commands = if on { CommandSet::ALL } else { CommandSet::NONE };
        (self.future, self.all_commands) = (on, on);
        self.first_args.clear();
    }

    fn set_command(&mut self, spec: &CommandSpec, on: bool) {
        self.commands.put_whole(spec, on);
        self.all_commands &= on;
        self.first_args.remove(&spec.id.index());
    }

    fn set_category(&mut self, category: AclCategories, on: bool) {
        for spec in in_category(category) {
            self.set_command(spec, on);
        }
    }

    fn allow_command(&mut self, name: &[u8]) -> Result<(), RuleError> {
        let Some(bar) = name.iter().rposition(|byte| *byte == b'|') else {
            self.set_command(find(name).ok_or(RuleError::Unknown)?, true);
            return Ok(());
        };
        let (container, rest) = name.split_at_checked(bar).unwrap_or((name, &[]));
        let sub = rest.get(1..).unwrap_or_default();
        let spec = find(container).ok_or(RuleError::Unknown)?;
        if spec.container.is_some() {
            return Err(RuleError::ArgumentOfSubcommand);
        }
        if sub.is_empty() {
            return Err(RuleError::Syntax);
        }
        if spec.is_container() {
            self.set_command(lookup_sub(spec, sub).ok_or(RuleError::Unknown)?, true);
            return Ok(());
        }
        let known = self.first_args.entry(spec.id.index()).or_default();
        if !known.iter().any(|other| other.eq_ignore_ascii_case(sub)) {
            known.push(sub.into());
        }
        Ok(())
    }

    fn add_keys(&mut self, pattern: &[u8], access: Access) -> Result<(), RuleError> {
        if self.all_keys {
            return Err(RuleError::KeysAfterAll);
        }
        check_pattern(pattern)?;
        match self.keys.iter_mut().find(|known| *known.pattern == *pattern) {
            Some(known) => {
                known.access.read |= access.read;
                known.access.write |= access.write;
            }
            None => self.keys.push(KeyPattern { pattern: pattern.into(), access }),
        }
        Ok(())
    }

    fn add_channels(&mut self, pattern: &[u8]) -> Result<(), RuleError> {
        if self.all_channels {
            return Err(RuleError::ChannelsAfterAll);
        }
        check_pattern(pattern)?;
        if !self.channels.iter().any(|known| **known == *pattern) {
            self.channels.push(pattern.into());
        }
        Ok(())
    }

    // ---- checks ----------------------------------------------------------------------------------------------------

    /// Whether a command with these arguments may run.
    pub(crate) fn check(&self, spec: &CommandSpec, args: &[&[u8]]) -> Result<(), Denied> {
        if !self.allows_command(spec, args) {
            return Err(Denied::Command);
        }
        if !self.all_keys {
            let mut keys = SmallVec::new();
            // A command whose keys cannot be told fails by itself before it touches any.
            if keys_with_flags(spec, args, &mut keys).is_ok() {
                for key in keys {
                    let name = args.get(key.index).copied().unwrap_or_default();
                    if !self.allows_key(name, Access::needed(key.flags)) {
                        return Err(Denied::Key(key.index));
                    }
                }
            }
        }
        if !self.all_channels
            && let Some((channels, kind)) = channels_of(spec, args)
        {
            for index in channels {
                let name = args.get(index).copied().unwrap_or_default();
                if !self.allows_channel(name, kind) {
                    return Err(Denied::Channel(index));
                }
            }
        }
        Ok(())
    }

    /// Whether every key may be read: for commands that find keys in what they read.
    pub(crate) fn may_read_every_key(&self) -> bool {
        self.all_keys || self.keys.iter().any(|known| known.access.read && *known.pattern == *b"*")
    }

    fn allows_command(&self, spec: &CommandSpec, args: &[&[u8]]) -> bool {
        self.all_commands
            || self.commands.has(spec.id)
            || spec.flags.contains(CommandFlags::NO_AUTH)
            || self.first_args.get(&spec.id.index()).is_some_and(|allowed| {
                args.get(1).is_some_and(|arg| allowed.iter().any(|other| other.eq_ignore_ascii_case(arg)))
            })
    }

    fn allows_key(&self, key: &[u8], needed: Access) -> bool {
        self.keys.iter().any(|known| known.access.covers(needed) && glob::matches(&known.pattern, key, false))
    }

    /// Whether a channel may be used. A pattern has to be allowed letter by letter: it may match more than it looks like.
    pub(crate) fn allows_channel(&self, channel: &[u8], kind: ChannelKind) -> bool {
        self.all_channels
            || self.channels.iter().any(|allowed| match kind {
                ChannelKind::Pattern => **allowed == *channel,
                ChannelKind::Name => glob::matches(allowed, channel, false),
            })
    }

    /// Whether everybody whom `self` lets listen may listen under `other` as well, told at a glance.
    pub(crate) fn channels_are_within(&self, other: &Self) -> bool {
        other.all_channels
            || (!self.all_channels && self.channels.iter().all(|channel| other.channels.contains(channel)))
    }

    // ---- showing ---------------------------------------------------------------------------------------------------

    /// The key patterns, one after the other.
    pub(crate) fn show_keys(&self) -> Vec<u8> {
        if self.all_keys {
            return b"~*".to_vec();
        }
        let shown: Vec<Vec<u8>> = self.keys.iter().map(KeyPattern::show).collect();
        shown.join(&b' ')
    }

    /// The channel patterns, one after the other.
    pub(crate) fn show_channels(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".to_vec();
        }
        let shown: Vec<Vec<u8>> = self.channels.iter().map(|pattern| [b"&", &**pattern].concat()).collect();
        shown.join(&b' ')
    }

    /// Rules that give the same set of commands: as few categories as fit, then the single commands that differ.
    pub(crate) fn show_commands(&self) -> String {
        let additive = !self.future;
        let sign = if additive { '+' } else { '-' };
        let mut words = vec![if additive { "-@all".to_owned() } else { "+@all".to_owned() }];
        let mut reached = if additive { CommandSet::NONE } else { CommandSet::ALL };
        // What is still to be said; a category that has been used is taken out of it.
        let mut open = self.commands;
        let mut used = AclCategories::NONE;
        while let Some((name, category)) = best_category(&open, used, additive) {
            words.push(format!("{sign}@{name}"));
            reached.put_category(category, additive);
            open.put_category(category, !additive);
            used = used.union(category);
        }
        for spec in top_level() {
            for spec in std::iter::once(spec).chain(spec.subcommands) {
                let wanted = self.commands.has(spec.id);
                if wanted != reached.has(spec.id) {
                    words.push(format!("{}{}", if wanted { '+' } else { '-' }, spec.full_name()));
                    reached.put_whole(spec, wanted);
                }
                for arg in self.first_args.get(&spec.id.index()).into_iter().flatten().filter(|_| !wanted) {
                    words.push(format!("+{}|{}", spec.full_name(), String::from_utf8_lossy(arg)));
                }
            }
        }
        words.join(" ")
    }

    /// All rules, as a line of a file has them.
    pub(crate) fn show(&self) -> Vec<u8> {
        let mut words = Vec::new();
        if self.all_keys || !self.keys.is_empty() {
            words.push(self.show_keys());
        }
        if !self.all_channels {
            words.push(b"resetchannels".to_vec());
        }
        if self.all_channels || !self.channels.is_empty() {
            words.push(self.show_channels());
        }
        words.push(self.show_commands().into_bytes());
        words.join(&b' ')
    }
}

impl KeyPattern {
    fn show(&self) -> Vec<u8> {
        let sign: &[u8] = match (self.access.read, self.access.write) {
            (true, false) => b"%R~",
            (false, true) => b"%W~",
            _ => b"~",
        };
        [sign, &self.pattern].concat()
    }
}

/// The category that brings `open` nearest to what is wanted: more commands that fit than commands that do not, and of
/// those as few as possible.
fn best_category(
    open: &CommandSet,
    used: AclCategories,
    additive: bool,
) -> Option<(&'static str, AclCategories)> {
    let mut best = None;
    let (mut least, mut most) = (usize::MAX, 0);
    for (name, category) in AclCategories::all().filter(|(_, category)| !used.contains(*category)) {
        let on = in_category(category).filter(|spec| open.has(spec.id)).count();
        let off = in_category(category).count() - on;
        let (same, different) = if additive { (on, off) } else { (off, on) };
        if same > different && (different < least || (different == least && same > most)) {
            best = Some((name, category));
            (least, most) = (different, same);
        }
    }
    best
}

/// How a channel is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChannelKind {
    Name,
    Pattern,
}

/// The channels that a command publishes or subscribes to.
fn channels_of(spec: &CommandSpec, args: &[&[u8]]) -> Option<(std::ops::Range<usize>, ChannelKind)> {
    const PUBLISH: CommandId = CommandId::of("publish");
    const SPUBLISH: CommandId = CommandId::of("spublish");
    const SUBSCRIBE: CommandId = CommandId::of("subscribe");
    const SSUBSCRIBE: CommandId = CommandId::of("ssubscribe");
    const PSUBSCRIBE: CommandId = CommandId::of("psubscribe");
    match spec.id {
        PUBLISH | SPUBLISH => Some((1..2, ChannelKind::Name)),
        SUBSCRIBE | SSUBSCRIBE => Some((1..args.len(), ChannelKind::Name)),
        PSUBSCRIBE => Some((1..args.len(), ChannelKind::Pattern)),
        _ => None,
    }
}

/// `R`, `W` or both, each once.
fn parse_access(letters: &[u8]) -> Option<Access> {
    let mut access = Access { read: false, write: false };
    for letter in letters {
        let place = match letter.to_ascii_uppercase() {
            b'R' => &mut access.read,
            b'W' => &mut access.write,
            _ => return None,
        };
        if std::mem::replace(place, true) {
            return None;
        }
    }
    (!letters.is_empty()).then_some(access)
}

/// A pattern becomes a word of a line, so it has no white space.
fn check_pattern(pattern: &[u8]) -> Result<(), RuleError> {
    if super::rule::has_spaces(pattern) { Err(RuleError::Syntax) } else { Ok(()) }
}

/// The command of a name such as `get` or `client|id`.
fn find(name: &[u8]) -> Option<&'static CommandSpec> {
    let mut parts = name.split(|byte| *byte == b'|');
    let spec = lookup(parts.next()?)?;
    match (parts.next(), parts.next()) {
        (None, _) => Some(spec),
        (Some(sub), None) if spec.is_container() => lookup_sub(spec, sub),
        _ => None,
    }
}
