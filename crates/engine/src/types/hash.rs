//! The hash type: fields with values, `listpack` while small and `hashtable` beyond.
//!
//! In the large encoding a field and its value share one allocation, and none when both are short. Arithmetic on
//! values (HINCRBY and its like) is deliberately not here.

use super::{
    blob::{Blob, KeyHash},
    dense::{DenseIter, DenseTable, Record},
    limits::{EncodingLimits, PACKED_MAX_BYTES},
    packed::{Packed, PackedIter, Position, VARINT_MAX, decode_varint, encode_varint},
};

/// A hash: a map from fields to values.
#[derive(Debug, Clone, Default)]
pub struct Hash(Encoding);

#[derive(Debug, Clone)]
enum Encoding {
    /// Field, value, field, value; in the order in which the fields came.
    Listpack(Packed),
    Table(Box<DenseTable<Pair>>),
}

impl Default for Encoding {
    fn default() -> Self {
        Self::Listpack(Packed::new())
    }
}

impl Hash {
    /// Creates an empty hash; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Name of the encoding as OBJECT ENCODING reports it.
    pub fn encoding(&self) -> &'static str {
        match &self.0 {
            Encoding::Listpack(_) => "listpack",
            Encoding::Table(_) => "hashtable",
        }
    }

    /// Heap bytes held, in O(1).
    pub fn heap_bytes(&self) -> usize {
        match &self.0 {
            Encoding::Listpack(packed) => packed.heap_bytes(),
            Encoding::Table(table) => {
                super::allocation_size(size_of::<DenseTable<Pair>>()) + table.heap_bytes()
            }
        }
    }

    /// Asks the memory for these fields, before they are needed.
    pub(crate) fn prefetch<'k>(&self, fields: impl Iterator<Item = &'k [u8]>) {
        if let Encoding::Table(table) = &self.0 {
            table.prefetch(fields);
        }
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        match &self.0 {
            Encoding::Listpack(packed) => packed.len() / 2,
            Encoding::Table(table) => table.len(),
        }
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of `field`.
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        match &self.0 {
            Encoding::Listpack(packed) => packed.at(value_of(packed, field)?),
            Encoding::Table(table) => table.get(table.find(KeyHash::of(field), field)?).map(Pair::value),
        }
    }

    /// Whether `field` is there.
    pub fn contains(&self, field: &[u8]) -> bool {
        match &self.0 {
            Encoding::Listpack(packed) => packed.find(field, 2).is_some(),
            Encoding::Table(table) => table.find(KeyHash::of(field), field).is_some(),
        }
    }

    /// Sets `field` to `value`; returns whether the field is new.
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: &EncodingLimits) -> bool {
        self.prepare(field.len().max(value.len()), limits);
        match &mut self.0 {
            Encoding::Listpack(packed) => {
                let known = value_of(packed, field);
                if let Some(at) = known {
                    packed.replace(at, value);
                } else {
                    packed.push_back(field);
                    packed.push_back(value);
                }
                // Also where a value was replaced: it may have grown, and the limits may have been lowered.
                if packed.len() / 2 > limits.hash_max_listpack_entries || packed.byte_len() > PACKED_MAX_BYTES
                {
                    self.convert();
                }
                known.is_none()
            }
            Encoding::Table(table) => set_in_table(table, field, value),
        }
    }

    /// Leaves the `listpack` encoding if a field or value of `longest` bytes may not be stored in it.
    fn prepare(&mut self, longest: usize, limits: &EncodingLimits) {
        if longest > limits.hash_max_listpack_value {
            self.convert();
        }
    }

    /// Removes `field`; returns whether it was there.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.0 {
            Encoding::Listpack(packed) => {
                packed.find(field, 2).is_some_and(|(_, at)| packed.remove(at, 2) > 0)
            }
            Encoding::Table(table) => {
                let found = table.find(KeyHash::of(field), field);
                found.and_then(|index| table.swap_remove(index)).is_some()
            }
        }
    }

    /// Iterates over fields and values, in no promised order.
    pub fn iter(&self) -> HashIter<'_> {
        HashIter(match &self.0 {
            Encoding::Listpack(packed) => Source::Listpack(packed.iter()),
            Encoding::Table(table) => Source::Table(table.iter()),
        })
    }

    /// The field and value at `index` of [`Hash::iter`]; O(1) in the large encoding, for random choices.
    pub fn by_index(&self, index: usize) -> Option<(&[u8], &[u8])> {
        match &self.0 {
            Encoding::Listpack(packed) => {
                let field = packed.position(index.checked_mul(2)?)?;
                Some((packed.at(field)?, packed.at(packed.after(field)?)?))
            }
            Encoding::Table(table) => table.get(index).map(Pair::parts),
        }
    }

    /// One step of a scan: the next cursor, and fields with their values.
    ///
    /// Cursor 0 begins a scan, and 0 as the next cursor ends it. A field that is there during the whole scan is
    /// reported, perhaps twice. About `count` fields are reported at a time, but a small hash as a whole.
    pub fn scan(&self, cursor: u64, count: usize) -> (u64, HashIter<'_>) {
        match &self.0 {
            Encoding::Listpack(_) => (0, self.iter()),
            Encoding::Table(table) => {
                let (next, found) = table.scan(cursor, count);
                (next, HashIter(Source::Table(found)))
            }
        }
    }

    fn convert(&mut self) {
        let Encoding::Listpack(packed) = &self.0 else { return };
        let mut table = Box::new(DenseTable::with_capacity(packed.len() / 2));
        for (field, value) in self.iter() {
            set_in_table(&mut table, field, value);
        }
        self.0 = Encoding::Table(table);
    }
}

