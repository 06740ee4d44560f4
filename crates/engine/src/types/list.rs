//! The list type, a `quicklist`: a deque of chunks, each a packed run of small elements or one big element.
//!
//! No chunk is empty. Both ends work in O(1); reaching the middle walks chunks, not elements, from the nearer end.
//! Compression of inner chunks (list-compress-depth) is deliberately absent.

use std::collections::{VecDeque, vec_deque};

use super::{
    allocation::allocation_size,
    limits::EncodingLimits,
    list_node::{ChunkLimit, Node, NodeIter},
    packed::Packed,
};

/// A chunk that follows a full one starts with room for this many bytes: it is likely to fill up, too.
const FOLLOWING_CHUNK_BYTES: usize = 2048;

/// From so many chunks on, the next one starts with all the room that it may have: to grow it step by step would copy its
/// elements several times over, and what may stay unused is small beside the list.
const CHUNKS_OF_A_LONG_LIST: usize = 16;

/// Neighbouring chunks are merged where removals leave them this small together.
const MERGE_BYTES: usize = 2048;

/// An end of a [`List`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListEnd {
    /// The head, on the left: index 0.
    Front,
    /// The tail, on the right.
    Back,
}

/// A list of byte strings.
#[derive(Debug, Default)]
pub struct List {
    nodes: VecDeque<Node>,
    len: usize,
    /// Heap bytes of all nodes.
    owned: usize,
}

