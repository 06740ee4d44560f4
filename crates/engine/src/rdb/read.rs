//! Reads one value, in any of the forms that Redis has written since its beginnings.
//!
//! Invariant: what comes out is exactly what the ordinary commands would have made of the same elements, encoding
//! included. Nothing is kept of a value that turns out to be broken.

use super::listpack::{Digits, Items, intset, listpack, ziplist, zipmap};
use super::source::{Source, array, byte, count, length, string};
use super::{Damage, Fault, ValueKind};
use crate::keyspace::Value;
use crate::types::{EncodingLimits, Hash, List, ListEnd, ScoreChange, Set, SortedSet};

/// A value that is not stored under any key yet.
#[derive(Debug)]
pub struct Object(pub(crate) Content);

/// What an [`Object`] is.
#[derive(Debug)]
pub(crate) enum Content {
    String(Vec<u8>),
    Collection(Value),
}

impl Object {
    /// The name of its type, as TYPE shows it.
    pub fn type_name(&self) -> &'static str {
        match &self.0 {
            Content::String(_) => "string",
            Content::Collection(Value::Hash(_)) => "hash",
            Content::Collection(Value::List(_)) => "list",
            Content::Collection(Value::Set(_)) => "set",
            Content::Collection(Value::SortedSet(_)) => "zset",
        }
    }
}

/// Reads a value of this kind, converting it to the encoding that `limits` ask for.
pub fn read_object<S: Source + ?Sized>(
    source: &mut S,
    kind: ValueKind,
    limits: &EncodingLimits,
) -> Result<Object, Fault> {
    let value = match kind {
        ValueKind::String => {
            let mut text = Vec::new();
            string(source, &mut text)?;
            return Ok(Object(Content::String(text)));
        }
        ValueKind::List => Value::List(Box::new(list_of_strings(source, limits)?)),
        ValueKind::ListZiplist => {
            let mut list = List::new();
            let packed = packed(source)?;
            push_all(&mut list, ziplist(&packed)?, limits)?;
            Value::List(Box::new(list))
        }
        ValueKind::ListOfZiplists => Value::List(Box::new(list_of_ziplists(source, limits)?)),
        ValueKind::ListOfListpacks => Value::List(Box::new(list_of_listpacks(source, limits)?)),
        ValueKind::Set => Value::Set(Box::new(set_of_strings(source, limits)?)),
        ValueKind::SetIntset => {
            let mut set = Set::new();
            let mut digits = itoa::Buffer::new();
            for value in intset(&packed(source)?)? {
                add_member(&mut set, digits.format(value).as_bytes(), limits)?;
            }
            Value::Set(Box::new(set))
        }
        ValueKind::SetListpack => {
            let mut set = Set::new();
            let mut digits = Digits::default();
            for item in listpack(&packed(source)?)? {
                add_member(&mut set, item?.bytes(&mut digits), limits)?;
            }
            Value::Set(Box::new(set))
        }
        ValueKind::SortedSet | ValueKind::SortedSetText => {
            Value::SortedSet(Box::new(sorted_set_of_strings(source, kind, limits)?))
        }
        ValueKind::SortedSetZiplist => {
            Value::SortedSet(Box::new(sorted_set(ziplist(&packed(source)?)?, limits)?))
        }
        ValueKind::SortedSetListpack => {
            Value::SortedSet(Box::new(sorted_set(listpack(&packed(source)?)?, limits)?))
        }
        ValueKind::Hash => Value::Hash(Box::new(hash_of_strings(source, limits)?)),
        ValueKind::HashZipmap => {
            let mut hash = Hash::new();
            for pair in zipmap(&packed(source)?)?.chunks_exact(2) {
                if let [field, value] = pair {
                    set_field(&mut hash, field, value, limits)?;
                }
            }
            Value::Hash(Box::new(hash))
        }
        ValueKind::HashZiplist => Value::Hash(Box::new(hash(ziplist(&packed(source)?)?, limits)?)),
        ValueKind::HashListpack => Value::Hash(Box::new(hash(listpack(&packed(source)?)?, limits)?)),
    };
    if is_empty(&value) { Err(Fault::Empty) } else { Ok(Object(Content::Collection(value))) }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Hash(hash) => hash.is_empty(),
        Value::List(list) => list.is_empty(),
        Value::Set(set) => set.is_empty(),
        Value::SortedSet(set) => set.is_empty(),
    }
}

/// The string that holds a packed collection.
fn packed<S: Source + ?Sized>(source: &mut S) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    string(source, &mut bytes)?;
    Ok(bytes)
}

fn push_all(list: &mut List, items: Items<'_>, limits: &EncodingLimits) -> Result<(), Fault> {
    let mut digits = Digits::default();
    for item in items {
        list.push(ListEnd::Back, item?.bytes(&mut digits), limits);
    }
    Ok(())
}

fn list_of_strings<S: Source + ?Sized>(source: &mut S, limits: &EncodingLimits) -> Result<List, Fault> {
    let mut list = List::new();
    let mut element = Vec::new();
    for _ in 0..count(source, 1)? {
        string(source, &mut element)?;
        list.push(ListEnd::Back, &element, limits);
    }
    Ok(list)
}

fn list_of_ziplists<S: Source + ?Sized>(source: &mut S, limits: &EncodingLimits) -> Result<List, Fault> {
    let mut list = List::new();
    let mut bytes = Vec::new();
    for _ in 0..count(source, 1)? {
        string(source, &mut bytes)?;
        push_all(&mut list, ziplist(&bytes)?, limits)?;
    }
    Ok(list)
}

