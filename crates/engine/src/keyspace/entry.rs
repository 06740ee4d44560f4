//! One stored key with its value: a single heap block behind a pointer of eight bytes, 16 bits of which are a tag.
//!
//! A block is `header | ttl part (only with an expiry) | key | payload`, where the payload is the string's bytes or the
//! address of a boxed collection. A million small values are what a cache consists of; keeping the key, the value and
//! the bookkeeping in one block is what makes an entry cost a third of the memory of a pointer per part.
//!
//! Invariant: the lengths and the kind in the header describe the block exactly; they are written only here. This file
//! is the only one in the crate that may use `unsafe`, each use with its reason. Deliberately absent: any notion of
//! shards, clocks or policies.
#![allow(unsafe_code)]
// Blocks are allocated with the header's alignment.
#![allow(clippy::cast_ptr_alignment)]

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::ptr::NonNull;
use std::slice;

use crate::prefetch::prefetch_value;
use crate::rdb::{Content, Object};
use crate::time::UnixMillis;
use crate::types::{Hash, List, Set, SortedSet, allocation_size};

/// The longest key, in bytes: 512 MB less one.
pub const MAX_KEY_LEN: usize = KEY_LEN_MASK as usize;

const KEY_LEN_BITS: u32 = 29;
const KEY_LEN_MASK: u32 = (1 << KEY_LEN_BITS) - 1;
const HAS_TTL: u32 = 1 << 31;
const EPOCH: u32 = 1 << 30;
const VALUE_LEN_MASK: u32 = EPOCH - 1;
const HEADER_LEN: usize = size_of::<Header>();
/// Eight bytes of expiry and four of position in the shard's list of expiring keys.
const TTL_PART_LEN: usize = 12;
const POINTER_LEN: usize = size_of::<usize>();

#[repr(C)]
struct Header {
    /// What the eviction policy keeps of this entry: an LRU stamp, or LFU's decay time and counter.
    access: u32,
    /// Length of the key in the low 29 bits, [`Kind`] in the high 3.
    key_and_kind: u32,
    /// Length of an inline string, [`EPOCH`] and [`HAS_TTL`].
    value_and_ttl: u32,
}

/// What the payload of an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Kind {
    /// The bytes of a string.
    Inline = 0,
    /// The digits of a string that was stored as an integer.
    Int = 1,
    /// A boxed `Vec<u8>`: a string that has been modified in place and may be again.
    Heap = 2,
    Hash = 3,
    List = 4,
    Set = 5,
    SortedSet = 6,
}

impl Kind {
    const fn from_bits(bits: u32) -> Self {
        match bits {
            1 => Self::Int,
            2 => Self::Heap,
            3 => Self::Hash,
            4 => Self::List,
            5 => Self::Set,
            6 => Self::SortedSet,
            _ => Self::Inline,
        }
    }
}

/// How the bytes of a string came to be, which `OBJECT ENCODING` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StringEncoding {
    /// The canonical decimal text of a 64-bit integer.
    Int,
    /// Any other string that was stored whole.
    Whole,
    /// A string that `APPEND` or `SETRANGE` has touched.
    Grown,
}

/// A collection on its way into the keyspace.
#[derive(Debug)]
pub(crate) enum Value {
    /// A hash.
    Hash(Box<Hash>),
    /// A list.
    List(Box<List>),
    /// A set.
    Set(Box<Set>),
    /// A sorted set.
    SortedSet(Box<SortedSet>),
}

