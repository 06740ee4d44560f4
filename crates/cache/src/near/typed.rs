//! A shared value whose type only its readers know.
//!
//! As `Arc<dyn Any>`, but for how the type is asked for: the standard library's answer is a type's number, written to memory in two pieces and read
//! back at once in one, for which the processor waits as long as for the rest of a look-up. Here the number that is meant is handed over.
//! Invariant: a value is given only as what it is. Deliberately absent: everything else.

use std::any::TypeId;
use std::sync::Arc;

/// Any type that threads can share.
pub(crate) trait Typed: Send + Sync {
    fn is_of(&self, type_id: &TypeId) -> bool;
}

impl<T: Send + Sync + 'static> Typed for T {
    #[inline]
    fn is_of(&self, type_id: &TypeId) -> bool {
        *type_id == TypeId::of::<T>()
    }
}

/// The value as what it is; none if it is something else.
#[inline]
#[allow(unsafe_code, reason = "what `Arc::downcast` does for `Any`")]
pub(super) fn shared_as<T: Send + Sync + 'static>(value: &Arc<dyn Typed>) -> Option<Arc<T>> {
    if !(**value).is_of(&const { TypeId::of::<T>() }) {
        return None;
    }
    let pointer: *const dyn Typed = Arc::into_raw(Arc::clone(value));
    // SAFETY: it was an `Arc<T>` before it was an `Arc<dyn Typed>`, because `is_of` is there once for all types and says yes to its own alone.
    Some(unsafe { Arc::from_raw(pointer.cast::<T>()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_given_as_what_it_is_and_as_nothing_else() {
        let number: Arc<u64> = Arc::new(7);
        let value: Arc<dyn Typed> = Arc::<u64>::clone(&number);
        assert!(shared_as::<i64>(&value).is_none() && shared_as::<[u8; 8]>(&value).is_none());
        assert!(shared_as::<Arc<u64>>(&value).is_none() && shared_as::<()>(&value).is_none());
        let shared = shared_as::<u64>(&value).unwrap();
        assert!(Arc::ptr_eq(&shared, &number));
        assert_eq!(Arc::strong_count(&number), 3);
        drop((value, shared));
        assert_eq!(Arc::strong_count(&number), 1);
        let nothing: Arc<dyn Typed> = Arc::new(());
        assert!(shared_as::<()>(&nothing).is_some() && shared_as::<u64>(&nothing).is_none());
        let text: Arc<dyn Typed> = Arc::new("text".to_owned());
        assert_eq!(shared_as::<String>(&text).unwrap().as_str(), "text");
        assert!(shared_as::<Vec<u8>>(&text).is_none());
    }
}