impl<'a> IntoIterator for &'a Hash {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = HashIter<'a>;

    fn into_iter(self) -> HashIter<'a> {
        self.iter()
    }
}

/// Iterator over the fields and values of a [`Hash`](struct@Hash).
#[derive(Debug, Clone)]
pub struct HashIter<'a>(Source<'a>);

#[derive(Debug, Clone)]
enum Source<'a> {
    Listpack(PackedIter<'a>),
    Table(DenseIter<'a, Pair>),
}

impl<'a> Iterator for HashIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::Listpack(iter) => Some((iter.next()?, iter.next()?)),
            Source::Table(iter) => iter.next().map(Pair::parts),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = match &self.0 {
            Source::Listpack(iter) => iter.len() / 2,
            Source::Table(iter) => iter.len(),
        };
        (len, Some(len))
    }
}

impl ExactSizeIterator for HashIter<'_> {}

/// Finds the place of a field's value.
fn value_of(packed: &Packed, field: &[u8]) -> Option<Position> {
    let (_, at) = packed.find(field, 2)?;
    packed.after(at)
}

fn set_in_table(table: &mut DenseTable<Pair>, field: &[u8], value: &[u8]) -> bool {
    let hash = KeyHash::of(field);
    match table.insert_with(hash, field, || Pair::new(hash, field, value)) {
        Some((_, true)) => true,
        Some((index, false)) => {
            table.update(index, |pair| pair.set_value(hash, field, value));
            false
        }
        None => false,
    }
}

/// A field and its value in one byte string: the field's length (LEB128), the field, the value.
#[derive(Debug, Clone)]
struct Pair(Blob);

impl Pair {
    fn new(hash: KeyHash, field: &[u8], value: &[u8]) -> Self {
        let mut header = [0; VARINT_MAX];
        let header = encode_varint(field.len(), &mut header);
        Self(Blob::new(hash, &[header, field, value]))
    }

    fn set_value(&mut self, hash: KeyHash, field: &[u8], value: &[u8]) {
        let start = self.0.bytes().len() - self.value().len();
        match self.0.bytes_mut().get_mut(start..) {
            Some(old) if old.len() == value.len() => old.copy_from_slice(value),
            _ => *self = Self::new(hash, field, value),
        }
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        split_pair(self.0.bytes())
    }

    fn value(&self) -> &[u8] {
        self.parts().1
    }
}

#[inline]
fn split_pair(bytes: &[u8]) -> (&[u8], &[u8]) {
    let (len, rest) = match bytes.split_first() {
        Some((&short, rest)) if short < 0x80 => (usize::from(short), rest),
        _ => {
            let (len, header) = decode_varint(bytes.iter()).unwrap_or_default();
            (len, bytes.get(header..).unwrap_or_default())
        }
    };
    rest.split_at_checked(len).unwrap_or_default()
}

impl Record for Pair {
    #[inline]
    fn key(&self) -> &[u8] {
        self.parts().0
    }

    #[inline]
    fn key_hash(&self) -> KeyHash {
        self.0.hash(|bytes| split_pair(bytes).0)
    }

    #[inline]
    fn heap_bytes(&self) -> usize {
        self.0.heap_bytes()
    }