/// A stored value, borrowed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ValueRef<'a> {
    /// A string's bytes and encoding.
    String(&'a [u8], StringEncoding),
    /// A hash.
    Hash(&'a Hash),
    /// A list.
    List(&'a List),
    /// A set.
    Set(&'a Set),
    /// A sorted set.
    SortedSet(&'a SortedSet),
}

/// A stored collection, or a string that grows, borrowed for change.
#[derive(Debug)]
pub(crate) enum ValueMut<'a> {
    /// A string that grows in place.
    String(&'a mut Vec<u8>),
    /// A hash.
    Hash(&'a mut Hash),
    /// A list.
    List(&'a mut List),
    /// A set.
    Set(&'a mut Set),
    /// A sorted set.
    SortedSet(&'a mut SortedSet),
}

/// A key, its value, its expiry and its access record. Owns its block.
///
/// The address of the block is in the low 48 bits; the high 16, which no address of a process has set, are a tag that the
/// table keeps there: a part of the key's hash, so that most other keys are told apart without a look at their blocks.
pub(crate) struct Entry(NonNull<Header>);

/// Bits of an address; those above are the tag.
const ADDRESS_BITS: u32 = 48;
const ADDRESS_MASK: usize = (1 << ADDRESS_BITS) - 1;

// SAFETY: an entry owns its block and everything the block points to, all of which is `Send`.
unsafe impl Send for Entry {}
// SAFETY: shared references only read; there is no interior mutability.
unsafe impl Sync for Entry {}

impl Entry {
    /// Makes an entry that holds a string. `key` is at most [`MAX_KEY_LEN`] bytes, `value` of any length.
    #[must_use]
    pub(crate) fn string(key: &[u8], value: &[u8], expires_at: Option<UnixMillis>, access: u32) -> Self {
        if value.len() > VALUE_LEN_MASK as usize {
            return Self::long_string(key, value, expires_at, access);
        }
        let kind = if is_canonical_integer(value) { Kind::Int } else { Kind::Inline };
        let entry = Self::allocate(key, kind, value.len(), expires_at, access);
        // SAFETY: the block was allocated with `value.len()` bytes of payload, and is not aliased yet.
        unsafe { entry.payload().copy_from_nonoverlapping(value.as_ptr(), value.len()) };
        entry
    }

    /// Makes an entry that holds a collection.
    #[must_use]
    pub(crate) fn new(key: &[u8], value: Value, expires_at: Option<UnixMillis>, access: u32) -> Self {
        let (kind, address) = match value {
            Value::Hash(v) => (Kind::Hash, Box::into_raw(v) as usize),
            Value::List(v) => (Kind::List, Box::into_raw(v) as usize),
            Value::Set(v) => (Kind::Set, Box::into_raw(v) as usize),
            Value::SortedSet(v) => (Kind::SortedSet, Box::into_raw(v) as usize),
        };
        let mut entry = Self::allocate(key, kind, 0, expires_at, access);
        entry.set_address(address);
        entry
    }

    /// The tag; zero until it is set.
    #[inline]
    pub(crate) fn tag(&self) -> u16 {
        (self.0.addr().get() >> ADDRESS_BITS) as u16
    }

    /// Replaces the tag.
    #[inline]
    pub(crate) fn set_tag(&mut self, tag: u16) {
        self.0 = tagged(self.block(), tag);
    }

    /// The epoch of its shard in which it was made or last written into a snapshot; false until it is set.
    #[inline]
    pub(crate) fn epoch(&self) -> bool {
        self.header().value_and_ttl & EPOCH != 0
    }

    /// Records the epoch.
    #[inline]
    pub(crate) fn set_epoch(&mut self, epoch: bool) {
        // SAFETY: the header is initialised and `&mut self` is unique.
        let field = unsafe { &mut (*self.block().as_ptr()).value_and_ttl };
        *field = if epoch { *field | EPOCH } else { *field & !EPOCH };
    }

    /// Makes an entry of a value that was read from a snapshot or a payload.
    #[must_use]
    pub(crate) fn of_object(key: &[u8], object: Object, expires_at: Option<UnixMillis>, access: u32) -> Self {
        match object.0 {
            Content::String(text) => Self::string(key, &text, expires_at, access),
            Content::Collection(value) => Self::new(key, value, expires_at, access),
        }
    }

    /// Asks for the beginning of its block.
    #[inline]
    pub(crate) fn prefetch(&self) {
        // SAFETY: every block is at least as long as a header, and nothing of it is looked at.
        prefetch_value(unsafe { self.block().as_ref() });
    }

    /// Whether this is the entry of `key`: short keys are compared without a call.
    #[inline]
    pub(crate) fn has_key(&self, key: &[u8]) -> bool {
        let own = self.key();
        if own.len() != key.len() {
            return false;
        }
        // Of up to twice a word, the first and the last one cover all bytes.
        let eights = |key: &[u8]| Some((*key.first_chunk::<8>()?, *key.last_chunk::<8>()?));
        let fours = |key: &[u8]| Some((*key.first_chunk::<4>()?, *key.last_chunk::<4>()?));
        match key.len() {
            8..=16 => eights(own) == eights(key),
            4..=7 => fours(own) == fours(key),
            _ => own == key,
        }
    }

    /// The key.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        // SAFETY: the block holds `key_len` initialised bytes at this offset for as long as `self` lives.
        unsafe { slice::from_raw_parts(self.byte(HEADER_LEN + self.ttl_part_len()), self.key_len()) }
    }

    /// The value.
    pub(crate) fn value(&self) -> ValueRef<'_> {
        match self.kind() {
            Kind::Inline => ValueRef::String(self.inline(), StringEncoding::Whole),
            Kind::Int => ValueRef::String(self.inline(), StringEncoding::Int),
            // SAFETY (this and the next four): the kind says which type the address was made from, by `Box::into_raw`.
            Kind::Heap => ValueRef::String(unsafe { self.boxed::<Vec<u8>>() }, StringEncoding::Grown),
            Kind::Hash => ValueRef::Hash(unsafe { self.boxed() }),
            Kind::List => ValueRef::List(unsafe { self.boxed() }),
            Kind::Set => ValueRef::Set(unsafe { self.boxed() }),
            Kind::SortedSet => ValueRef::SortedSet(unsafe { self.boxed() }),
        }
    }

    /// The bytes, if the value is a string.
    #[inline]
    pub(crate) fn string_bytes(&self) -> Option<&[u8]> {
        match self.kind() {
            Kind::Inline | Kind::Int => Some(self.inline()),
            // SAFETY: as in `value`.
            Kind::Heap => Some(unsafe { self.boxed::<Vec<u8>>() }),
            _ => None,
        }
    }

    /// The value, for change in place. A string becomes one that can grow.
    #[inline]
    pub(crate) fn value_mut(&mut self) -> ValueMut<'_> {
        match self.kind() {
            Kind::Inline | Kind::Int => {
                self.make_growable();
                // SAFETY: made from a `Box<Vec<u8>>` just above.
                ValueMut::String(unsafe { self.boxed_mut() })
            }
            // SAFETY (this and the next four): as in `value`, and `&mut self` makes the borrow unique.
            Kind::Heap => ValueMut::String(unsafe { self.boxed_mut() }),
            Kind::Hash => ValueMut::Hash(unsafe { self.boxed_mut() }),
            Kind::List => ValueMut::List(unsafe { self.boxed_mut() }),
            Kind::Set => ValueMut::Set(unsafe { self.boxed_mut() }),
            Kind::SortedSet => ValueMut::SortedSet(unsafe { self.boxed_mut() }),
        }
    }

    #[inline(never)]
    fn make_growable(&mut self) {
        let bytes = self.inline().to_vec();
        let (expires_at, ttl_index) = (self.expires_at(), self.ttl_index());
        let mut grown = Self::allocate(self.key(), Kind::Heap, 0, expires_at, self.access());
        grown.set_address(Box::into_raw(Box::new(bytes)) as usize);
        grown.set_ttl_index(ttl_index);
        grown.set_tag(self.tag());
        grown.set_epoch(self.epoch());
        *self = grown;
    }

    /// Replaces whatever the value was by a string, keeping the key, the expiry and the access record.
    pub(crate) fn set_string(&mut self, value: &[u8]) {
        self.store(value, if is_canonical_integer(value) { Kind::Int } else { Kind::Inline });
    }

    /// As [`set_string`](Self::set_string), but never with the integer encoding: what `INCRBYFLOAT` stores.
    pub(crate) fn set_text(&mut self, value: &[u8]) {
        self.store(value, Kind::Inline);
    }

    /// Overwrites the string in place if neither its length nor the presence of an expiry changes, so that the block stays
    /// as it is. False, and nothing done, if they do.
    #[inline]
    pub(crate) fn overwrite_same_size(&mut self, value: &[u8], expires_at: Option<UnixMillis>) -> bool {
        let same = matches!(self.kind(), Kind::Inline | Kind::Int)
            && self.value_len() == value.len()
            && self.has_ttl() == expires_at.is_some();
        if !same {
            return false;
        }
        self.set_kind(if is_canonical_integer(value) { Kind::Int } else { Kind::Inline });
        if let Some(at) = expires_at {
            self.write_expiry(at);
        }
        // SAFETY: the payload has `value.len()` bytes, and `value` cannot be part of it, being borrowed while `self` is
        // borrowed mutably.
        unsafe { self.payload().copy_from_nonoverlapping(value.as_ptr(), value.len()) };
        true
    }

    /// A string whose length the header has no room for goes into a block of its own.
    #[cold]
    fn long_string(key: &[u8], value: &[u8], expires_at: Option<UnixMillis>, access: u32) -> Self {
        let mut entry = Self::allocate(key, Kind::Heap, 0, expires_at, access);
        entry.set_address(Box::into_raw(Box::new(value.to_vec())) as usize);
        entry
    }

    fn store(&mut self, value: &[u8], kind: Kind) {
        if value.len() > VALUE_LEN_MASK as usize {
            let mut long = Self::long_string(self.key(), value, self.expires_at(), self.access());
            long.set_tag(self.tag());
            long.set_epoch(self.epoch());
            long.set_ttl_index(self.ttl_index());
            *self = long;
            return;
        }
        self.drop_boxed();
        let old = self.layout();
        let fixed = HEADER_LEN + self.ttl_part_len() + self.key_len();
        let new_len = fixed + value.len();
        if new_len != old.size() {
            // SAFETY: the block was allocated with `old`; the new size is not zero and below `isize::MAX`.
            let moved = unsafe { realloc(self.block().as_ptr().cast(), old, new_len) };
            let Some(block) = NonNull::new(moved.cast()) else { handle_alloc_error(old) };
            self.0 = tagged(block, self.tag());
        }
        self.set_kind(kind);
        self.set_value_len(value.len());
        // SAFETY: the block has `value.len()` bytes of payload at `fixed`, and `value` cannot be part of it, being
        // borrowed while `self` is borrowed mutably.
        unsafe { self.payload().copy_from_nonoverlapping(value.as_ptr(), value.len()) };
    }

    /// When the entry expires, if it does.
    #[inline]
    pub(crate) fn expires_at(&self) -> Option<UnixMillis> {
        if !self.has_ttl() {
            return None;
        }
        // SAFETY: with `HAS_TTL` set the block has its ttl part after the header; it may be unaligned.
        Some(UnixMillis(unsafe { self.byte(HEADER_LEN).cast::<u64>().read_unaligned() }))
    }

    /// Sets or clears the expiry. The position in the list of expiring keys is undefined until
    /// [`set_ttl_index`](Self::set_ttl_index).
    pub(crate) fn set_expires_at(&mut self, expires_at: Option<UnixMillis>) {
        let old = self.layout();
        let payload_len = old.size() - HEADER_LEN - self.ttl_part_len();
        match (expires_at, self.has_ttl()) {
            (None, false) => {}
            (Some(at), true) => self.write_expiry(at),
            (Some(at), false) => {
                // SAFETY: grows the block by the ttl part and moves key and payload behind it; both ranges lie inside
                // the grown block.
                unsafe {
                    let moved = realloc(self.block().as_ptr().cast(), old, old.size() + TTL_PART_LEN);
                    let Some(block) = NonNull::new(moved.cast()) else { handle_alloc_error(old) };
                    self.0 = tagged(block, self.tag());
                    let from = self.byte_mut(HEADER_LEN);
                    from.copy_to(from.add(TTL_PART_LEN), payload_len);
                    (*self.block().as_ptr()).value_and_ttl |= HAS_TTL;
                }
                self.write_expiry(at);
            }
            (None, true) => {
                // SAFETY: moves key and payload over the ttl part, then shrinks the block by it.
                unsafe {
                    let to = self.byte_mut(HEADER_LEN);
                    to.add(TTL_PART_LEN).copy_to(to, payload_len);
                    (*self.block().as_ptr()).value_and_ttl &= !HAS_TTL;
                    let moved = realloc(self.block().as_ptr().cast(), old, old.size() - TTL_PART_LEN);
                    let Some(block) = NonNull::new(moved.cast()) else { handle_alloc_error(old) };
                    self.0 = tagged(block, self.tag());
                }
            }
        }
    }

    /// Position in the shard's list of expiring keys; zero without an expiry.
    pub(crate) fn ttl_index(&self) -> u32 {
        if !self.has_ttl() {
            return 0;
        }
        // SAFETY: as in `expires_at`.
        unsafe { self.byte(HEADER_LEN + 8).cast::<u32>().read_unaligned() }
    }

    /// Records the position in the shard's list of expiring keys; does nothing without an expiry.
    pub(crate) fn set_ttl_index(&mut self, index: u32) {
        if self.has_ttl() {
            // SAFETY: as in `expires_at`, and `&mut self` is unique.
            unsafe { self.byte_mut(HEADER_LEN + 8).cast::<u32>().write_unaligned(index) };
        }
    }

    /// The eviction policy's record.
    #[inline]
    pub(crate) fn access(&self) -> u32 {
        self.header().access
    }

    /// Replaces the eviction policy's record.
    #[inline]
    pub(crate) fn set_access(&mut self, access: u32) {
        // SAFETY: the header is initialised and `&mut self` is unique.
        unsafe { (*self.block().as_ptr()).access = access };
    }

    /// Bytes that the allocator has given for this entry and all it holds.
    pub(crate) fn memory(&self) -> usize {
        let heap = match self.kind() {
            Kind::Inline | Kind::Int => 0,
            // SAFETY: as in `value`.
            Kind::Heap => {
                let bytes = unsafe { self.boxed::<Vec<u8>>() };
                allocation_size(size_of::<Vec<u8>>()) + allocation_size(bytes.capacity())
            }
            _ => match self.value() {
                ValueRef::Hash(v) => allocation_size(size_of::<Hash>()) + v.heap_bytes(),
                ValueRef::List(v) => allocation_size(size_of::<List>()) + v.heap_bytes(),
                ValueRef::Set(v) => allocation_size(size_of::<Set>()) + v.heap_bytes(),
                ValueRef::SortedSet(v) => allocation_size(size_of::<SortedSet>()) + v.heap_bytes(),
                ValueRef::String(..) => 0,
            },
        };
        allocation_size(self.layout().size()) + heap
    }

    /// The name that `TYPE` gives.
    pub(crate) fn type_name(&self) -> &'static str {
        match self.kind() {
            Kind::Inline | Kind::Int | Kind::Heap => "string",
            Kind::Hash => "hash",
            Kind::List => "list",
            Kind::Set => "set",
            Kind::SortedSet => "zset",
        }
    }

    /// A copy of the value under another key, without expiry and with an access record of its own.
    #[must_use]
    pub(crate) fn copy_as(&self, key: &[u8], access: u32) -> Self {
        match self.value() {
            ValueRef::String(bytes, StringEncoding::Grown) => {
                let mut copy = Self::string(key, bytes, None, access);
                copy.value_mut();
                copy
            }
            ValueRef::String(bytes, _) => {
                let mut copy = Self::string(key, bytes, None, access);
                // A text that looks like an integer stays a text.
                if bytes.len() <= VALUE_LEN_MASK as usize {
                    copy.set_kind(self.kind());
                }
                copy
            }
            ValueRef::Hash(v) => Self::new(key, Value::Hash(Box::new(v.clone())), None, access),
            ValueRef::List(v) => Self::new(key, Value::List(Box::new(v.clone())), None, access),
            ValueRef::Set(v) => Self::new(key, Value::Set(Box::new(v.clone())), None, access),
            ValueRef::SortedSet(v) => Self::new(key, Value::SortedSet(Box::new(v.clone())), None, access),
        }
    }

    /// The same value under another key, with the same expiry and access record.
    #[must_use]
    pub(crate) fn into_renamed(mut self, key: &[u8]) -> Self {
        let expires_at = self.expires_at();
        if matches!(self.kind(), Kind::Inline | Kind::Int) {
            let mut renamed = Self::string(key, self.inline(), expires_at, self.access());
            renamed.set_kind(self.kind());
            return renamed;
        }
        let mut renamed = Self::allocate(key, self.kind(), 0, expires_at, self.access());
        renamed.set_address(self.address());
        // The box belongs to the renamed entry now; as an empty inline string the old block frees only itself.
        let old = self.layout();
        let shrunk = HEADER_LEN + self.ttl_part_len() + self.key_len();
        // SAFETY: the block was allocated with `old`; shrinking keeps header and key.
        let moved = unsafe { realloc(self.block().as_ptr().cast(), old, shrunk) };
        let Some(block) = NonNull::new(moved.cast()) else { handle_alloc_error(old) };
        self.0 = tagged(block, self.tag());
        self.set_kind(Kind::Inline);
        self.set_value_len(0);
        renamed
    }

    fn allocate(
        key: &[u8],
        kind: Kind,
        value_len: usize,
        expires_at: Option<UnixMillis>,
        access: u32,
    ) -> Self {
        let key = key.get(..MAX_KEY_LEN).unwrap_or(key);
        let ttl_part = if expires_at.is_some() { TTL_PART_LEN } else { 0 };
        let payload = if matches!(kind, Kind::Inline | Kind::Int) { value_len } else { POINTER_LEN };
        let layout = block_layout(HEADER_LEN + ttl_part + key.len() + payload);
        // SAFETY: the layout's size is at least the header's, so not zero; its alignment is the header's.
        #[allow(clippy::cast_ptr_alignment)]
        let Some(block) = NonNull::new(unsafe { alloc(layout) }.cast::<Header>()) else {
            handle_alloc_error(layout)
        };
        let header = Header {
            access,
            key_and_kind: key.len() as u32 | ((kind as u32) << KEY_LEN_BITS),
            value_and_ttl: value_len as u32 | if expires_at.is_some() { HAS_TTL } else { 0 },
        };
        // SAFETY: the block is large enough for header, ttl part and key, in this order, and aligned for the header.
        unsafe { block.as_ptr().write(header) };
        let mut entry = Self(tagged(block, 0));
        if let Some(at) = expires_at {
            entry.write_expiry(at);
            entry.set_ttl_index(0);
        }
        // SAFETY: as above; `key` is not part of the new block.
        unsafe { entry.byte_mut(HEADER_LEN + ttl_part).copy_from_nonoverlapping(key.as_ptr(), key.len()) };
        entry
    }

    #[inline]
    fn block(&self) -> NonNull<Header> {
        // SAFETY: the address without the tag is that of the block, which is not null.
        unsafe { NonNull::new_unchecked(self.0.as_ptr().map_addr(|address| address & ADDRESS_MASK)) }
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the block starts with an initialised header for as long as `self` lives.
        unsafe { self.block().as_ref() }
    }

    #[inline]
    fn kind(&self) -> Kind {
        Kind::from_bits(self.header().key_and_kind >> KEY_LEN_BITS)
    }

    #[inline]
    fn key_len(&self) -> usize {
        (self.header().key_and_kind & KEY_LEN_MASK) as usize
    }

    #[inline]
    fn value_len(&self) -> usize {
        (self.header().value_and_ttl & VALUE_LEN_MASK) as usize
    }

    #[inline]
    fn has_ttl(&self) -> bool {
        self.header().value_and_ttl & HAS_TTL != 0
    }

    #[inline]
    fn ttl_part_len(&self) -> usize {
        if self.has_ttl() { TTL_PART_LEN } else { 0 }
    }

    fn payload_len(&self) -> usize {
        if matches!(self.kind(), Kind::Inline | Kind::Int) { self.value_len() } else { POINTER_LEN }
    }

    fn layout(&self) -> Layout {
        block_layout(HEADER_LEN + self.ttl_part_len() + self.key_len() + self.payload_len())
    }

    fn set_kind(&mut self, kind: Kind) {
        // SAFETY: the header is initialised and `&mut self` is unique.
        let field = unsafe { &mut (*self.block().as_ptr()).key_and_kind };
        *field = (*field & KEY_LEN_MASK) | ((kind as u32) << KEY_LEN_BITS);
    }

    fn set_value_len(&mut self, len: usize) {
        // SAFETY: the header is initialised and `&mut self` is unique.
        let field = unsafe { &mut (*self.block().as_ptr()).value_and_ttl };
        *field = (*field & !VALUE_LEN_MASK) | (len as u32 & VALUE_LEN_MASK);
    }

    #[inline]
    fn byte(&self, offset: usize) -> *const u8 {
        // SAFETY: every caller passes an offset inside the block.
        unsafe { self.block().as_ptr().cast::<u8>().add(offset) }
    }

    fn byte_mut(&mut self, offset: usize) -> *mut u8 {
        // SAFETY: every caller passes an offset inside the block.
        unsafe { self.block().as_ptr().cast::<u8>().add(offset) }
    }

    #[inline]
    fn payload(&self) -> *mut u8 {
        self.byte(HEADER_LEN + self.ttl_part_len() + self.key_len()).cast_mut()
    }

    #[inline]
    fn inline(&self) -> &[u8] {
        // SAFETY: only called for inline kinds, whose payload is `value_len` initialised bytes.
        unsafe { slice::from_raw_parts(self.payload(), self.value_len()) }
    }

    fn write_expiry(&mut self, at: UnixMillis) {
        // SAFETY: only called when the block has its ttl part; unaligned on purpose.
        unsafe { self.byte_mut(HEADER_LEN).cast::<u64>().write_unaligned(at.0) };
    }

    fn address(&self) -> usize {
        // SAFETY: only called for boxed kinds, whose payload is one address.
        unsafe { self.payload().cast::<usize>().read_unaligned() }
    }

    fn set_address(&mut self, address: usize) {
        // SAFETY: only called for boxed kinds, whose payload is one address.
        unsafe { self.payload().cast::<usize>().write_unaligned(address) };
    }

    /// SAFETY: the caller has checked that the kind stands for `T`.
    unsafe fn boxed<T>(&self) -> &T {
        unsafe { &*(self.address() as *const T) }
    }

    /// SAFETY: the caller has checked that the kind stands for `T`.
    unsafe fn boxed_mut<T>(&mut self) -> &mut T {
        unsafe { &mut *(self.address() as *mut T) }
    }

    fn drop_boxed(&mut self) {
        let address = match self.kind() {
            Kind::Inline | Kind::Int => return,
            _ => self.address(),
        };
        // SAFETY: the address came from `Box::into_raw` of the type that the kind names; the callers overwrite or free
        // the payload right after, so it is freed once.
        unsafe {
            match self.kind() {
                Kind::Heap => drop(Box::from_raw(address as *mut Vec<u8>)),
                Kind::Hash => drop(Box::from_raw(address as *mut Hash)),
                Kind::List => drop(Box::from_raw(address as *mut List)),
                Kind::Set => drop(Box::from_raw(address as *mut Set)),
                Kind::SortedSet => drop(Box::from_raw(address as *mut SortedSet)),
                Kind::Inline | Kind::Int => {}
            }
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.drop_boxed();
        // SAFETY: the block was allocated with exactly this layout and is not used again.
        unsafe { dealloc(self.block().as_ptr().cast(), self.layout()) };
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Entry")
            .field("key", &String::from_utf8_lossy(self.key()))
            .field("type", &self.type_name())
            .field("expires_at", &self.expires_at())
            .finish_non_exhaustive()
    }
}

/// A block's address with a tag above it.
#[inline]
fn tagged(block: NonNull<Header>, tag: u16) -> NonNull<Header> {
    if block.addr().get() > ADDRESS_MASK {
        // Kernels hand out such addresses only to those who ask for them, and no allocator does.
        handle_alloc_error(Layout::new::<Header>());
    }
    let with_tag = |address: usize| address | (usize::from(tag) << ADDRESS_BITS);
    // SAFETY: not null, as `block` is not and bits are only added.
    unsafe { NonNull::new_unchecked(block.as_ptr().map_addr(with_tag)) }
}

fn block_layout(size: usize) -> Layout {
    match Layout::from_size_align(size, align_of::<Header>()) {
        Ok(layout) => layout,
        // Lengths are bounded by the header's fields, so that the size cannot come near `isize::MAX`.
        Err(_) => handle_alloc_error(Layout::new::<Header>()),
    }
}

/// Whether `bytes` is the one decimal text of a 64-bit signed integer, which Redis stores as a number.
pub(crate) fn is_canonical_integer(bytes: &[u8]) -> bool {
    let (negative, digits) = match bytes {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, bytes),
    };
    match digits {
        [b'0'] => !negative,
        [b'1'..=b'9', rest @ ..] if digits.len() <= 19 => {
            rest.iter().all(u8::is_ascii_digit) && (digits.len() < 19 || parse_fits(bytes))
        }
        _ => false,
    }
}

fn parse_fits(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<i64>().is_ok())
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