fn list_of_listpacks<S: Source + ?Sized>(source: &mut S, limits: &EncodingLimits) -> Result<List, Fault> {
    const PLAIN: u64 = 1;
    const PACKED: u64 = 2;
    let mut list = List::new();
    let mut bytes = Vec::new();
    for _ in 0..count(source, 2)? {
        let container = length(source)?;
        string(source, &mut bytes)?;
        match container {
            PLAIN => list.push(ListEnd::Back, &bytes, limits),
            PACKED => push_all(&mut list, listpack(&bytes)?, limits)?,
            _ => return Err(Fault::Damaged(Damage::Packed)),
        }
    }
    Ok(list)
}

fn add_member(set: &mut Set, member: &[u8], limits: &EncodingLimits) -> Result<(), Fault> {
    if set.add(member, limits) { Ok(()) } else { Err(Fault::Damaged(Damage::Duplicate)) }
}

fn set_of_strings<S: Source + ?Sized>(source: &mut S, limits: &EncodingLimits) -> Result<Set, Fault> {
    let mut set = Set::new();
    let mut member = Vec::new();
    for _ in 0..count(source, 1)? {
        string(source, &mut member)?;
        add_member(&mut set, &member, limits)?;
    }
    Ok(set)
}

fn set_field(hash: &mut Hash, field: &[u8], value: &[u8], limits: &EncodingLimits) -> Result<(), Fault> {
    if hash.set(field, value, limits) { Ok(()) } else { Err(Fault::Damaged(Damage::Duplicate)) }
}

fn hash_of_strings<S: Source + ?Sized>(source: &mut S, limits: &EncodingLimits) -> Result<Hash, Fault> {
    let mut hash = Hash::new();
    let (mut field, mut value) = (Vec::new(), Vec::new());
    for _ in 0..count(source, 2)? {
        string(source, &mut field)?;
        string(source, &mut value)?;
        set_field(&mut hash, &field, &value, limits)?;
    }
    Ok(hash)
}

fn hash(mut items: Items<'_>, limits: &EncodingLimits) -> Result<Hash, Fault> {
    let mut hash = Hash::new();
    let (mut field_digits, mut value_digits) = (Digits::default(), Digits::default());
    while let Some(field) = items.next() {
        let (field, value) = (field?, items.next().ok_or(Fault::Damaged(Damage::Odd))??);
        set_field(&mut hash, field.bytes(&mut field_digits), value.bytes(&mut value_digits), limits)?;
    }
    Ok(hash)
}

fn sorted_set_of_strings<S: Source + ?Sized>(
    source: &mut S,
    kind: ValueKind,
    limits: &EncodingLimits,
) -> Result<SortedSet, Fault> {
    // As Redis: made large and packed at the end if it turns out small, which keeps the sign of zero where it can be kept.
    let mut set = SortedSet::new_large();
    let mut member = Vec::new();
    for _ in 0..count(source, 2)? {
        string(source, &mut member)?;
        let score = match kind {
            ValueKind::SortedSet => f64::from_bits(u64::from_le_bytes(array(source)?)),
            _ => text_score(source)?,
        };
        add_scored(&mut set, &member, score, limits)?;
    }
    set.pack_if_small(limits);
    Ok(set)
}

fn sorted_set(mut items: Items<'_>, limits: &EncodingLimits) -> Result<SortedSet, Fault> {
    let mut set = SortedSet::new();
    let (mut member_digits, mut score_digits) = (Digits::default(), Digits::default());
    while let Some(member) = items.next() {
        let (member, score) = (member?, items.next().ok_or(Fault::Damaged(Damage::Odd))??);
        let score = parse_score(score.bytes(&mut score_digits))?;
        add_scored(&mut set, member.bytes(&mut member_digits), score, limits)?;
    }
    Ok(set)
}

fn add_scored(set: &mut SortedSet, member: &[u8], score: f64, limits: &EncodingLimits) -> Result<(), Fault> {
    if score.is_nan() {
        return Err(Fault::Damaged(Damage::Score));
    }
    match set.insert(member, score, limits) {
        ScoreChange::Added => Ok(()),
        _ => Err(Fault::Damaged(Damage::Duplicate)),
    }
}

/// A score as a short text, or as one of three bytes for what has no digits.
fn text_score<S: Source + ?Sized>(source: &mut S) -> Result<f64, Fault> {
    match byte(source)? {
        253 => Ok(f64::NAN),
        254 => Ok(f64::INFINITY),
        255 => Ok(f64::NEG_INFINITY),
        len => parse_score(source.take(usize::from(len))?),
    }
}

fn parse_score(text: &[u8]) -> Result<f64, Fault> {
    crate::commands::parse::double(text).ok_or(Fault::Damaged(Damage::Score))
}

/// Passes over the values that a module has left in a file, up to their end. Bounded by what is left.
pub fn skip_module_value<S: Source + ?Sized>(source: &mut S) -> Result<(), Fault> {
    const END: u64 = 0;
    const SIGNED: u64 = 1;
    const UNSIGNED: u64 = 2;
    const FLOAT: u64 = 3;
    const DOUBLE: u64 = 4;
    const STRING: u64 = 5;
    let mut text = Vec::new();
    loop {
        match length(source)? {
            END => return Ok(()),
            SIGNED | UNSIGNED => {
                length(source)?;
            }
            FLOAT => {
                source.take(4)?;
            }
            DOUBLE => {
                source.take(8)?;
            }
            STRING => string(source, &mut text)?,
            _ => return Err(Fault::Damaged(Damage::Kind)),
        }
    }
}
