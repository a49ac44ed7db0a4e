//! Events besides requests: a file's names, a rejected open, mixed access.

use crate::abi::{FileId, Task};

/// First word of every ring-buffer record.
pub const EVENT_REQUEST: u32 = 1;
pub const EVENT_FILE: u32 = 2;
pub const EVENT_REJECTED_OPEN: u32 = 3;
pub const EVENT_BUFFERED_USE: u32 = 4;

/// Bytes of path in one [`FileEvent`].
pub const PATH_BYTES: usize = 2048;
/// Longest name of a path component (NAME_MAX), with its NUL.
pub const NAME_BYTES: usize = 256;
/// Most path components of one path.
pub const PATH_DEPTH: u32 = 40;

/// [`FileEvent::flags`]: the dentry is unhashed: the file was deleted, or never had a name.
pub const FILE_UNHASHED: u32 = 1;
/// [`FileEvent::flags`]: the walk stopped before the root.
pub const FILE_TRUNCATED: u32 = 2;
/// [`FileEvent::flags`]: named because of `--expect-direct`.
pub const FILE_UNASKED: u32 = 4;
/// [`FileEvent::flags`]: found by its pages and not by an open file: its mount is not known, and the
/// names lead up to the root of the file system.
pub const FILE_WITHOUT_MOUNT: u32 = 8;

/// A file that is seen for the first time: its path components from the leaf up to the mount root.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FileEvent {
    pub kind: u32,
    pub flags: u32,
    pub file: FileId,
    /// A thread that used the file.
    pub task: Task,
    /// `mount.mnt_id`, as in /proc/PID/mountinfo.
    pub mnt_id: i32,
    /// Number of bytes in `names` that are used.
    pub names_len: u32,
    /// `file_system_type.name`, NUL-terminated.
    pub fs_name: [u8; 16],
    /// NUL-terminated names, leaf first.
    pub names: [u8; PATH_BYTES + NAME_BYTES],
}

/// [`RejectedOpen::by`]: open(2) and its variants.
pub const BY_OPEN: u16 = 1;
/// [`RejectedOpen::by`]: fcntl(2) with F_SETFL.
pub const BY_FCNTL: u16 = 2;

/// A rejected open: O_DIRECT itself was rejected with EINVAL, so there is no descriptor that could
/// issue a request.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct RejectedOpen {
    /// Always [`EVENT_REJECTED_OPEN`].
    pub kind: u32,
    /// `BY_*`
    pub by: u16,
    /// Not 0: rejected by the VFS's check for O_DIRECT; 0: by the file system's own open.
    pub proven: u16,
    /// CLOCK_MONOTONIC in ns.
    pub time_ns: u64,
    pub file: FileId,
    pub task: Task,
}

/// [`BufferedUse::how`]: added pages of the file to the page cache (a buffered read, a mapping).
pub const MIXED_CACHED: u32 = 1;
/// [`BufferedUse::how`]: dirtied pages of the file in the page cache (a buffered write, a mapping).
pub const MIXED_DIRTIED: u32 = 2;
/// [`BufferedUse::how`]: added pages of the file to the page cache in order to write them. Not sent as an
/// event, because [`MIXED_DIRTIED`] follows.
pub const MIXED_FILLED: u32 = 3;

/// [`BufferedUse::how`]: a file of `--expect-direct` was used without asking for direct I/O. The other
/// bits are `UNASKED_*`; what is counted is an [`UnaskedSum`].
pub const UNASKED: u32 = 1 << 3;
/// [`UNASKED`]: by writing calls; without this bit, by reading ones.
pub const UNASKED_WRITE: u32 = 1 << 0;
/// [`UNASKED`]: by calls with RWF_DONTCACHE.
pub const UNASKED_DONTCACHE: u32 = 1 << 1;
/// [`UNASKED`]: by mappings.
pub const UNASKED_MMAP: u32 = 1 << 2;

/// Mixed access: a process uses a file through the page cache that another one uses with O_DIRECT.
/// The key under which its pages are counted. (See [`UNASKED`] for the other use of this type.)
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BufferedUse {
    pub file: FileId,
    pub tgid: u32,
    /// `MIXED_*`, or [`UNASKED`] with its bits.
    pub how: u32,
}

/// Uses of one process, file and kind, see [`UNASKED`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnaskedSum {
    /// Calls, or mappings.
    pub calls: u64,
    /// Bytes that the calls asked for, of reads only those inside the file; or that were mapped.
    pub bytes: u64,
}

impl BufferedUse {
    /// True if it is a use of a file of `--expect-direct` that did not ask for direct I/O.
    #[must_use]
    #[inline(always)]
    pub const fn is_unasked(&self) -> bool {
        self.how & UNASKED != 0
    }
}

/// A [`BufferedUse`] seen for the first time.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BufferedUseEvent {
    /// Always [`EVENT_BUFFERED_USE`].
    pub kind: u32,
    /// The process (thread-group id) that uses the file directly; 0: there are several. Of an
    /// [`UNASKED`] use, `file.f_flags`.
    pub direct_user: u32,
    /// CLOCK_MONOTONIC in ns.
    pub time_ns: u64,
    pub buffered_use: BufferedUse,
    /// The thread that used the file through the page cache first.
    pub task: Task,
}

// No padding, see the parent module.
const _: () = {
    assert!(size_of::<FileEvent>() == 8 + 24 + 24 + 8 + 16 + PATH_BYTES + NAME_BYTES);
    assert!(size_of::<RejectedOpen>() == 16 + 24 + 24);
    assert!(size_of::<BufferedUse>() == 32);
    assert!(size_of::<BufferedUseEvent>() == 16 + 32 + 24);
};
