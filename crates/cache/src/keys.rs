//! Key building.
//!
//! Invariant: different parts give different keys (`a:b` + `c` is not `a` + `b:c`), and no region's keys begin with another's
//! prefix (`users:` does not match `usersAbc`). The price is that `:` and `%` inside a part are written `%3A` and `%25`.
//! Deliberately absent: hashing; keys stay readable in redis-cli.

use smallvec::SmallVec;

use crate::error::{Error, ErrorKind, Result};
use crate::slot::BOOKKEEPING_PREFIX;

/// Longest key in bytes: the backends take more, but a key is no place for data.
const KEY_MAX: usize = 8 * 1024;

/// What can name an entry of a region: one part, or several in a fixed order.
pub trait KeyParts {
    /// Hands over each part in turn.
    fn each_part(&self, part: &mut dyn FnMut(&str));

    /// The part, if there is exactly one and it is at hand: reads from this process's memory are then a little quicker. It must be the one part
    /// that [`each_part`](Self::each_part) hands over, byte for byte, or reads would find another entry's value. Default: `None`.
    #[inline]
    fn only_part(&self) -> Option<&str> {
        None
    }
}

impl KeyParts for str {
    #[inline]
    fn only_part(&self) -> Option<&str> {
        Some(self)
    }

    #[inline]
    fn each_part(&self, part: &mut dyn FnMut(&str)) {
        part(self);
    }
}

impl KeyParts for String {
    #[inline]
    fn only_part(&self) -> Option<&str> {
        Some(self)
    }

    #[inline]
    fn each_part(&self, part: &mut dyn FnMut(&str)) {
        part(self);
    }
}

impl<S: AsRef<str>> KeyParts for [S] {
    #[inline]
    fn only_part(&self) -> Option<&str> {
        if let [one] = self { Some(one.as_ref()) } else { None }
    }

    #[inline]
    fn each_part(&self, part: &mut dyn FnMut(&str)) {
        for p in self {
            part(p.as_ref());
        }
    }
}

impl<S: AsRef<str>, const N: usize> KeyParts for [S; N] {
    #[inline]
    fn each_part(&self, part: &mut dyn FnMut(&str)) {
        self.as_slice().each_part(part);
    }
}

impl<S: AsRef<str>> KeyParts for Vec<S> {
    #[inline]
    fn only_part(&self) -> Option<&str> {
        self.as_slice().only_part()
    }

    #[inline]
    fn each_part(&self, part: &mut dyn FnMut(&str)) {
        self.as_slice().each_part(part);
    }
}

impl<K: KeyParts + ?Sized> KeyParts for &K {
    #[inline]
    fn only_part(&self) -> Option<&str> {
        (**self).only_part()
    }

    #[inline]
    fn each_part(&self, part: &mut dyn FnMut(&str)) {
        (**self).each_part(part);
    }
}

/// `base:part:part`, with the parts escaped. The base is taken as it is.
pub(crate) fn join(base: &str, parts: &(impl KeyParts + ?Sized)) -> Result<String> {
    checked(joined(base, parts))
}

fn joined(base: &str, parts: &(impl KeyParts + ?Sized)) -> String {
    let mut key = String::with_capacity(base.len() + 32);
    key.push_str(base);
    parts.each_part(&mut |part| {
        key.push(':');
        push_escaped(&mut key, part);
    });
    key
}

/// As [`join`], for looking whether something is kept under the key: on the stack if it is short and nothing has to be escaped, and
/// unchecked, because nothing is kept under what can be no key.
#[inline]
pub(crate) fn with_joined<R>(
    base: &str,
    parts: &(impl KeyParts + ?Sized),
    look: impl FnOnce(&[u8]) -> R,
) -> R {
    let mut key = Joined::new();
    key.extend_from_slice(base.as_bytes());
    let mut is_plain = true;
    parts.each_part(&mut |part| {
        key.push(b':');
        is_plain &= !must_be_escaped(part);
        key.extend_from_slice(part.as_bytes());
    });
    if is_plain { look(&key) } else { look(joined(base, parts).as_bytes()) }
}

/// A key that is put together to be looked for; longer ones ask for memory.
pub(crate) type Joined = SmallVec<[u8; 128]>;

fn must_be_escaped(part: &str) -> bool {
    part.contains([':', '%'])
}

fn push_escaped(key: &mut String, part: &str) {
    if !must_be_escaped(part) {
        key.push_str(part);
        return;
    }
    for c in part.chars() {
        match c {
            ':' => key.push_str("%3A"),
            '%' => key.push_str("%25"),
            other => key.push(other),
        }
    }
}

/// Refuses what can be no key: nothing, too much, or a bookkeeping name.
pub(crate) fn checked(key: String) -> Result<String> {
    check(&key).map(|()| key)
}

fn check(key: &str) -> Result<()> {
    if key.is_empty() {
        return Err(bad("a key must not be empty"));
    }
    if key.len() > KEY_MAX {
        return Err(bad(format!("a key of {} bytes is too long; {KEY_MAX} are allowed", key.len())));
    }
    if key.starts_with(BOOKKEEPING_PREFIX) {
        return Err(bad(format!("keys that begin with {BOOKKEEPING_PREFIX} are the library's own")));
    }
    Ok(())
}

/// Refuses what keys cannot begin with, before the first `:`, because the library's own do.
pub(crate) fn checked_base(base: &str) -> Result<()> {
    if Some(base) == BOOKKEEPING_PREFIX.strip_suffix(':') {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "the keys of a region cannot begin with {BOOKKEEPING_PREFIX}, as the library's own do; give it another key base"
            ),
        ));
    }
    Ok(())
}

/// Refuses a name that could run into another region's keys.
pub(crate) fn checked_name(name: &str) -> Result<()> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || !name.chars().all(fits) {
        return Err(Error::new(
            ErrorKind::Config,
            format!("the region name {name:?} must consist of letters, digits, '_', '-' and '.'"),
        ));
    }
    Ok(())
}

fn bad(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::BadKey, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts() -> impl Strategy<Value = Vec<String>> {
        proptest::collection::vec("[a:%3A25]{0,4}", 0..4)
    }

    proptest! {
        #[test]
        fn different_parts_give_different_keys(a in parts(), b in parts()) {
            let same = join("r", &a).unwrap() == join("r", &b).unwrap();
            prop_assert_eq!(same, a == b);
        }

        #[test]
        fn no_region_runs_into_another(a in "[a-z_]{1,4}", b in "[a-z_]{1,4}", part in parts()) {
            let key = join(&b, &part).unwrap();
            if a != b {
                let prefix = format!("{a}:");
                prop_assert!(!key.starts_with(&prefix));
                prop_assert!(key != a);
            }
        }
    }

    #[test]
    fn keys_read_as_the_table_has_them() {
        assert_eq!(join("market_data", "BTC/USDT").unwrap(), "market_data:BTC/USDT");
        assert_eq!(join("market_data", &["BTC", "1h", "ohlcv"]).unwrap(), "market_data:BTC:1h:ohlcv");
        assert_eq!(join("market_data", "BTC/USDT:USDT").unwrap(), "market_data:BTC/USDT%3AUSDT");
    }

    #[test]
    fn what_can_be_no_key_is_refused() {
        for key in [String::new(), "x".repeat(KEY_MAX + 1), "mtcache:fill:{a}".into()] {
            assert_eq!(checked(key).unwrap_err().kind(), ErrorKind::BadKey);
        }
        assert!(checked_name("a:b").is_err() && checked_name("").is_err() && checked_name("a_b-c.d").is_ok());
    }
}
