//! What `#[cached]` expands to: a function whose answers are entries of a region, named by its arguments.
//!
//! Invariant: calls with different arguments have different keys (hazard: an argument that is missing from the key, so that every symbol
//! shares one answer). So there is no key form by accident, such as `Debug`: [`KeyArgument`] is implemented for what has one.
//! Deliberately absent: the macro.

use std::borrow::{Borrow, Cow};
use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cache::Cache;
use crate::error::Result;
use crate::keys::KeyParts;
use crate::region::{Region, RegionPolicy};

/// How many caches one function is used with at the same time; a region of an earlier one is made again.
const MAX_CACHES: usize = 16;

/// An argument that can be part of a key. Within one type different values write different texts.
///
/// Implemented for texts, numbers, `bool`, `char`, and for references, options, lists, arrays and tuples of what is. For a type of your own:
///
/// ```
/// use mtcache_cache::KeyArgument;
///
/// enum Side { Buy, Sell }
///
/// impl KeyArgument for Side {
///     fn write_key(&self, key: &mut String) {
///         key.push_str(match self { Self::Buy => "buy", Self::Sell => "sell" });
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` has no key form, so it cannot be an argument of a cached function",
    label = "this argument would be missing from the key",
    note = "implement `KeyArgument` for it, or name it in `skip(...)` if the answer does not depend on it"
)]
pub trait KeyArgument {
    /// Appends the value's text, and nothing that another value of this type could have written.
    fn write_key(&self, key: &mut String);
}

impl KeyArgument for str {
    fn write_key(&self, key: &mut String) {
        key.push_str(self);
    }
}

macro_rules! by_display {
    ($($type:ty),*) => {
        $(impl KeyArgument for $type {
            fn write_key(&self, key: &mut String) {
                // Writing to a text does not fail.
                let _ = write!(key, "{self}");
            }
        })*
    };
}

// Floats are written with as many digits as tell them apart.
by_display!(u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, f32, f64, bool, char, String);

macro_rules! by_what_it_holds {
    ($($type:ty),*) => {
        $(impl<T: KeyArgument + ?Sized> KeyArgument for $type {
            fn write_key(&self, key: &mut String) {
                (**self).write_key(key);
            }
        })*
    };
}

by_what_it_holds!(&T, Box<T>, Arc<T>, Rc<T>);

impl<T: KeyArgument + ToOwned + ?Sized> KeyArgument for Cow<'_, T> {
    fn write_key(&self, key: &mut String) {
        (**self).write_key(key);
    }
}

impl<T: KeyArgument> KeyArgument for Option<T> {
    fn write_key(&self, key: &mut String) {
        match self {
            None => key.push('-'),
            Some(value) => {
                key.push('+');
                value.write_key(key);
            }
        }
    }
}

/// One of several in a text, with its length before it.
fn write_item(item: &(impl KeyArgument + ?Sized), key: &mut String) {
    let mut text = String::new();
    item.write_key(&mut text);
    let _ = write!(key, "{}.{text}", text.len());
}

impl<T: KeyArgument> KeyArgument for [T] {
    fn write_key(&self, key: &mut String) {
        for item in self {
            write_item(item, key);
        }
    }
}

impl<T: KeyArgument> KeyArgument for Vec<T> {
    fn write_key(&self, key: &mut String) {
        self.as_slice().write_key(key);
    }
}

impl<T: KeyArgument, const N: usize> KeyArgument for [T; N] {
    fn write_key(&self, key: &mut String) {
        self.as_slice().write_key(key);
    }
}

macro_rules! tuples {
    ($(($($name:ident),*))*) => {
        $(impl<$($name: KeyArgument),*> KeyArgument for ($($name,)*) {
            #[allow(non_snake_case, reason = "a tuple's parts are named by their types")]
            fn write_key(&self, key: &mut String) {
                let ($($name,)*) = self;
                $(write_item($name, key);)*
            }
        })*
    };
}

tuples! { (A) (A, B) (A, B, C) (A, B, C, D) }

/// The arguments of one call, as the parts of a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CallKey(Vec<String>);

impl CallKey {
    /// No arguments yet. The function's path stands first where the region is not its own.
    pub fn new(function: Option<&str>) -> Self {
        Self(function.map(dotted).into_iter().collect())
    }

    /// With one argument more.
    #[must_use]
    pub fn with<A: KeyArgument + ?Sized>(mut self, argument: &A) -> Self {
        let mut text = String::new();
        argument.write_key(&mut text);
        self.0.push(text);
        self
    }
}

impl KeyParts for CallKey {
    fn only_part(&self) -> Option<&str> {
        self.0.only_part()
    }

    fn each_part(&self, part: &mut dyn FnMut(&str)) {
        if self.0.is_empty() {
            // A function without arguments has one answer.
            part("");
        }
        self.0.each_part(part);
    }
}

/// A path of Rust as a name for a region: `prices::nvt` is `prices.nvt`.
pub fn dotted(path: &str) -> String {
    path.replace("::", ".")
}

/// A cached function's region in each of the caches that it is used with. Made by `#[cached]` as a `static`.
pub struct CallSite<T> {
    regions: Mutex<Vec<Region<T>>>,
}

