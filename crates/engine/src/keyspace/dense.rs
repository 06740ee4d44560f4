//! A vector in chunks: indexable in O(1), growing without ever moving what it holds.
//!
//! A plain `Vec` doubles, which means a copy of everything at once and up to half of the memory unused. Removal is by
//! swap with the last, so indices stay dense and a random index is a random element.

/// Elements in a chunk. The first chunk grows like a `Vec`, so that a small one stays small.
const CHUNK: usize = 1024;
const SHIFT: usize = CHUNK.trailing_zeros() as usize;

/// A dense vector in chunks of 1,024 elements.
#[derive(Debug)]
pub(crate) struct Dense<T> {
    chunks: Vec<Vec<T>>,
    len: usize,
}

impl<T> Default for Dense<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }
}

impl<T> Dense<T> {
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[inline]
    pub(crate) fn get(&self, index: usize) -> Option<&T> {
        self.chunks.get(index >> SHIFT)?.get(index & (CHUNK - 1))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.chunks.get_mut(index >> SHIFT)?.get_mut(index & (CHUNK - 1))
    }

    pub(crate) fn push(&mut self, value: T) {
        let chunk = self.len >> SHIFT;
        if chunk == self.chunks.len() {
            self.chunks.push(if chunk == 0 { Vec::new() } else { Vec::with_capacity(CHUNK) });
        }
        if let Some(chunk) = self.chunks.get_mut(chunk) {
            chunk.push(value);
            self.len += 1;
        }
    }

    /// Removes the element at `index`; the last one takes its place.
    pub(crate) fn swap_remove(&mut self, index: usize) -> Option<T> {
        if index >= self.len {
            return None;
        }
        let last = self.pop()?;
        match self.get_mut(index) {
            Some(place) => Some(std::mem::replace(place, last)),
            None => Some(last),
        }
    }

    fn pop(&mut self) -> Option<T> {
        let last = self.chunks.last_mut()?;
        let value = last.pop()?;
        self.len -= 1;
        if last.is_empty() {
            self.chunks.pop();
        }
        Some(value)
    }

    /// Bytes of the chunks themselves.
    pub(crate) fn memory(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.capacity() * size_of::<T>()).sum::<usize>()
            + self.chunks.capacity() * size_of::<Vec<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removal_by_swap_keeps_the_indices_dense() {
        let mut dense = Dense::default();
        for i in 0..5000_usize {
            dense.push(i);
        }
        assert_eq!(dense.swap_remove(10), Some(10));
        assert_eq!(dense.get(10), Some(&4999));
        assert_eq!(dense.swap_remove(4998), Some(4998));
        assert_eq!(dense.len(), 4998);
        assert_eq!(dense.swap_remove(4998), None);
        while dense.swap_remove(0).is_some() {}
        assert!(dense.is_empty());
        assert_eq!(dense.get(0), None);
    }
}
