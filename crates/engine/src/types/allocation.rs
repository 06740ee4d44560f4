//! What the allocator really hands out for a request, so that `maxmemory` counts what the process pays.
//!
//! The classes are those of jemalloc 5.3.1, the allocator of the server: multiples of 16 up to 128 (and one class of
//! 8), four classes to each doubling up to 32 KiB, whole pages beyond. Thread caches and fragmentation are
//! deliberately not modelled.

/// Requests above this get whole pages.
const LARGEST_CLASS: usize = 32 * 1024;

const PAGE: usize = 4096;

/// Returns the bytes the allocator sets aside for a request of `n` bytes (0 for 0: nothing is allocated).
#[inline]
pub fn allocation_size(n: usize) -> usize {
    let step = match n {
        0 => return 0,
        1..=8 => 8,
        9..=128 => 16,
        // Between two powers of two lie four classes, so the step is a quarter of the lower power.
        129..=LARGEST_CLASS => 1_usize << ((n - 1).ilog2() - 2),
        _ => PAGE,
    };
    n.checked_add(step - 1).map_or(usize::MAX, |padded| padded & !(step - 1))
}

/// Returns the heap bytes of a vector of `capacity` elements of type `T`.
#[inline]
pub(super) fn vec_bytes<T>(capacity: usize) -> usize {
    allocation_size(capacity.saturating_mul(size_of::<T>()))
}

/// Grows `vec` so that `additional` more elements fit, taking exactly what the allocator would hand out anyway.
///
/// Four classes to a doubling keep appending amortised constant and the slack under a quarter; where the allocator
/// gives whole pages, an eighth is added to the same end.
pub(super) fn reserve_class<T>(vec: &mut Vec<T>, additional: usize) {
    let needed = vec.len().saturating_add(additional);
    if needed > vec.capacity() {
        let bytes = needed.saturating_mul(size_of::<T>());
        let headroom = if bytes > LARGEST_CLASS { bytes / 8 } else { 0 };
        let capacity = allocation_size(bytes.saturating_add(headroom)) / size_of::<T>().max(1);
        vec.reserve_exact(capacity.max(needed) - vec.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_round_up_to_the_class_that_holds_them() {
        let cases = [
            (0, 0),
            (1, 8),
            (8, 8),
            (9, 16),
            (17, 32),
            (128, 128),
            (129, 160),
            (160, 160),
            (161, 192),
            (256, 256),
            (257, 320),
            (1025, 1280),
            (4096, 4096),
            (4097, 5120),
            (16_385, 20_480),
            (28_673, 32_768),
            (32_769, 36_864),
            (70_000, 73_728),
            (1 << 20, 1 << 20),
            ((1 << 20) + 1, (1 << 20) + 4096),
        ];
        for (asked, given) in cases {
            assert_eq!(allocation_size(asked), given, "asked {asked}");
        }
    }

    #[test]
    fn absurd_sizes_saturate() {
        assert_eq!(allocation_size(usize::MAX), usize::MAX);
    }

    #[test]
    fn reserving_takes_a_whole_class() {
        let mut bytes: Vec<u8> = Vec::new();
        reserve_class(&mut bytes, 130);
        assert_eq!(bytes.capacity(), 160);
    }
}
