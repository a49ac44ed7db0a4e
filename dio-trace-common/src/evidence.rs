//! What the probes saw of one request: the only input of the verdict.

/// Bits of [`Evidence::seen`]: which machinery the kernel entered for this request.
pub mod seen {
    /// `iomap_dio_complete` ran: the iomap direct path was used (fs/iomap/direct-io.c).
    pub const IOMAP_DIO: u32 = 1 << 0;
    /// `iomap_dio_simple_complete` ran: the short iomap read path of 7.x.
    pub const IOMAP_SIMPLE: u32 = 1 << 1;
    /// `__blockdev_direct_IO` was entered: the legacy direct path (fs/direct-io.c).
    pub const LEGACY_DIO: u32 = 1 << 2;
    /// `filemap_read` returned: the buffered read path (mm/filemap.c). Says nothing by itself:
    /// a short direct read may enter it for its end-of-file check.
    pub const BUFFERED_READ: u32 = 1 << 3;
    /// `dax_iomap_rw` was entered (fs/dax.c).
    pub const DAX: u32 = 1 << 4;
    /// `balance_dirty_pages_ratelimited` was called for the request's mapping while it wrote: a
    /// write loop through the page cache ran. Taken back of a device's write that ran out of its
    /// buffer: the loop is entered for the rest before it is seen that there is none to read
    /// (block/fops.c:blkdev_write_iter, fs/iomap/buffered-io.c:iomap_write_iter, 6.6 on).
    pub const BUFFERED_WRITE: u32 = 1 << 5;
    /// `invalidate_inode_pages2_range` ran for the request's mapping.
    pub const INVALIDATED: u32 = 1 << 6;
    /// `bio_iov_iter_bounce` ran: the direct path went through pages of the kernel's own (7.x).
    pub const BOUNCED: u32 = 1 << 7;
    /// After [`BUFFERED_WRITE`], `do_writepages` wrote pages of the mapping back before the
    /// request returned.
    pub const WRITTEN_BACK: u32 = 1 << 8;
    /// The return of a page-cache probe was missed: bytes may be unaccounted for.
    pub const MISSED: u32 = 1 << 9;
    /// `invalidate_inode_pages2_range` could not take every page out of the cache (-EBUSY): the
    /// direct write behind it must fall back.
    pub const INVALIDATE_FAILED: u32 = 1 << 10;
    /// The count stopped where the user's buffer cannot be accessed.
    pub const BUFFER_FAULT: u32 = 1 << 11;
    /// The count stopped while the thread was being killed.
    pub const KILLED: u32 = 1 << 12;
    /// A direct path took the request, and its own end may have gone by unseen: it comes in an
    /// interrupt, and a probe that this very interrupt found at work is skipped. Known by its entry
    /// (kprobe mode), or because the request completed outside of the thread that submitted it,
    /// which the page cache never does.
    pub const DIRECT_ENTERED: u32 = 1 << 13;
    /// A stacked file system handed the request to a file that is open without O_DIRECT.
    pub const INNER_BUFFERED: u32 = 1 << 14;
    /// A write to FUSE whose range could not be dropped from the cache: it may have been copied there and
    /// sent, which no probe sees (fs/fuse/file.c:fuse_perform_write).
    pub const SENT_CACHED: u32 = 1 << 15;
    /// Its file system has a direct way of its own that no probe sees (`verdict::magic::has_own_way`).
    pub const OWN_WAY: u32 = 1 << 16;
    /// The file is a block device, or its file system's data is neither a server's nor in memory
    /// (`verdict::magic::is_local`), and no stacked one handed the request on.
    pub const LOCAL: u32 = 1 << 17;
    /// A direct path was entered for a kiocb, whatever became of it.
    pub const DIRECT_TRIED: u32 = IOMAP_DIO | IOMAP_SIMPLE | LEGACY_DIO | DIRECT_ENTERED;
}

/// What one request left behind in the probes. All counters add up over its attempts.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Bytes the direct machinery reported, before the kernel trims at end of file.
    pub direct_bytes: u64,
    /// Bytes that went through the page cache (`filemap_read`: return value minus its third
    /// argument, the bytes already read directly).
    pub cached_bytes: u64,
    /// See [`seen`].
    pub seen: u32,
    /// Last error of the direct machinery (0 or -errno).
    pub direct_err: i32,
    /// Last error of the buffered path (0 or -errno).
    pub buffered_err: i32,
    /// Times the request was issued to the file system (io_uring: inline, then io-wq).
    pub attempts: u32,
    /// Dirty pages written back first; approximate, `nr_to_write` counts folios on some kernels.
    pub flushed_pages: u32,
    /// Pages taken out of the cache; approximate, an `nrpages` difference may race.
    pub invalidated_pages: u32,
    /// Pages this thread put into the file's page cache for the request, read-ahead included.
    pub added_pages: u32,
    /// OR of all user buffer addresses, offsets aside (only its low bits matter); valid if
    /// [`Evidence::segments`] is not 0.
    pub addr_bits: u32,
    /// OR of all segment lengths; valid if [`Evidence::segments`] is not 0.
    pub len_bits: u32,
    /// Segments looked at to explain an EINVAL; 0 if none was.
    pub segments: u32,
}

impl Evidence {
    /// Nothing seen.
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

/// The request as a whole, as the verdict needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// True for a write.
    pub write: bool,
    /// True if a pipe is the other side (splice, sendfile): it bounds the count.
    pub spliced: bool,
    /// True if the file is a block device.
    pub block_device: bool,
    /// `super_block.s_magic` of the file's file system (meaningless for a block device).
    pub magic: u32,
    /// The same of the one that a stacked file system handed the request on to, or 0.
    pub inner_magic: u32,
    /// Bytes asked for; never 0.
    pub len: u64,
    /// File offset in bytes.
    pub pos: i64,
    /// Bytes or -errno, as the program gets it.
    pub ret: i64,
    /// Size of the file or device when the request began, in bytes.
    pub size_begin: i64,
    /// The same when it ended.
    pub size_end: i64,
    /// Every probe that can see a read or write through the page cache is attached.
    pub cache_probes_complete: bool,
}
