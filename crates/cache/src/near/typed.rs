//! A shared value whose type only its readers know.
//!
//! As `Arc<dyn Any>`, but for how the type is asked for: by a number that a reader has, and the value's entry has too, so that nothing has to be
//! called within a hit. Invariants: a value is given only as what it is; a type has one number as long as the process lives, and two types have
//! the same only if that is 0. Deliberately absent: everything else.

use std::any::TypeId;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

/// So many types have a number of their own; values of others are asked for their type at every read.
const NUMBERED_TYPES: usize = u8::MAX as usize;

/// Any type that threads can share.
pub(crate) trait Typed: Send + Sync {
    fn is_of(&self, type_id: &TypeId) -> bool;
    fn type_number(&self) -> u8;
}

impl<T: Send + Sync + 'static> Typed for T {
    fn is_of(&self, type_id: &TypeId) -> bool {
        *type_id == TypeId::of::<T>()
    }

    fn type_number(&self) -> u8 {
        TypeNumber::<T>::own().number
    }
}

/// The number of a type; 0 if it has none.
pub(crate) struct TypeNumber<T> {
    number: u8,
    of: PhantomData<fn() -> T>,
}

impl<T: 'static> TypeNumber<T> {
    pub(crate) fn own() -> Self {
        Self { number: number(TypeId::of::<T>()), of: PhantomData }
    }
}

fn number(type_id: TypeId) -> u8 {
    // Each is locked only while a type is asked for for the first time: a fork in that moment would be all that could copy it so.
    static NUMBERED: [OnceLock<TypeId>; NUMBERED_TYPES] = [const { OnceLock::new() }; NUMBERED_TYPES];
    let place = NUMBERED.iter().position(|numbered| *numbered.get_or_init(|| type_id) == type_id);
    place.map_or(0, |place| place as u8 + 1)
}

impl<T> Clone for TypeNumber<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for TypeNumber<T> {}

impl<T> fmt::Debug for TypeNumber<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypeNumber").field(&self.number).finish()
    }
}

/// The value as what it is; none if it is something else.
///
/// # Safety
///
/// `number` is what the value gave as its type's.
#[allow(
    clippy::inline_always,
    reason = "what a hit is made of passes through memory wherever a call is left"
)]
#[inline(always)]
#[allow(unsafe_code, reason = "what `Arc::downcast` does for `Any`")]
pub(super) unsafe fn shared_as<T: Send + Sync + 'static>(
    value: &Arc<dyn Typed>,
    number: u8,
    own: TypeNumber<T>,
) -> Option<Arc<T>> {
    if number != own.number || number == 0 && !is_of::<T>(value) {
        return None;
    }
    let pointer: *const dyn Typed = Arc::into_raw(Arc::clone(value));
    // SAFETY: it was an `Arc<T>` before it was an `Arc<dyn Typed>`: no other type has that number, or else `is_of`, which is there once for all
    // types, says yes to its own alone.
    Some(unsafe { Arc::from_raw(pointer.cast::<T>()) })
}

#[cold]
fn is_of<T: 'static>(value: &Arc<dyn Typed>) -> bool {
    (**value).is_of(&TypeId::of::<T>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared<T: Send + Sync + 'static>(value: &Arc<dyn Typed>) -> Option<Arc<T>> {
        let number = (**value).type_number();
        // SAFETY: it is the value's.
        #[allow(unsafe_code, reason = "see there")]
        let [numbered, asked] = unsafe {
            let none = TypeNumber { number: 0, of: PhantomData };
            [shared_as::<T>(value, number, TypeNumber::own()), shared_as::<T>(value, 0, none)]
        };
        assert_eq!(numbered.is_some(), asked.is_some(), "by its number, and as if there had been none left");
        numbered
    }

    #[test]
    fn types_have_numbers_of_their_own_until_there_are_no_more() {
        assert_eq!(TypeNumber::<u64>::own().number, TypeNumber::<u64>::own().number);
        let numbers =
            [number(TypeId::of::<[u8; 1]>()), number(TypeId::of::<[u8; 2]>()), number(TypeId::of::<&str>())];
        assert!(numbers.iter().all(|number| *number != 0));
        assert!(numbers[0] != numbers[1] && numbers[1] != numbers[2] && numbers[0] != numbers[2]);
    }

    #[test]
    fn a_value_is_given_as_what_it_is_and_as_nothing_else() {
        let number: Arc<u64> = Arc::new(7);
        let value: Arc<dyn Typed> = Arc::<u64>::clone(&number);
        assert!(shared::<i64>(&value).is_none() && shared::<[u8; 8]>(&value).is_none());
        assert!(shared::<Arc<u64>>(&value).is_none() && shared::<()>(&value).is_none());
        let read = shared::<u64>(&value).unwrap();
        assert!(Arc::ptr_eq(&read, &number));
        assert_eq!(Arc::strong_count(&number), 3);
        drop((value, read));
        assert_eq!(Arc::strong_count(&number), 1);
        let nothing: Arc<dyn Typed> = Arc::new(());
        assert!(shared::<()>(&nothing).is_some() && shared::<u64>(&nothing).is_none());
        let text: Arc<dyn Typed> = Arc::new("text".to_owned());
        assert_eq!(shared::<String>(&text).unwrap().as_str(), "text");
        assert!(shared::<Vec<u8>>(&text).is_none());
    }

    #[test]
    fn a_type_has_one_number_even_if_many_ask_at_once() {
        let all = [
            TypeId::of::<[u16; 1]>(),
            TypeId::of::<[u16; 2]>(),
            TypeId::of::<[u16; 3]>(),
            TypeId::of::<[u16; 4]>(),
            TypeId::of::<[u16; 5]>(),
            TypeId::of::<[u16; 6]>(),
        ];
        let barrier = std::sync::Barrier::new(8);
        let given: Vec<[u8; 6]> = std::thread::scope(|scope| {
            let ask = |turn: usize| {
                let barrier = &barrier;
                move || {
                    barrier.wait();
                    let mut given = [0; 6];
                    for place in 0..6 {
                        let place = (place + turn) % 6;
                        given[place] = number(all[place]);
                    }
                    given
                }
            };
            let threads: Vec<_> = (0..8).map(|turn| scope.spawn(ask(turn))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(given.iter().all(|numbers| *numbers == given[0]), "{given:?}");
        let mut numbers = given[0].to_vec();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 6, "{given:?}");
    }
}
