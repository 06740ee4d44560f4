//! Sorted integers in one array, each as wide as the widest needs: the `intset` encoding of small sets of numbers.
//!
//! The width is 16, 32 or 64 bits and only ever grows, as in Redis.

use super::allocation::{reserve_class, vec_bytes};

/// A sorted set of integers.
#[derive(Debug, Clone)]
pub(super) enum IntSet {
    Narrow(Vec<i16>),
    Middle(Vec<i32>),
    Wide(Vec<i64>),
}

impl Default for IntSet {
    fn default() -> Self {
        Self::Narrow(Vec::new())
    }
}

impl IntSet {
    /// Number of integers.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Narrow(values) => values.len(),
            Self::Middle(values) => values.len(),
            Self::Wide(values) => values.len(),
        }
    }

    /// Heap bytes held, in O(1).
    pub(super) fn heap_bytes(&self) -> usize {
        match self {
            Self::Narrow(values) => vec_bytes::<i16>(values.capacity()),
            Self::Middle(values) => vec_bytes::<i32>(values.capacity()),
            Self::Wide(values) => vec_bytes::<i64>(values.capacity()),
        }
    }

    /// The integer at `index`, in ascending order.
    pub(super) fn get(&self, index: usize) -> Option<i64> {
        match self {
            Self::Narrow(values) => values.get(index).map(|&v| v.into()),
            Self::Middle(values) => values.get(index).map(|&v| v.into()),
            Self::Wide(values) => values.get(index).copied(),
        }
    }

    /// Whether `value` is there.
    pub(super) fn contains(&self, value: i64) -> bool {
        self.search(value).is_ok()
    }

    /// Adds `value`; returns whether it is new.
    pub(super) fn insert(&mut self, value: i64) -> bool {
        let Err(at) = self.search(value) else { return false };
        match self {
            Self::Narrow(values) => {
                let Ok(narrow) = i16::try_from(value) else {
                    *self = match i32::try_from(value) {
                        Ok(_) => Self::Middle(widened(values)),
                        Err(_) => Self::Wide(widened(values)),
                    };
                    return self.insert(value);
                };
                reserve_class(values, 1);
                values.insert(at, narrow);
            }
            Self::Middle(values) => {
                let Ok(middle) = i32::try_from(value) else {
                    *self = Self::Wide(widened(values));
                    return self.insert(value);
                };
                reserve_class(values, 1);
                values.insert(at, middle);
            }
            Self::Wide(values) => {
                reserve_class(values, 1);
                values.insert(at, value);
            }
        }
        true
    }

    /// Removes `value`; returns whether it was there.
    pub(super) fn remove(&mut self, value: i64) -> bool {
        self.search(value).is_ok_and(|at| self.remove_at(at).is_some())
    }

    /// Removes the integer at `index`.
    pub(super) fn remove_at(&mut self, index: usize) -> Option<i64> {
        match self {
            Self::Narrow(values) => take(values, index).map(i64::from),
            Self::Middle(values) => take(values, index).map(i64::from),
            Self::Wide(values) => take(values, index),
        }
    }

    fn search(&self, value: i64) -> Result<usize, usize> {
        match self {
            Self::Narrow(values) => values.binary_search_by(|&v| i64::from(v).cmp(&value)),
            Self::Middle(values) => values.binary_search_by(|&v| i64::from(v).cmp(&value)),
            Self::Wide(values) => values.binary_search(&value),
        }
    }
}

fn widened<N: Copy, W: From<N>>(values: &[N]) -> Vec<W> {
    let mut wide = Vec::new();
    reserve_class(&mut wide, values.len() + 1);
    wide.extend(values.iter().map(|&v| W::from(v)));
    wide
}

fn take<T>(values: &mut Vec<T>, index: usize) -> Option<T> {
    if index >= values.len() {
        return None;
    }
    let value = values.remove(index);
    if values.capacity() > 32 && values.len() < values.capacity() / 2 {
        values.shrink_to(values.len() + values.len() / 4);
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = i64> {
        prop_oneof![
            6 => -20_i64..20,
            2 => any::<i16>().prop_map(i64::from),
            1 => any::<i32>().prop_map(i64::from),
            1 => any::<i64>(),
        ]
    }

    proptest! {
        #[test]
        fn behaves_as_an_ordered_set(ops in prop::collection::vec((any::<bool>(), value()), 0..300)) {
            let mut ints = IntSet::default();
            let mut model = BTreeSet::new();
            for (adds, v) in ops {
                if adds {
                    prop_assert_eq!(ints.insert(v), model.insert(v));
                } else {
                    prop_assert_eq!(ints.remove(v), model.remove(&v));
                }
                prop_assert_eq!(ints.len(), model.len());
            }
            prop_assert!((0..ints.len()).filter_map(|i| ints.get(i)).eq(model.iter().copied()));
            prop_assert!(model.iter().all(|&v| ints.contains(v)));
        }
    }

    #[test]
    fn the_width_is_what_the_widest_needs() {
        let mut ints = IntSet::default();
        for v in 0..100 {
            ints.insert(v);
        }
        assert_eq!(ints.heap_bytes(), 224);
        ints.insert(40_000);
        assert!(matches!(ints, IntSet::Middle(_)));
        ints.insert(i64::MIN);
        assert!(matches!(ints, IntSet::Wide(_)));
        assert_eq!(ints.get(0), Some(i64::MIN));
    }
}
