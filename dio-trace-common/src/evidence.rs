//! What the probes observed of one request. This is the only input of the verdict.

/// Bits of [`Evidence::seen`]: the code paths that the kernel entered for this request.
pub mod seen {
    /// `iomap_dio_complete` ran: the iomap direct path was used (fs/iomap/direct-io.c).
    pub const IOMAP_DIO: u32 = 1 << 0;
    /// `iomap_dio_simple_complete` ran: the short iomap read path of 7.x.
    pub const IOMAP_SIMPLE: u32 = 1 << 1;
    /// `__blockdev_direct_IO` was entered: the legacy direct path (fs/direct-io.c).
    pub const LEGACY_DIO: u32 = 1 << 2;
    /// `filemap_read` returned: the buffered read path (mm/filemap.c). Proves nothing by itself,
    /// because a short direct read may enter it for its end-of-file check.
    pub const BUFFERED_READ: u32 = 1 << 3;
    /// `dax_iomap_rw` was entered (fs/dax.c).
    pub const DAX: u32 = 1 << 4;
    /// `balance_dirty_pages_ratelimited` was called for the request's mapping during a write: a
    /// buffered write loop ran. Cleared for a write to a device whose user buffer ended early: the
    /// loop is entered for the rest before the kernel finds that no more can be read
    /// (block/fops.c:blkdev_write_iter, fs/iomap/buffered-io.c:iomap_write_iter, since 6.6).
    pub const BUFFERED_WRITE: u32 = 1 << 5;
    /// `invalidate_inode_pages2_range` ran for the request's mapping.
    pub const INVALIDATED: u32 = 1 << 6;
    /// `bio_iov_iter_bounce` ran: the direct path used bounce pages of the kernel (7.x).
    pub const BOUNCED: u32 = 1 << 7;
    /// After [`BUFFERED_WRITE`], `do_writepages` wrote pages of the mapping back before the
    /// request returned.
    pub const WRITTEN_BACK: u32 = 1 << 8;
    /// The return probe of a page-cache function was missed: bytes may be unaccounted for.
    pub const MISSED: u32 = 1 << 9;
    /// `invalidate_inode_pages2_range` could not remove every page from the cache (-EBUSY): the
    /// direct write that follows must fall back.
    pub const INVALIDATE_FAILED: u32 = 1 << 10;
    /// The request stopped at an address where the user's buffer cannot be accessed.
    pub const BUFFER_FAULT: u32 = 1 << 11;
    /// The request stopped while the thread was being killed.
    pub const KILLED: u32 = 1 << 12;
    /// A direct path took the request, and its completion may have been missed: a probe is skipped
    /// if its interrupt hits while another probe runs. Set at the entry of the path (kprobe mode),
    /// or because the request completed outside of the thread that submitted it, which never
    /// happens in the page cache.
    pub const DIRECT_ENTERED: u32 = 1 << 13;
    /// A stacked file system forwarded the request to a file that is open without O_DIRECT.
    pub const LOWER_BUFFERED: u32 = 1 << 14;
    /// A write to FUSE whose range could not be dropped from the cache: it may have been copied to
    /// the cache and sent from there, which no probe sees (fs/fuse/file.c:fuse_perform_write).
    pub const SENT_CACHED: u32 = 1 << 15;
    /// The file system has a private direct path without a probe (`verdict::magic::has_private_path`).
    pub const PRIVATE_PATH: u32 = 1 << 16;
    /// The file is a block device, or its data is neither on a server nor in memory
    /// (`verdict::magic::is_local`), and no stacked file system forwarded the request.
    pub const LOCAL: u32 = 1 << 17;
    /// The user's buffer changed between the issue of a write and its completion. Only
    /// `--verify-stable` compares it.
    pub const BUFFER_CHANGED: u32 = 1 << 18;
    /// The request moved as many bytes as the kernel moves at most in one request: MAX_RW_COUNT
    /// (include/linux/fs.h), which depends on the size of a page.
    pub const AT_MOST: u32 = 1 << 19;
    /// The file is open without O_DIRECT (`--cached`).
    pub const NOT_ASKED: u32 = 1 << 20;
    /// With [`NOT_ASKED`]: the call asked for pages to be dropped behind it (RWF_DONTCACHE).
    pub const UNCACHED: u32 = 1 << 21;
    /// A direct path was entered for a kiocb, whatever its result.
    pub const DIRECT_TRIED: u32 = IOMAP_DIO | IOMAP_SIMPLE | LEGACY_DIO | DIRECT_ENTERED;
}

/// The evidence that the probes collected for one request, summed over its attempts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Bytes that the direct path reported, before the kernel trims them at the end of the file.
    pub direct_bytes: u64,
    /// Bytes that went through the page cache (`filemap_read`: return value minus its third
    /// argument, the bytes already read directly).
    pub cached_bytes: u64,
    /// See [`seen`].
    pub seen: u32,
    /// Last error of the direct path (0 or -errno).
    pub direct_err: i32,
    /// Last error of the buffered path (0 or -errno).
    pub buffered_err: i32,
    /// Number of times the request was issued to the file system (io_uring: inline, then io-wq).
    pub attempts: u32,
    /// Dirty pages written back first. Approximate: `nr_to_write` counts folios on some kernels.
    pub flushed_pages: u32,
    /// Pages removed from the cache. Approximate: a difference of `nrpages` may race.
    pub invalidated_pages: u32,
    /// Pages that this thread added to the file's page cache for the request, with read-ahead; of a
    /// request that did not ask for direct I/O ([`seen::NOT_ASKED`]) only those of its own range.
    pub added_pages: u32,
    /// OR of all user buffer addresses, without file offsets (only the low bits matter); valid if
    /// [`Evidence::segments`] is not 0.
    pub addr_bits: u32,
    /// OR of all segment lengths; valid if [`Evidence::segments`] is not 0.
    pub len_bits: u32,
    /// Number of segments that were examined to explain an EINVAL; 0 if none.
    pub segments: u32,
}

impl Evidence {
    /// No evidence.
    pub const NONE: Self = Self {
        direct_bytes: 0,
        cached_bytes: 0,
        seen: 0,
        direct_err: 0,
        buffered_err: 0,
        attempts: 0,
        flushed_pages: 0,
        invalidated_pages: 0,
        added_pages: 0,
        addr_bits: 0,
        len_bits: 0,
        segments: 0,
    };
}

/// The properties of a request that the verdict depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// True for a write.
    pub write: bool,
    /// True if the other side is a pipe (splice, sendfile), which limits the number of bytes.
    pub spliced: bool,
    /// True if the file is a block device.
    pub block_device: bool,
    /// `super_block.s_magic` of the file's file system (meaningless for a block device).
    pub magic: u32,
    /// `super_block.s_magic` of the lower file system that a stacked one forwarded to, else 0.
    pub lower_magic: u32,
    /// Requested bytes; never 0.
    pub len: u64,
    /// File offset in bytes.
    pub pos: i64,
    /// Bytes or -errno, as the program receives it.
    pub ret: i64,
    /// Size of the file or device when the request was issued, in bytes.
    pub size_begin: i64,
    /// Size of the file or device when the request completed, in bytes.
    pub size_end: i64,
}
