//! The process's allocator, and how it is set.
//!
//! jemalloc keeps 128 bytes of books for each slab, and slabs of sizes that are powers of two are single pages by default: for
//! entries of 256 bytes, three per cent. Slabs of up to 16 pages make that half a byte per entry, and room for eight chunks of
//! lists is looked for at once. What is freed goes back to
//! the system after a second, by a thread of the allocator's own: an idle server gives back what a busy one has used.
//! `MALLOC_CONF`-style settings from the environment (`_RJEM_MALLOC_CONF`) come on top of these.
#![allow(unsafe_code)]

use mtcache_node::AllocatorFigures;
use tikv_jemalloc_ctl::{epoch, stats};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Pages per slab, by size of what it holds; jemalloc bounds a slab to 512 pieces.
const SETTINGS: &std::ffi::CStr = c"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0,\
      slab_sizes:64-64:4|128-128:8|256-256:16|512-512:16|1024-1024:16|2048-2048:16|4096-4096:16|8192-8192:16";

/// A pointer to text, as the C side reads it.
#[repr(transparent)]
struct Text(*const std::ffi::c_char);

// SAFETY: it points to a constant that is never written.
unsafe impl Sync for Text {}

// SAFETY: jemalloc declares this name as a pointer to its settings, and nothing else uses it.
#[unsafe(export_name = "_rjem_malloc_conf")]
#[used]
static MALLOC_CONF: Text = Text(SETTINGS.as_ptr());

/// What jemalloc says about itself now.
pub(crate) fn figures() -> AllocatorFigures {
    // Its figures stand still until the epoch is advanced. None of these fails in a jemalloc that keeps statistics.
    let _ = epoch::advance();
    let read = |figure: tikv_jemalloc_ctl::Result<usize>| figure.unwrap_or_default() as u64;
    AllocatorFigures {
        allocated: read(stats::allocated::read()),
        active: read(stats::active::read()),
        resident: read(stats::resident::read()),
        name: "jemalloc-5.3.1",
    }
}
