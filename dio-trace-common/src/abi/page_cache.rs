//! Pages that come into the page cache and leave it, for `dio-trace cache`.

use crate::{abi::FileId, byte_enum::byte_enum};

byte_enum! {
    /// How pages came into the page cache, how they left it, and what is known of them.
    PageFlow {
        /// Came in: a read asked for them.
        Read = "read",
        /// Came in: read ahead of what a read asked for.
        ReadAhead = "read_ahead",
        /// Came in: somebody wrote to them.
        Write = "write",
        /// Came in: an access through a mapping needed them.
        Fault = "fault",
        /// Came in: read ahead of an access through a mapping.
        FaultAhead = "fault_ahead",
        /// Came in: the program asked for them in advance (POSIX_FADV_WILLNEED, MADV_WILLNEED,
        /// readahead).
        Prefetch = "prefetch",
        /// Came in: for another reason, such as metadata of a file system.
        OtherIn = "other_in",
        /// Left: reclaimed, because memory was needed.
        Reclaimed = "reclaimed",
        /// Left: the program gave them up (POSIX_FADV_DONTNEED).
        Dontneed = "dontneed",
        /// Left: the file was truncated, punched or deleted, its inode left memory, or a block device was
        /// closed for the last time.
        Truncated = "truncated",
        /// Left: invalidated by a direct write, or by the file system (FUSE, NFS).
        Invalidated = "invalidated",
        /// Left: a read dropped them behind itself (RWF_DONTCACHE).
        Dropbehind = "dropbehind",
        /// Left: clean pages were dropped (drop_caches, BLKFLSBUF).
        DroppedClean = "dropped_clean",
        /// Left: for another reason.
        OtherOut = "other_out",
        /// Came in, and had been reclaimed before: also counted by how they came in.
        Refault = "refault",
        /// Of those read ahead: read later.
        AheadUsed = "ahead_used",
        /// Of those read ahead: left without having been read.
        AheadUnused = "ahead_unused",
    }
}

impl PageFlow {
    /// True if the pages came in by it.
    #[must_use]
    pub const fn is_in(self) -> bool {
        self as u8 <= Self::OtherIn as u8
    }

    /// True if the pages left by it.
    #[must_use]
    pub const fn is_out(self) -> bool {
        self as u8 > Self::OtherIn as u8 && self as u8 <= Self::OtherOut as u8
    }
}

/// The key of a sum of pages: whose they are, by whom, how.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageUse {
    /// The file, or [`FileId::NONE`] for the files that there was no room for.
    pub file: FileId,
    /// The process (thread-group id) in whose thread it happened.
    pub tgid: u32,
    /// [`PageFlow`]
    pub flow: u32,
}

/// The sum of a [`PageUse`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PageSum {
    pub pages: u64,
    /// `file.f_flags` of the open file by which the first of them came in.
    pub open_flags: u32,
    /// Not 0: `open_flags` are known.
    pub has_flags: u32,
}

/// A process as it was when it was first seen.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheUser {
    /// The process's name, NUL-padded.
    pub comm: [u8; 16],
    /// Id of its cgroup (v2): the inode number of the cgroup's directory; 0 if it is not known.
    pub cgroup: u64,
    /// Not 0: a thread of the kernel.
    pub kernel: u64,
}

// No padding, see the parent module.
const _: () = {
    assert!(size_of::<PageUse>() == 32);
    assert!(size_of::<PageSum>() == 16);
    assert!(size_of::<CacheUser>() == 32);
};
