//! Memory that will be needed soon is asked for now, so that several waits for it lie side by side.
//!
//! Only a hint: nothing is read, and nothing changes but time. Deliberately absent: what will be needed.
#![allow(unsafe_code)]

/// Bytes that come from memory together.
const LINE: usize = 64;
/// Lines of one thing that are asked for: the processor fetches what follows by itself.
const LINES: usize = 4;

/// Asks for the beginning of `bytes`, which is not looked at.
#[inline]
pub(crate) fn prefetch_bytes(bytes: &[u8]) {
    for line in bytes.chunks(LINE).take(LINES) {
        prefetch(line.as_ptr());
    }
}

/// Asks for the line that `what` begins in.
#[inline]
pub(crate) fn prefetch_value<T>(what: &T) {
    prefetch(std::ptr::from_ref(what).cast());
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch(address: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: any address may be given, and every x86-64 has the instruction.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
}

/// Elsewhere there is no stable way to say it.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn prefetch(_address: *const u8) {}
