//! The value types' own account of their memory against what the allocator really handed out.
//!
//! `maxmemory` decides by that account, so it must hold while values grow, shrink, convert and are copied.

#![allow(unsafe_code, reason = "a global allocator that counts has to implement an unsafe trait")]

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
};

use mtcache_engine::types::{EncodingLimits, Hash, List, ListEnd, Set, SortedSet};
use tikv_jemallocator::{Jemalloc, usable_size};

const LIMITS: EncodingLimits = EncodingLimits::DEFAULT;

/// How far the account may be off for a value of some size.
const TOLERANCE: f64 = 0.05;

/// And for a small one, in bytes.
const SMALL_TOLERANCE: f64 = 64.0;

struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static LIVE: Cell<usize> = const { Cell::new(0) };
}

fn count(pointer: *mut u8, change: fn(usize, usize) -> usize) {
    if !pointer.is_null() {
        // SAFETY: every pointer that comes here was allocated by jemalloc and is not yet freed.
        let size = unsafe { usable_size(pointer) };
        let _ = LIVE.try_with(|live| live.set(change(live.get(), size)));
    }
}

// SAFETY: every call goes on to jemalloc as it came; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are jemalloc's demands.
        let pointer = unsafe { Jemalloc.alloc(layout) };
        count(pointer, usize::wrapping_add);
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(pointer, usize::wrapping_sub);
        // SAFETY: as above.
        unsafe { Jemalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(pointer, usize::wrapping_sub);
        // SAFETY: as above.
        let moved = unsafe { Jemalloc.realloc(pointer, layout, size) };
        count(if moved.is_null() { pointer } else { moved }, usize::wrapping_add);
        moved
    }
}

fn live() -> usize {
    LIVE.get()
}

fn assert_close(what: &str, told: usize, real: usize) {
    let off = (told as f64 - real as f64).abs();
    assert!(
        off <= (real as f64 * TOLERANCE).max(SMALL_TOLERANCE),
        "{what}: {told} bytes told, {real} bytes held"
    );
}

/// Builds a value of `size` elements, then halves it, then copies it, and checks the account each time.
fn check<T: Clone>(
    what: &str,
    size: usize,
    new: fn() -> T,
    add: impl Fn(&mut T, usize),
    remove: impl Fn(&mut T, usize),
    told: fn(&T) -> usize,
) {
    make_hash_seed();
    let before = live();
    let mut value = new();
    for i in 0..size {
        add(&mut value, i);
    }
    let full = live() - before;
    assert_close(&format!("{what} of {size}"), told(&value), full);
    for i in (0..size).step_by(2) {
        remove(&mut value, i);
    }
    let halved = live() - before;
    assert_close(&format!("{what} of {size}, half of it removed"), told(&value), halved);
    let copy = value.clone();
    let copied = live() - before - halved;
    assert_close(&format!("copy of {what} of {size}"), told(&copy), copied);
    drop(copy);
    for i in size..size + size / 4 {
        add(&mut value, i);
    }
    let grown = live() - before;
    assert_close(&format!("{what} of {size}, grown again"), told(&value), grown);
    drop(value);
    assert_eq!(live(), before, "{what} of {size} left something behind");
}

/// Has the process's one hash seed made, which belongs to no value.
fn make_hash_seed() {
    Set::new().add(b"not a number", &LIMITS);
}

const SIZES: [usize; 10] = [0, 1, 2, 5, 20, 100, 129, 600, 5000, 100_000];

/// A text of exactly `len` bytes (or the digits' length) that differs for each `i`.
fn text(i: usize, len: usize) -> Vec<u8> {
    format!("{i:0>len$}").into_bytes()
}

