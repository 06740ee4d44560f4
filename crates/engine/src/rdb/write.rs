//! Writes one value in the form that Redis 7.0 would choose for it.
//!
//! Small collections go as one listpack or intset, others element by element; strings that are short integers as
//! integers, longer ones compressed where that is asked for and gains something.

use super::listpack::{ListpackWriter, write_intset};
use super::{ValueKind, lzf};
use crate::keyspace::ValueRef;
use crate::types::{EncodingLimits, Hash, List, Set, SortedSet, canonical_int};

/// Whether longer strings are compressed (`rdbcompression`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Compression {
    /// They are. The default, as in Redis.
    #[default]
    Lzf,
    /// They are written as they are.
    Off,
}

/// Strings up to this length are never compressed.
const NEVER_COMPRESSED: usize = 20;
/// A compressed string has to be shorter by at least this much.
const LEAST_GAIN: usize = 4;
/// The longest text of an integer that is written as one.
const INTEGER_TEXT: usize = 11;

/// The largest listpack of a list with elements that fit into it, in bytes, whatever `list-max-listpack-size` says.
const LIST_CHUNK_BYTES: usize = 8192;

/// The kind that a value is written as.
pub(crate) fn write_kind_of(value: ValueRef<'_>) -> ValueKind {
    match value {
        ValueRef::String(..) => ValueKind::String,
        ValueRef::Hash(hash) if hash.encoding() == "listpack" => ValueKind::HashListpack,
        ValueRef::Hash(_) => ValueKind::Hash,
        ValueRef::List(_) => ValueKind::ListOfListpacks,
        ValueRef::Set(set) if set.encoding() == "intset" => ValueKind::SetIntset,
        ValueRef::Set(_) => ValueKind::Set,
        ValueRef::SortedSet(set) if set.encoding() == "listpack" => ValueKind::SortedSetListpack,
        ValueRef::SortedSet(_) => ValueKind::SortedSet,
    }
}

/// Appends a value, without the byte of its kind.
pub(crate) fn write_value(
    value: ValueRef<'_>,
    limits: &EncodingLimits,
    compression: Compression,
    out: &mut Vec<u8>,
) {
    match value {
        ValueRef::String(text, _) => write_string(text, compression, out),
        ValueRef::Hash(hash) => write_hash(hash, compression, out),
        ValueRef::List(list) => write_list(list, limits, compression, out),
        ValueRef::Set(set) => write_set(set, compression, out),
        ValueRef::SortedSet(set) => write_sorted_set(set, compression, out),
    }
}

/// Appends a length in its variable form.
pub fn write_length(length: u64, out: &mut Vec<u8>) {
    match length {
        0..=0x3f => out.push(length as u8),
        0x40..=0x3fff => out.extend_from_slice(&(length as u16 | 0x4000).to_be_bytes()),
        _ => match u32::try_from(length) {
            Ok(length) => {
                out.push(0x80);
                out.extend_from_slice(&length.to_be_bytes());
            }
            Err(_) => {
                out.push(0x81);
                out.extend_from_slice(&length.to_be_bytes());
            }
        },
    }
}

/// Appends a string in the shortest of its forms.
pub fn write_string(text: &[u8], compression: Compression, out: &mut Vec<u8>) {
    if text.len() <= INTEGER_TEXT
        && let Some(value) = canonical_int(text)
        && write_integer(value, out)
    {
        return;
    }
    if compression == Compression::Lzf && text.len() > NEVER_COMPRESSED && write_compressed(text, out) {
        return;
    }
    write_length(text.len() as u64, out);
    out.extend_from_slice(text);
}