impl List {
    /// Creates an empty list; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Name of the encoding as OBJECT ENCODING reports it.
    #[allow(clippy::unused_self, reason = "the other types' encodings depend on the value")]
    pub fn encoding(&self) -> &'static str {
        "quicklist"
    }

    /// Heap bytes held, in O(1).
    pub fn heap_bytes(&self) -> usize {
        self.owned + allocation_size(self.nodes.capacity() * size_of::<Node>())
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The element at `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let (node, offset) = self.locate(index)?;
        self.nodes.get(node)?.get(offset)
    }

    /// The first element.
    pub fn front(&self) -> Option<&[u8]> {
        self.nodes.front()?.iter().next()
    }

    /// The last element.
    pub fn back(&self) -> Option<&[u8]> {
        self.nodes.back()?.iter().next_back()
    }

    /// Adds an element at `end`.
    pub fn push(&mut self, end: ListEnd, element: &[u8], limits: &EncodingLimits) {
        let limit = ChunkLimit::new(limits);
        let chunks = self.nodes.len();
        let outer = match end {
            ListEnd::Front => self.nodes.front_mut(),
            ListEnd::Back => self.nodes.back_mut(),
        };
        self.len += 1;
        let mut capacity = 0;
        if let Some(node) = outer {
            let before = node.heap_bytes();
            let joined = node.room_for(element.len(), limit).map(|packed| match end {
                ListEnd::Front => packed.push_front(element),
                ListEnd::Back => packed.push_back(element),
            });
            if let (None, Node::Packed(full)) = (joined, &mut *node) {
                full.shrink_to_fit();
                capacity = if chunks >= CHUNKS_OF_A_LONG_LIST { limit.bytes } else { FOLLOWING_CHUNK_BYTES };
            }
            self.owned = (self.owned + node.heap_bytes()).saturating_sub(before);
            if joined.is_some() {
                return;
            }
        }
        let node = Node::new(element, capacity, end, limit);
        self.owned += node.heap_bytes();
        if self.nodes.capacity() == 0 {
            self.nodes.reserve_exact(1);
        }
        match end {
            ListEnd::Front => self.nodes.push_front(node),
            ListEnd::Back => self.nodes.push_back(node),
        }
    }

    /// Removes the element at `end`, handing its bytes to `read`.
    pub fn pop_with<R>(&mut self, end: ListEnd, read: impl FnOnce(&[u8]) -> R) -> Option<R> {
        let outer = match end {
            ListEnd::Front => self.nodes.front_mut(),
            ListEnd::Back => self.nodes.back_mut(),
        };
        let node = outer?;
        let before = node.heap_bytes();
        let (result, after) = match node {
            Node::Packed(packed) => {
                let result = match end {
                    ListEnd::Front => packed.pop_front_with(read)?,
                    ListEnd::Back => packed.pop_back_with(read)?,
                };
                (result, if packed.is_empty() { None } else { Some(packed.heap_bytes()) })
            }
            Node::Plain(element) => (read(element), None),
        };
        self.owned = (self.owned + after.unwrap_or(0)).saturating_sub(before);
        if after.is_none() {
            match end {
                ListEnd::Front => self.nodes.pop_front(),
                ListEnd::Back => self.nodes.pop_back(),
            };
            self.give_back();
        }
        self.len -= 1;
        Some(result)
    }

    /// Removes and returns the element at `end`.
    pub fn pop(&mut self, end: ListEnd) -> Option<Vec<u8>> {
        self.pop_with(end, <[u8]>::to_vec)
    }

    /// Replaces the element at `index`; returns whether there is one.
    pub fn set(&mut self, index: usize, element: &[u8], limits: &EncodingLimits) -> bool {
        let Some((node, offset)) = self.locate(index) else { return false };
        let limit = ChunkLimit::new(limits);
        let replaced = self.edit(node, |node| {
            let Node::Packed(packed) = node else { return false };
            let Some((at, old)) = packed.position(offset).and_then(|at| Some((at, packed.at(at)?.len())))
            else {
                return false;
            };
            let size = packed.byte_len() - Packed::stored_size(old) + Packed::stored_size(element.len());
            if size > limit.bytes {
                return false;
            }
            packed.replace(at, element);
            true
        });
        if !replaced {
            self.remove_range(index, 1);
            self.insert(index, element, limits);
        }
        true
    }

    /// Inserts an element before the one at `index`, or at the tail if `index` is the length.
    ///
    /// Returns false, and does nothing, when `index` lies beyond.
    pub fn insert(&mut self, index: usize, element: &[u8], limits: &EncodingLimits) -> bool {
        if index >= self.len {
            if index == self.len {
                self.push(ListEnd::Back, element, limits);
            }
            return index < self.len;
        }
        let Some((mut at, offset)) = self.locate(index) else { return false };
        let limit = ChunkLimit::new(limits);
        self.len += 1;
        let fits_here = |node: &mut Node| {
            node.room_for(element.len(), limit)
                .map(|packed| packed.insert(packed.position(offset).unwrap_or(packed.end()), element))
                .is_some()
        };
        if self.edit(at, fits_here) {
            return true;
        }
        if offset > 0 {
            let right = self.edit(at, |node| match node {
                Node::Packed(packed) => Some(packed.split_off(offset)),
                Node::Plain(_) => None,
            });
            if let Some(right) = right {
                self.insert_node(at + 1, Node::Packed(right));
            }
            at += 1;
            let joins_right = |node: &mut Node| {
                node.room_for(element.len(), limit).map(|packed| packed.push_front(element)).is_some()
            };
            if self.edit(at, joins_right) {
                return true;
            }
        }
        // The place is now between the chunks `at - 1` and `at`.
        let joins_left = |node: &mut Node| {
            node.room_for(element.len(), limit).map(|packed| packed.push_back(element)).is_some()
        };
        if at == 0 || !self.edit(at - 1, joins_left) {
            self.insert_node(at, Node::new(element, 0, ListEnd::Back, limit));
        }
        true
    }

    /// Removes `count` elements from `start` on, or those there are; returns how many.
    pub fn remove_range(&mut self, start: usize, count: usize) -> usize {
        let count = count.min(self.len.saturating_sub(start));
        let Some((mut at, offset)) = self.locate(start) else { return 0 };
        let mut left = count;
        if offset > 0 {
            left -= self.remove_in_node(at, offset, left);
            at += 1;
        }
        let mut whole = at;
        while let Some(node) = self.nodes.get(whole).filter(|node| left > 0 && node.len() <= left) {
            left -= node.len();
            self.owned = self.owned.saturating_sub(node.heap_bytes());
            whole += 1;
        }
        self.nodes.drain(at..whole);
        if left > 0 {
            self.remove_in_node(at, 0, left);
        }
        self.len -= count;
        if at > 0 {
            self.merge(at - 1);
        }
        self.give_back();
        count
    }

    /// Keeps `count` elements from `start` on and removes all others.
    pub fn trim(&mut self, start: usize, count: usize) {
        let end = start.saturating_add(count);
        self.remove_range(end, usize::MAX);
        self.remove_range(0, start);
    }

    /// Removes up to `limit` elements equal to `element`, the first ones seen from `end`; returns how many.
    pub fn remove_matches(&mut self, element: &[u8], limit: usize, end: ListEnd) -> usize {
        let mut left = limit;
        let nodes = self.nodes.len();
        for step in 0..nodes {
            if left == 0 {
                break;
            }
            let at = if end == ListEnd::Front { step } else { nodes - 1 - step };
            let Some(node) = self.nodes.get(at) else { break };
            let matches = node.iter().filter(|&e| e == element).count();
            let taken = matches.min(left);
            if taken > 0 {
                // Seen from the back, the first matches of the chunk are the ones to spare.
                let spared = if end == ListEnd::Front { 0 } else { matches - taken };
                self.edit(at, |node| drop_matches(node, element, spared, taken));
                left -= taken;
            }
        }
        let removed = limit - left;
        if removed > 0 {
            self.len -= removed;
            self.sweep();
        }
        removed
    }

    /// Iterates over the elements; both directions.
    pub fn iter(&self) -> ListIter<'_> {
        ListIter {
            front: NodeIter::default(),
            middle: self.nodes.iter(),
            back: NodeIter::default(),
            remaining: self.len,
        }
    }

    /// Iterates over `count` elements from `start` on, or those there are; both directions.
    pub fn range(&self, start: usize, count: usize) -> ListIter<'_> {
        let remaining = count.min(self.len.saturating_sub(start));
        let bounds = remaining
            .checked_sub(1)
            .and_then(|before_last| Some((self.locate(start)?, self.locate(start + before_last)?)));
        let Some(((first, skipped), (last, end))) = bounds else {
            return ListIter { remaining: 0, ..self.iter() };
        };
        let part = |node: usize, start, end| {
            self.nodes.get(node).map_or_else(NodeIter::default, |node| node.range(start, end))
        };
        if first == last {
            let front = part(first, skipped, end + 1);
            return ListIter { front, middle: self.nodes.range(0..0), back: NodeIter::default(), remaining };
        }
        ListIter {
            front: part(first, skipped, usize::MAX),
            middle: self.nodes.range(first + 1..last),
            back: part(last, 0, end + 1),
            remaining,
        }
    }

    /// The chunk of an element and its index in there.
    fn locate(&self, index: usize) -> Option<(usize, usize)> {
        let mut from_end = self.len.checked_sub(index)?.checked_sub(1)?;
        if index <= from_end {
            let mut offset = index;
            for (at, node) in self.nodes.iter().enumerate() {
                match offset.checked_sub(node.len()) {
                    Some(rest) => offset = rest,
                    None => return Some((at, offset)),
                }
            }
        } else {
            for (at, node) in self.nodes.iter().enumerate().rev() {
                match from_end.checked_sub(node.len()) {
                    Some(rest) => from_end = rest,
                    None => return Some((at, node.len() - 1 - from_end)),
                }
            }
        }
        None
    }

    /// Changes a chunk, keeping the books.
    fn edit<R: Default>(&mut self, at: usize, change: impl FnOnce(&mut Node) -> R) -> R {
        let Some(node) = self.nodes.get_mut(at) else { return R::default() };
        let before = node.heap_bytes();
        let result = change(node);
        self.owned = (self.owned + node.heap_bytes()).saturating_sub(before);
        result
    }

    fn insert_node(&mut self, at: usize, node: Node) {
        self.owned += node.heap_bytes();
        self.nodes.insert(at, node);
    }

    /// Removes up to `n` elements of a chunk, which has more than these.
    fn remove_in_node(&mut self, at: usize, offset: usize, n: usize) -> usize {
        self.edit(at, |node| match node {
            Node::Packed(packed) => packed.position(offset).map_or(0, |place| packed.remove(place, n)),
            Node::Plain(_) => 0,
        })
    }

    /// Merges a chunk with the next if both are small.
    fn merge(&mut self, at: usize) {
        let Some(Node::Packed(right)) = self.nodes.get(at + 1) else { return };
        let right_bytes = right.byte_len();
        let Some(Node::Packed(left)) = self.nodes.get(at) else { return };
        if left.byte_len() + right_bytes > MERGE_BYTES {
            return;
        }
        if let Some(node) = self.nodes.remove(at + 1) {
            self.owned = self.owned.saturating_sub(node.heap_bytes());
            self.edit(at, |left| append(left, &node));
        }
    }

    /// Drops empty chunks and merges small ones, everywhere.
    fn sweep(&mut self) {
        let mut kept: VecDeque<Node> = VecDeque::with_capacity(self.nodes.len());
        for node in self.nodes.drain(..) {
            match (kept.back_mut(), &node) {
                (_, Node::Packed(packed)) if packed.is_empty() => {}
                (Some(left @ Node::Packed(_)), Node::Packed(right))
                    if packed_bytes(left) + right.byte_len() <= MERGE_BYTES =>
                {
                    append(left, &node);
                }
                _ => kept.push_back(node),
            }
        }
        self.nodes = kept;
        self.owned = self.nodes.iter().map(Node::heap_bytes).sum();
        self.give_back();
    }

    /// Returns memory of the deque once it is mostly empty.
    fn give_back(&mut self) {
        if self.nodes.capacity() > 16 && self.nodes.len() < self.nodes.capacity() / 4 {
            self.nodes.shrink_to(self.nodes.len() * 2);
        }
    }
}

impl Clone for List {
    fn clone(&self) -> Self {
        let nodes = self.nodes.clone();
        // A copy has less spare room than its original.
        let owned = nodes.iter().map(Node::heap_bytes).sum();
        Self { nodes, len: self.len, owned }
    }
}

impl<'a> IntoIterator for &'a List {
    type Item = &'a [u8];
    type IntoIter = ListIter<'a>;

    fn into_iter(self) -> ListIter<'a> {
        self.iter()
    }
}

/// Iterator over elements of a [`List`].
#[derive(Debug, Clone)]
pub struct ListIter<'a> {
    front: NodeIter<'a>,
    middle: vec_deque::Iter<'a, Node>,
    back: NodeIter<'a>,
    remaining: usize,
}

impl<'a> Iterator for ListIter<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.remaining = self.remaining.checked_sub(1)?;
        loop {
            if let Some(element) = self.front.next() {
                return Some(element);
            }
            match self.middle.next() {
                Some(node) => self.front = node.iter(),
                None => return self.back.next(),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl DoubleEndedIterator for ListIter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        self.remaining = self.remaining.checked_sub(1)?;
        loop {
            if let Some(element) = self.back.next_back() {
                return Some(element);
            }
            match self.middle.next_back() {
                Some(node) => self.back = node.iter(),
                None => return self.front.next_back(),
            }
        }
    }
}

impl ExactSizeIterator for ListIter<'_> {}

/// Removes `taken` matches of a chunk after sparing the first `spared`; a big element leaves an empty chunk.
fn drop_matches(node: &mut Node, element: &[u8], spared: usize, taken: usize) {
    match node {
        Node::Packed(packed) => {
            let mut seen = 0;
            packed.retain(|e| {
                if e != element {
                    return true;
                }
                seen += 1;
                seen <= spared || seen > spared + taken
            });
        }
        Node::Plain(_) => *node = Node::Packed(Packed::new()),
    }
}

fn packed_bytes(node: &Node) -> usize {
    match node {
        Node::Packed(packed) => packed.byte_len(),
        Node::Plain(element) => element.len(),
    }
}

fn append(left: &mut Node, right: &Node) {
    if let (Node::Packed(left), Node::Packed(right)) = (left, right) {
        left.append(right);
    }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
