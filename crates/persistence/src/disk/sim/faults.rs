//! What can befall a simulated disk.

/// What is left of the changes that were not synced when the machine lost power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Nothing: names and content are as last synced.
    Strict,
    /// Everything, as visible and as little durable as before: the process died, the machine did not.
    ProcessOnly,
    /// The first so many changes of names, and of each file the first so many bytes of its changes.
    Torn(u64),
    /// Any of the changes of names, and of each file the first so many bytes of its changes.
    AnyNames(u64),
    /// Any of the changes, of names and of content; what lies before a kept write and is lost reads as zeros.
    Holes(u64),
}

/// Something that goes wrong from now on, until `SimDisk::heal`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// There is room for so many more bytes; a write that does not fit is cut short.
    Full {
        /// Bytes that still fit.
        free: u64,
    },
    /// So many syncs of files fail, and lose the changes that they were to make durable.
    SyncFails {
        /// How many.
        times: u32,
    },
    /// So many syncs of directories fail; a later one may succeed.
    DirSyncFails {
        /// How many succeed before.
        after: u32,
        /// How many.
        times: u32,
    },
    /// So many writes fail without writing anything.
    WriteFails {
        /// How many.
        times: u32,
    },
    /// So many truncations fail.
    TruncateFails {
        /// How many.
        times: u32,
    },
    /// So many renames fail without effect.
    RenameFails {
        /// How many.
        times: u32,
    },
    /// So many renames panic without effect, as only a fault of the program could.
    RenamePanics {
        /// How many.
        times: u32,
    },
    /// No write takes more than so many bytes at once. No failure: callers have to go on.
    ShortWrites {
        /// The most bytes.
        most: usize,
    },
    /// Nothing can be changed.
    ReadOnly,
}