/// Appends an integer of up to 32 bits in its short form; false, and nothing done, for a larger one.
fn write_integer(value: i64, out: &mut Vec<u8>) -> bool {
    if let Ok(value) = i8::try_from(value) {
        out.extend_from_slice(&[0xc0, value as u8]);
    } else if let Ok(value) = i16::try_from(value) {
        out.push(0xc1);
        out.extend_from_slice(&value.to_le_bytes());
    } else if let Ok(value) = i32::try_from(value) {
        out.push(0xc2);
        out.extend_from_slice(&value.to_le_bytes());
    } else {
        return false;
    }
    true
}

fn write_compressed(text: &[u8], out: &mut Vec<u8>) -> bool {
    // Both lengths stand before the bytes, so the bytes are made first and moved up.
    let mark = out.len();
    if !lzf::compress(text, text.len() - LEAST_GAIN, out) {
        return false;
    }
    let packed = out.len() - mark;
    let mut head = Vec::with_capacity(16);
    head.push(0xc3);
    write_length(packed as u64, &mut head);
    write_length(text.len() as u64, &mut head);
    out.splice(mark..mark, head);
    true
}

fn write_list(list: &List, limits: &EncodingLimits, compression: Compression, out: &mut Vec<u8>) {
    const PACKED: u64 = 2;
    // The number of chunks stands before them.
    let mut chunks = Vec::new();
    let mut count = 0;
    each_listpack(list, limits, |listpack| {
        write_length(PACKED, &mut chunks);
        write_string(listpack, compression, &mut chunks);
        count += 1;
    });
    write_length(count, out);
    out.extend_from_slice(&chunks);
}

/// The listpacks in which Redis keeps a list whose elements were appended one after the other.
pub(crate) fn each_listpack(list: &List, limits: &EncodingLimits, mut with: impl FnMut(&[u8])) {
    /// What Redis reckons for an element besides its bytes.
    const AROUND_ELEMENT: usize = 8;
    let (max_bytes, max_count) = match limits.list_max_listpack_size {
        size @ ..0 => (2048 << size.saturating_neg().min(5), usize::MAX),
        count => (LIST_CHUNK_BYTES, count.max(1) as usize),
    };
    let mut pack = ListpackWriter::new();
    let mut flush = |pack: &mut ListpackWriter| {
        if pack.count() > 0 {
            with(pack.finish());
            pack.clear();
        }
    };
    for element in list {
        if pack.count() >= max_count || pack.len() + element.len() + AROUND_ELEMENT > max_bytes {
            flush(&mut pack);
        }
        pack.push(element);
    }
    flush(&mut pack);
}

fn write_set(set: &Set, compression: Compression, out: &mut Vec<u8>) {
    if set.encoding() == "intset" {
        let values: Vec<i64> = set.iter().filter_map(|member| member.as_int()).collect();
        return write_string(&write_intset(&values), compression, out);
    }
    write_length(set.len() as u64, out);
    for member in set {
        write_string(&member, compression, out);
    }
}

fn write_hash(hash: &Hash, compression: Compression, out: &mut Vec<u8>) {
    if hash.encoding() == "listpack" {
        let mut pack = ListpackWriter::new();
        for (field, value) in hash {
            pack.push(field);
            pack.push(value);
        }
        return write_string(pack.finish(), compression, out);
    }
    write_length(hash.len() as u64, out);
    for (field, value) in hash {
        write_string(field, compression, out);
        write_string(value, compression, out);
    }
}

fn write_sorted_set(set: &SortedSet, compression: Compression, out: &mut Vec<u8>) {
    if set.encoding() == "listpack" {
        let mut pack = ListpackWriter::new();
        let mut text = Vec::new();
        for (member, score) in set {
            pack.push(member);
            text.clear();
            mtcache_protocol::write_double(&mut text, score);
            pack.push(&text);
        }
        return write_string(pack.finish(), compression, out);
    }
    write_length(set.len() as u64, out);
    // The highest first: whoever inserts them one by one then always does so at the front.
    for (member, score) in set.iter().rev() {
        write_string(member, compression, out);
        out.extend_from_slice(&score.to_bits().to_le_bytes());
    }
}
