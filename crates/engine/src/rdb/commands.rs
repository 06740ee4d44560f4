//! One key of a snapshot as the commands that make it anew, for journals that are commands from their beginning.
//!
//! A large collection is made by several commands, so that no command is longer than a reader may want to hold.

use crate::keyspace::{Entry, ValueRef};

/// Elements that one command adds, at most, as in Redis.
const ELEMENTS_PER_COMMAND: usize = 64;

/// Appends the commands that make a key, its expiry included.
pub(super) fn write_commands(entry: &Entry, out: &mut Vec<u8>) {
    let key = entry.key();
    match entry.value() {
        ValueRef::String(text, _) => encode(&[b"SET", key, text], out),
        ValueRef::List(list) => {
            let mut adds = Adds::new(b"RPUSH", key, 1, out);
            list.into_iter().for_each(|element| adds.push(&[element]));
            adds.end();
        }
        ValueRef::Set(set) => {
            let mut adds = Adds::new(b"SADD", key, 1, out);
            set.into_iter().for_each(|member| adds.push(&[&member]));
            adds.end();
        }
        ValueRef::Hash(hash) => {
            let mut adds = Adds::new(b"HMSET", key, 2, out);
            hash.into_iter().for_each(|(field, value)| adds.push(&[field, value]));
            adds.end();
        }
        ValueRef::SortedSet(set) => {
            let mut adds = Adds::new(b"ZADD", key, 2, out);
            let mut score_text = Vec::new();
            for (member, score) in set {
                score_text.clear();
                mtcache_protocol::write_double(&mut score_text, score);
                adds.push(&[&score_text, member]);
            }
            adds.end();
        }
    }
    if let Some(at) = entry.expires_at() {
        encode(&[b"PEXPIREAT", key, itoa::Buffer::new().format(at.0).as_bytes()], out);
    }
}

fn encode(args: &[&[u8]], out: &mut Vec<u8>) {
    mtcache_protocol::encode_command(args, out);
}

/// Commands that add elements to a key, a bounded number each.
struct Adds<'a> {
    name: &'a [u8],
    key: &'a [u8],
    /// Arguments of an element.
    width: usize,
    /// The arguments so far, one behind the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    out: &'a mut Vec<u8>,
}

impl<'a> Adds<'a> {
    fn new(name: &'a [u8], key: &'a [u8], width: usize, out: &'a mut Vec<u8>) -> Self {
        Self { name, key, width, bytes: Vec::new(), ends: Vec::new(), out }
    }

    fn push(&mut self, args: &[&[u8]]) {
        for arg in args {
            self.bytes.extend_from_slice(arg);
            self.ends.push(self.bytes.len());
        }
        if self.ends.len() >= ELEMENTS_PER_COMMAND * self.width {
            self.flush();
        }
    }

    fn end(mut self) {
        if !self.ends.is_empty() {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let mut args = vec![self.name, self.key];
        let mut from = 0;
        for &end in &self.ends {
            args.push(self.bytes.get(from..end).unwrap_or_default());
            from = end;
        }
        encode(&args, self.out);
        self.bytes.clear();
        self.ends.clear();
    }
}