#[test]
fn hashes_tell_their_memory() {
    for size in SIZES {
        for (field, value) in [(4, 4), (10, 20), (12, 100), (200, 3)] {
            check(
                &format!("hash with {field}-byte fields and {value}-byte values"),
                size,
                Hash::new,
                |hash, i| {
                    // Meeting a known field again must not upset the account either.
                    for _ in 0..2 {
                        hash.set(&text(i, field), &vec![b'v'; value + i % 3], &LIMITS);
                    }
                },
                |hash, i| assert!(hash.remove(&text(i, field))),
                Hash::heap_bytes,
            );
        }
    }
}

#[test]
fn sets_tell_their_memory() {
    for size in SIZES {
        for len in [0, 10, 40] {
            check(
                &format!("set of {len}-byte members"),
                size,
                Set::new,
                |set, i| {
                    set.add(&text(i, len), &LIMITS);
                    set.add(&text(i, len), &LIMITS);
                },
                |set, i| assert!(set.remove(&text(i, len))),
                Set::heap_bytes,
            );
        }
    }
}

#[test]
fn lists_tell_their_memory() {
    for size in SIZES {
        for len in [3, 20, 200, 3000, 9000] {
            if size * len > 100_000_000 {
                continue;
            }
            for end in [ListEnd::Front, ListEnd::Back] {
                check(
                    &format!("list of {len}-byte elements pushed at the {end:?}"),
                    size,
                    List::new,
                    |list, i| list.push(end, &text(i, len), &LIMITS),
                    |list, _| {
                        list.pop(ListEnd::Back);
                    },
                    List::heap_bytes,
                );
            }
        }
    }
}

#[test]
fn lists_tell_their_memory_after_changes_in_the_middle() {
    let before = live();
    let mut list = List::new();
    for i in 0..20_000_usize {
        list.insert(i / 2, &text(i, i % 90), &LIMITS);
    }
    assert_close("list built in the middle", list.heap_bytes(), live() - before);
    for i in (0..10_000).rev() {
        list.set(i, &text(i, i % 200), &LIMITS);
    }
    assert_close("list with replaced elements", list.heap_bytes(), live() - before);
    for i in (0..15_000).rev().step_by(2) {
        list.remove_range(i, 1);
    }
    assert_close("list with holes", list.heap_bytes(), live() - before);
    list.trim(100, 3000);
    assert_close("trimmed list", list.heap_bytes(), live() - before);
}

#[test]
fn sorted_sets_tell_their_memory() {
    for size in SIZES {
        for len in [0, 10, 40] {
            check(
                &format!("sorted set of {len}-byte members"),
                size,
                SortedSet::new,
                |set, i| {
                    set.insert(&text(i, len), (i * 7919 % 99_991) as f64, &LIMITS);
                    set.insert(&text(i, len), (i * 7919 % 100_003) as f64, &LIMITS);
                },
                |set, i| assert!(set.remove(&text(i, len)).is_some()),
                SortedSet::heap_bytes,
            );
        }
    }
}

/// Bytes per element of large values, printed for comparison (`--no-capture`); the bounds keep them from creeping up.
#[test]
fn large_values_stay_lean() {
    let size = 400_000;
    let per_element = |bytes: usize| bytes as f64 / size as f64;
    let (mut hash, mut set, mut sorted, mut list) = (Hash::new(), Set::new(), SortedSet::new(), List::new());
    for i in 0..size {
        let member = text(i, 12);
        hash.set(&member, &text(i, 20), &LIMITS);
        set.add(&member, &LIMITS);
        sorted.insert(&member, i as f64, &LIMITS);
        list.push(ListEnd::Back, &member, &LIMITS);
    }
    for (what, bytes, most) in [
        ("hash, 12-byte field and 20-byte value", hash.heap_bytes(), 84.0),
        ("set, 12-byte member", set.heap_bytes(), 35.0),
        ("sorted set, 12-byte member", sorted.heap_bytes(), 56.0),
        ("list, 12-byte element", list.heap_bytes(), 14.3),
    ] {
        println!("{what}: {:.1} bytes per element", per_element(bytes));
        assert!(per_element(bytes) < most, "{what}: {}", per_element(bytes));
    }
}
