//! A user: a name, and what goes with it at present.
//!
//! Invariants: sessions hold the user, not its rules, so that a change counts from the next command on; a user that has been
//! deleted may do nothing any more, whoever still holds it. Passwords are kept as SHA-256 alone and compared in a time that
//! does not depend on where they differ.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};

use super::rule::RuleError;
use super::selector::Selector;

/// See the module.
#[derive(Debug)]
pub(crate) struct User {
    name: Box<[u8]>,
    rules: RwLock<Arc<Rules>>,
    /// There is nothing to check: all that the dispatcher asks of most users.
    is_unrestricted: AtomicBool,
}

/// What a user may do and how it proves who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) is_enabled: bool,
    /// Any password will do.
    pub(crate) is_open: bool,
    /// Whether payloads of `RESTORE` are checked thoroughly, where somebody has said so.
    sanitize: Option<bool>,
    passwords: Vec<PasswordHash>,
    pub(crate) selector: Selector,
}

type PasswordHash = [u8; 32];

/// Callers of our own process: nothing is checked, and `ACL` does not show them.
static TRUSTED: LazyLock<Arc<User>> = LazyLock::new(|| {
    let mut rules = Rules::new(false);
    rules.selector = Selector::everything();
    Arc::new(User::new(b"(superuser)", rules))
});

impl User {
    pub(crate) fn new(name: &[u8], rules: Rules) -> Self {
        let is_unrestricted = AtomicBool::new(rules.selector.is_everything());
        Self { name: name.into(), rules: RwLock::new(Arc::new(rules)), is_unrestricted }
    }

    /// The user of callers in our own process.
    pub(crate) fn trusted() -> Arc<Self> {
        Arc::clone(&TRUSTED)
    }

    pub(crate) fn is_trusted(self: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, &TRUSTED)
    }

    pub(crate) fn name(&self) -> &[u8] {
        &self.name
    }

    #[inline]
    pub(crate) fn is_unrestricted(&self) -> bool {
        self.is_unrestricted.load(Ordering::Relaxed)
    }

    pub(crate) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read())
    }

    pub(crate) fn set_rules(&self, rules: Rules) {
        let mut place = self.rules.write();
        self.is_unrestricted.store(rules.selector.is_everything(), Ordering::Relaxed);
        *place = Arc::new(rules);
    }

    /// Takes every right away.
    pub(crate) fn disable(&self) {
        self.set_rules(Rules::new(false));
    }

    /// The user as a line of a file.
    pub(crate) fn line(&self) -> Vec<u8> {
        [b"user ", &*self.name, b" ", &self.rules().show()].concat()
    }
}

impl Rules {
    /// A new user: disabled, without a password, without rights; all channels if `acl-pubsub-default` says so.
    pub(crate) fn new(all_channels: bool) -> Self {
        let mut selector = Selector::nothing();
        if all_channels {
            // Nothing can be wrong with this rule.
            let _ = selector.apply(b"allchannels");
        }
        Self { is_enabled: false, is_open: false, sanitize: None, passwords: Vec::new(), selector }
    }

    /// The user `default` as it is before anybody changes it.
    pub(crate) fn default_user() -> Self {
        Self { is_enabled: true, is_open: true, selector: Selector::everything(), ..Self::new(false) }
    }

    /// Applies rules in order, all or none; which one cannot be applied.
    pub(crate) fn apply_all<R: AsRef<[u8]>>(
        &mut self,
        rules: &[R],
        all_channels: bool,
    ) -> Result<(), (usize, RuleError)> {
        let mut changed = self.clone();
        for (index, rule) in rules.iter().enumerate() {
            changed.apply(rule.as_ref(), all_channels).map_err(|error| (index, error))?;
        }
        *self = changed;
        Ok(())
    }

    fn apply(&mut self, rule: &[u8], all_channels: bool) -> Result<(), RuleError> {
        match rule.to_ascii_lowercase().as_slice() {
            b"" => {}
            b"on" => self.is_enabled = true,
            b"off" => self.is_enabled = false,
            b"nopass" => {
                self.is_open = true;
                self.passwords.clear();
            }
            b"resetpass" => {
                self.is_open = false;
                self.passwords.clear();
            }
            b"sanitize-payload" => self.sanitize = Some(true),
            b"skip-sanitize-payload" => self.sanitize = Some(false),
            // There are no selectors to be cleared yet.
            b"clearselectors" => {}
            b"reset" => *self = Self { sanitize: Some(true), ..Self::new(all_channels) },
            _ => match rule {
                [b'>', password @ ..] => self.add_password(hash(password)),
                [b'#', text @ ..] => self.add_password(parse_hash(text).ok_or(RuleError::BadHash)?),
                [b'<', password @ ..] => self.remove_password(&hash(password))?,
                [b'!', text @ ..] => self.remove_password(&parse_hash(text).ok_or(RuleError::BadHash)?)?,
                [b'(', .., b')'] => return Err(RuleError::Selector),
                _ => self.selector.apply(rule)?,
            },
        }
        Ok(())
    }

    /// Sets the one password that `requirepass` names; an empty one opens the user to everybody.
    pub(crate) fn set_only_password(&mut self, password: &[u8]) {
        self.passwords.clear();
        self.is_open = password.is_empty();
        if !password.is_empty() {
            self.add_password(hash(password));
        }
    }