impl<T: 'static> CallSite<T> {
    /// Used with no cache yet.
    #[allow(clippy::new_without_default, reason = "for statics, where a default is of no use")]
    pub const fn new() -> Self {
        Self { regions: Mutex::new(Vec::new()) }
    }

    /// The function's region in this cache; made with the policy the first time.
    pub fn region(
        &self,
        cache: impl Borrow<Cache>,
        policy: impl FnOnce() -> RegionPolicy,
    ) -> Result<Region<T>> {
        let cache = cache.borrow();
        let mut regions = self.regions.lock();
        if let Some(region) = regions.iter().find(|region| region.cache().is_same_as(cache)) {
            return Ok(region.clone());
        }
        let region = cache.region(policy())?;
        if regions.len() >= MAX_CACHES {
            regions.remove(0);
        }
        regions.push(region.clone());
        Ok(region)
    }
}

impl<T> std::fmt::Debug for CallSite<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallSite").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::keys::join;

    fn text() -> impl Strategy<Value = String> {
        "[a:%.+0-3-]{0,4}"
    }

    type Arguments = (String, Option<Option<String>>, Vec<String>, (String, u8), f64);

    fn arguments() -> impl Strategy<Value = Arguments> {
        let list = proptest::collection::vec(text(), 0..4);
        let option = proptest::option::of(proptest::option::of(text()));
        (text(), option, list, (text(), 0..3_u8), proptest::sample::select(vec![0.0, -0.0, 0.1, 1e300]))
    }

    fn key((text, option, list, pair, number): &Arguments) -> String {
        let key = CallKey::new(None).with(text.as_str()).with(option).with(&list[..]).with(pair).with(number);
        join("r", &key).unwrap()
    }

    proptest! {
        #[test]
        fn calls_with_different_arguments_have_different_keys(a in arguments(), b in arguments()) {
            let same = a == b && a.4.to_bits() == b.4.to_bits();
            prop_assert_eq!(key(&a) == key(&b), same);
        }

        #[test]
        fn lists_of_lists_are_told_apart(
            a in proptest::collection::vec(proptest::collection::vec(text(), 0..3), 0..3),
            b in proptest::collection::vec(proptest::collection::vec(text(), 0..3), 0..3),
        ) {
            let key = |lists: &Vec<Vec<String>>| CallKey::new(None).with(lists);
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }
    }

    #[test]
    fn plain_arguments_stay_readable() {
        let key = CallKey::new(Some("prices::nvt")).with("BTC").with(&7).with(&Some(true));
        assert_eq!(join("metrics", &key).unwrap(), "metrics:prices.nvt:BTC:7:+true");
        assert_eq!(join("metrics", &CallKey::new(None)).unwrap(), "metrics:");
    }
}