    #[inline]
    fn prefetch(&self) {
        self.0.prefetch();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const SMALL: EncodingLimits = EncodingLimits {
        hash_max_listpack_entries: 8,
        hash_max_listpack_value: 20,
        ..EncodingLimits::DEFAULT
    };

    #[derive(Debug, Clone)]
    enum Op {
        Set(u16, Vec<u8>),
        Remove(u16),
    }

    fn op(fields: u16) -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => (0..fields, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(f, v)| Op::Set(f, v)),
            1 => (0..fields).prop_map(Op::Remove),
        ]
    }

    fn field(i: u16) -> Vec<u8> {
        match i % 5 {
            0 => format!("{i:0>150}").into_bytes(),
            _ => format!("f{i}").into_bytes(),
        }
    }

    fn check(ops: Vec<Op>, limits: &EncodingLimits) -> Result<(), TestCaseError> {
        let mut hash = Hash::new();
        let mut model: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        let mut large = false;
        for op in ops {
            match op {
                Op::Set(f, v) => {
                    let f = field(f);
                    large |= f.len().max(v.len()) > limits.hash_max_listpack_value;
                    prop_assert_eq!(hash.set(&f, &v, limits), model.insert(f, v).is_none());
                }
                Op::Remove(f) => prop_assert_eq!(hash.remove(&field(f)), model.remove(&field(f)).is_some()),
            }
            large |= model.len() > limits.hash_max_listpack_entries;
            prop_assert_eq!(hash.encoding(), if large { "hashtable" } else { "listpack" });
            prop_assert_eq!(hash.len(), model.len());
        }
        let found: BTreeMap<Vec<u8>, Vec<u8>> = hash.iter().map(|(f, v)| (f.to_vec(), v.to_vec())).collect();
        prop_assert_eq!(&found, &model);
        prop_assert_eq!(hash.iter().len(), model.len());
        for (i, (f, v)) in hash.iter().enumerate() {
            prop_assert_eq!(hash.by_index(i), Some((f, v)));
            prop_assert_eq!(hash.get(f), Some(v));
            prop_assert!(hash.contains(f));
        }
        prop_assert_eq!(hash.by_index(model.len()), None);
        prop_assert_eq!(hash.get(b"absent"), None);
        Ok(())
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(ops in prop::collection::vec(op(700), 0..1500)) {
            check(ops, &EncodingLimits::DEFAULT)?;
        }

        #[test]
        fn behaves_as_a_map_around_the_thresholds(ops in prop::collection::vec(op(20), 0..60)) {
            check(ops, &SMALL)?;
        }

        #[test]
        fn a_scan_of_a_changing_hash_reports_every_field_that_stays(
            size in 1_u16..900,
            count in 1_usize..100,
            changes in prop::collection::vec(op(1200), 0..300),
        ) {
            let mut hash = Hash::new();
            for i in 0..size {
                hash.set(&field(i), b"v", &EncodingLimits::DEFAULT);
            }
            let mut stays: BTreeMap<Vec<u8>, bool> = (0..size).map(|i| (field(i), false)).collect();
            let mut changes = changes.into_iter();
            let mut cursor = 0;
            loop {
                let (next, found) = hash.scan(cursor, count);
                for (f, _) in found {
                    stays.entry(f.to_vec()).and_modify(|seen| *seen = true);
                }
                cursor = next;
                if cursor == 0 {
                    break;
                }
                for op in changes.by_ref().take(25) {
                    match op {
                        Op::Set(f, v) => { hash.set(&field(f), &v, &EncodingLimits::DEFAULT); }
                        Op::Remove(f) => {
                            hash.remove(&field(f));
                            stays.remove(&field(f));
                        }
                    }
                }
            }
            prop_assert!(stays.values().all(|&seen| seen));
        }
    }

    #[test]
    fn conversion_happens_one_past_the_default_thresholds() {
        let mut hash = Hash::new();
        for i in 0..512 {
            hash.set(format!("f{i}").as_bytes(), &[b'x'; 64], &EncodingLimits::DEFAULT);
        }
        assert_eq!(hash.encoding(), "listpack");
        hash.set(b"f512", b"", &EncodingLimits::DEFAULT);
        assert_eq!(hash.encoding(), "hashtable");

        let mut hash = Hash::new();
        hash.set(b"f", &[b'x'; 65], &EncodingLimits::DEFAULT);
        assert_eq!(hash.encoding(), "hashtable");
    }
}