    fn add_password(&mut self, password: PasswordHash) {
        if !self.passwords.contains(&password) {
            self.passwords.push(password);
        }
        self.is_open = false;
    }

    fn remove_password(&mut self, password: &PasswordHash) -> Result<(), RuleError> {
        let place = self.passwords.iter().position(|known| known == password);
        self.passwords.remove(place.ok_or(RuleError::NoSuchPassword)?);
        Ok(())
    }

    /// Whether somebody who gives this password may come in as this user.
    pub(crate) fn admits(&self, password: &[u8]) -> bool {
        let given = hash(password);
        let mut fits = false;
        for known in &self.passwords {
            fits |= equal_in_constant_time(known, &given);
        }
        self.is_enabled && (self.is_open || fits)
    }

    /// The words that `ACL GETUSER` shows as flags.
    pub(crate) fn flags(&self) -> Vec<&'static str> {
        let mut flags = vec![if self.is_enabled { "on" } else { "off" }];
        if self.is_open {
            flags.push("nopass");
        }
        match self.sanitize {
            Some(true) => flags.push("sanitize-payload"),
            Some(false) => flags.push("skip-sanitize-payload"),
            None => {}
        }
        flags
    }

    /// The passwords' hashes in hexadecimal digits.
    pub(crate) fn hashes(&self) -> impl Iterator<Item = String> {
        self.passwords.iter().map(|password| hex(password))
    }

    fn show(&self) -> Vec<u8> {
        let mut words: Vec<Vec<u8>> = self.flags().iter().map(|flag| flag.as_bytes().to_vec()).collect();
        words.extend(self.hashes().map(|hash| format!("#{hash}").into_bytes()));
        words.push(self.selector.show());
        words.join(&b' ')
    }
}

fn hash(password: &[u8]) -> PasswordHash {
    Sha256::digest(password).into()
}

/// The bytes in lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// 64 lower-case hexadecimal digits.
fn parse_hash(text: &[u8]) -> Option<PasswordHash> {
    let mut hash = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (byte, digits) in hash.iter_mut().zip(text.chunks_exact(2)) {
        for digit in digits {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            *byte = (*byte << 4) | value;
        }
    }
    Some(hash)
}

/// Looks at every byte, whatever differs.
fn equal_in_constant_time(secret: &PasswordHash, given: &PasswordHash) -> bool {
    let mut difference = 0;
    for (expected, byte) in secret.iter().zip(given) {
        difference |= std::hint::black_box(expected ^ byte);
    }
    difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_compare_by_all_their_bytes() {
        let mut rules = Rules::default_user();
        rules.set_only_password(b"secret");
        assert!(rules.admits(b"secret"));
        for wrong in [&b""[..], b"secre", b"secret!", b"Secret", b"secretsecret"] {
            assert!(!rules.admits(wrong));
        }
        for place in 0..32 {
            let mut other = hash(b"secret");
            other[place] ^= 1;
            assert!(!equal_in_constant_time(&hash(b"secret"), &other));
        }
    }

    #[test]
    fn a_disabled_user_is_never_admitted() {
        let mut rules = Rules::new(false);
        rules.apply_all(&["nopass"], false).unwrap();
        assert!(!rules.admits(b""));
        rules.apply_all(&["on"], false).unwrap();
        assert!(rules.admits(b"anything"));
    }

    #[test]
    fn rules_apply_all_or_none() {
        let mut rules = Rules::new(false);
        let before = rules.clone();
        assert_eq!(rules.apply_all(&["on", "~x", "+nosuch"], false), Err((2, RuleError::Unknown)));
        assert_eq!(rules, before);
    }

    #[test]
    fn what_is_shown_gives_the_same_user_again() {
        let mut random = 7_u64;
        let mut draw = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) as usize % below
        };
        let categories: Vec<_> = mtcache_protocol::AclCategories::all().map(|(name, _)| name).collect();
        for _ in 0..200 {
            let mut rules = Rules::new(draw(2) == 0);
            for _ in 0..draw(12) {
                let sign = if draw(2) == 0 { '+' } else { '-' };
                let rule = match draw(8) {
                    0 => format!("{sign}@{}", categories[draw(categories.len())]),
                    1 => format!("{sign}@all"),
                    2 => format!("{}~k{}*", ["", "%R", "%W", "%RW"][draw(4)], draw(5)),
                    3 => format!("&c{}", draw(5)),
                    4 => format!(">p{}", draw(3)),
                    5 => "+select|0".to_owned(),
                    _ => {
                        let spec = &mtcache_protocol::COMMANDS[draw(mtcache_protocol::COMMAND_COUNT)];
                        format!("{sign}{}", spec.full_name())
                    }
                };
                let _ = rules.apply_all(&[rule], false);
            }
            let shown = String::from_utf8(rules.show()).unwrap();
            let mut again = Rules::new(true);
            again.apply_all(&shown.split(' ').collect::<Vec<_>>(), false).unwrap();
            assert_eq!(String::from_utf8(again.show()).unwrap(), shown);
        }
    }
}
