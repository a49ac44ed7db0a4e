//! One read or write: [`Request`].

use crate::{
    abi::{EVENT_REQUEST, FileId, Task},
    byte_enum::byte_enum,
    evidence::{Evidence, Facts},
};

byte_enum! {
    /// The operation of a request, see [`Request::op`].
    Op {
        Read = "read",
        Write = "write",
    }
}

byte_enum! {
    /// The API that the program used, see [`Request::api`].
    Api {
        /// None of the probes of an API was hit.
        Unknown = "unknown",
        /// read, pread
        Read = "read",
        /// readv, preadv, preadv2
        Readv = "readv",
        /// io_submit
        Libaio = "libaio",
        IoUring = "io_uring",
        /// splice, sendfile
        Splice = "splice",
    }
}

pub const OP_READ: u8 = Op::Read as u8;
pub const OP_WRITE: u8 = Op::Write as u8;

pub const API_NONE: u8 = Api::Unknown as u8;
pub const API_READ: u8 = Api::Read as u8;
pub const API_READV: u8 = Api::Readv as u8;
pub const API_LIBAIO: u8 = Api::Libaio as u8;
pub const API_IO_URING: u8 = Api::IoUring as u8;
pub const API_SPLICE: u8 = Api::Splice as u8;

/// [`Request::flags`]: the file is a block device.
pub const REQ_BLOCK_DEVICE: u8 = 1 << 0;
/// [`Request::flags`]: became asynchronous or was retried; it is in the map of kiocbs.
pub const REQ_ASYNC: u8 = 1 << 1;
/// [`Request::flags`]: io_uring returned -EAGAIN for this attempt; another one is expected.
pub const REQ_PUNTED: u8 = 1 << 2;
/// [`Request::flags`]: [`Request::user`] points to `nr_segs` iovecs, not to the buffer.
pub const REQ_VECTORED: u8 = 1 << 3;
/// [`Request::flags`]: a completion was reported to io_uring, but the final result comes later.
pub const REQ_PROVISIONAL: u8 = 1 << 4;
/// [`Request::flags`]: the iovecs are those of a 32-bit program (`struct compat_iovec`).
pub const REQ_COMPAT: u8 = 1 << 5;

/// Bits of [`Request::rw_flags`]: the flags of the call (include/uapi/linux/fs.h). The kernel's
/// IOCB_* have the same values since 5.10 (include/linux/fs.h).
pub mod rwf {
    pub const HIPRI: u16 = 0x01;
    pub const DSYNC: u16 = 0x02;
    pub const SYNC: u16 = 0x04;
    pub const NOWAIT: u16 = 0x08;
    pub const APPEND: u16 = 0x10;
    pub const NOAPPEND: u16 = 0x20;
    pub const ATOMIC: u16 = 0x40;
    pub const DONTCACHE: u16 = 0x80;
    pub const NOSIGNAL: u16 = 0x100;

    /// Flags that no kernel has (up to 7.3). The highest bit also stands for all above it.
    pub const UNKNOWN: u16 = 0xfe00;

    /// The flags of a call in the 16 bits of [`super::Request::rw_flags`].
    #[must_use]
    #[inline(always)]
    pub const fn of(flags: u32) -> u16 {
        flags as u16 | if flags >> 16 != 0 { 1 << 15 } else { 0 }
    }

    /// All flags with their names.
    pub const ALL: &[(u16, &str)] = &[
        (HIPRI, "RWF_HIPRI"),
        (DSYNC, "RWF_DSYNC"),
        (SYNC, "RWF_SYNC"),
        (NOWAIT, "RWF_NOWAIT"),
        (APPEND, "RWF_APPEND"),
        (NOAPPEND, "RWF_NOAPPEND"),
        (ATOMIC, "RWF_ATOMIC"),
        (DONTCACHE, "RWF_DONTCACHE"),
        (NOSIGNAL, "RWF_NOSIGNAL"),
        (UNKNOWN, "RWF_unknown"),
    ];
}

/// Bits of [`Request::ring`]: of the io_uring that the request was made with.
pub mod ring {
    /// IORING_SETUP_IOPOLL: completions are polled for.
    pub const IOPOLL: u8 = 1 << 0;
    /// IORING_SETUP_SQPOLL: a kernel thread submits.
    pub const SQPOLL: u8 = 1 << 1;
    /// A thread of io-wq made the last attempt.
    pub const WORKER: u8 = 1 << 2;

    /// All flags with their names.
    pub const ALL: &[(u8, &str)] = &[(IOPOLL, "IOPOLL"), (SQPOLL, "SQPOLL"), (WORKER, "io-wq")];
}

/// Bits of [`Request::would_block`]: why an attempt that must not wait ended with EAGAIN. Only
/// `--why-eagain` attaches the probes that set them.
pub mod would_block {
    /// The time stamps or the version of the inode had to be updated, or its setuid bits or
    /// capabilities removed (fs/inode.c:kiocb_modified, 6.0).
    pub const TIMESTAMP: u8 = 1 << 0;
    /// Dirty pages of the range had to be written back (mm/filemap.c:kiocb_write_and_wait; before
    /// 6.6 filemap_range_has_writeback, before 5.16 filemap_range_needs_writeback).
    pub const DIRTY: u8 = 1 << 1;
    /// The range had pages in the page cache (mm/filemap.c:filemap_range_has_page).
    pub const CACHED: u8 = 1 << 2;
    /// The file system's block mapping answered EAGAIN (fs/iomap/iter.c:iomap_iter): blocks to
    /// allocate, metadata to read, a lock, several extents, shared or compressed ones.
    pub const BLOCK_MAP: u8 = 1 << 3;
    /// Another thread held the lock of the inode (`inode.i_rwsem`).
    pub const INODE_LOCK: u8 = 1 << 4;

    /// All reasons with their names.
    pub const ALL: &[(u8, &str)] = &[
        (TIMESTAMP, "timestamp"),
        (DIRTY, "dirty-pages"),
        (CACHED, "cached-pages"),
        (BLOCK_MAP, "block-map"),
        (INODE_LOCK, "inode-lock"),
    ];
}

/// Bits of [`Request::inode_flags`] (include/linux/fs.h).
pub mod inode_flag {
    pub const ENCRYPTED: u32 = 1 << 14;
    pub const VERITY: u32 = 1 << 16;
}

/// One read or write, from issue to completion.
///
/// The probes fill it in while the request is open, and send the same bytes when it completes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Always [`EVENT_REQUEST`], because the record is sent unchanged.
    pub kind: u32,
    pub nr_segs: u32,
    /// Issue time, CLOCK_MONOTONIC in ns. Also distinguishes requests with the same kiocb address.
    pub begin_ns: u64,
    /// Completion time, CLOCK_MONOTONIC in ns.
    pub end_ns: u64,
    /// Kernel address of the kiocb of an asynchronous request, else 0.
    pub kiocb: u64,
    pub file: FileId,
    /// Kernel address of the `address_space` the data lives in.
    pub mapping: u64,
    /// User-space address of the buffer, or of the iovecs.
    pub user: u64,
    /// File offset in bytes.
    pub pos: i64,
    /// Requested bytes.
    pub len: u64,
    /// Bytes or -errno.
    pub ret: i64,
    /// Bytes that earlier attempts transferred (io_uring continues a short inline read in io-wq).
    pub done_before: u64,
    /// Size of the file or device at issue, in bytes.
    pub size_begin: i64,
    /// Size at completion, in bytes; read again only if fewer bytes came than were requested.
    pub size_end: i64,
    /// From the decision: bytes of the result that bypassed the page cache.
    pub direct_bytes: u64,
    /// From the decision: bytes of the result that went through the page cache.
    pub cached_bytes: u64,
    pub evidence: Evidence,
    /// The thread that issued it.
    pub task: Task,
    pub op: u8,
    pub verdict: u8,
    pub outcome: u8,
    pub finding: u8,
    /// `super_block.s_magic`.
    pub magic: u32,
    /// `s_magic` of the lower file system that a stacked one forwarded the request to, else 0.
    pub lower_magic: u32,
    pub api: u8,
    pub flags: u8,
    /// 1 + the id of the program's stack at issue; 0: no stack was captured.
    pub stack: u16,
    /// `inode.i_flags` of the file, see [`inode_flag`].
    pub inode_flags: u32,
    /// Flags of the call, see [`rwf`].
    pub rw_flags: u16,
    /// See the module [`ring`].
    pub ring: u8,
    /// See the module [`would_block`].
    pub would_block: u8,
}

impl Request {
    /// All fields are zero except `kind`.
    pub const EMPTY: Self = Self {
        kind: EVENT_REQUEST,
        nr_segs: 0,
        begin_ns: 0,
        end_ns: 0,
        kiocb: 0,
        file: FileId::NONE,
        mapping: 0,
        user: 0,
        pos: 0,
        len: 0,
        ret: 0,
        done_before: 0,
        size_begin: 0,
        size_end: 0,
        direct_bytes: 0,
        cached_bytes: 0,
        evidence: Evidence::NONE,
        task: Task::NONE,
        op: 0,
        verdict: 0,
        outcome: 0,
        finding: 0,
        magic: 0,
        lower_magic: 0,
        api: 0,
        flags: 0,
        stack: 0,
        inode_flags: 0,
        rw_flags: 0,
        ring: 0,
        would_block: 0,
    };

    /// The operation. An unknown byte is a read, as the probes count it.
    #[must_use]
    pub fn op(&self) -> Op {
        Op::from_u8(self.op).unwrap_or(Op::Read)
    }

    /// The API that the program used.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::from_u8(self.api).unwrap_or(Api::Unknown)
    }

    /// The properties of this request that the verdict depends on.
    #[must_use]
    #[inline(always)]
    pub fn facts(&self) -> Facts {
        Facts {
            write: self.op == OP_WRITE,
            spliced: self.api == API_SPLICE,
            block_device: self.flags & REQ_BLOCK_DEVICE != 0,
            magic: self.magic,
            lower_magic: self.lower_magic,
            len: self.len,
            pos: self.pos,
            ret: self.ret,
            size_begin: self.size_begin,
            size_end: self.size_end,
        }
    }
}

// No padding, see the parent module.
const _: () = assert!(size_of::<Request>() == 12 * 8 + 24 + 24 + 56 + 5 * 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_of_a_call_is_lost() {
        assert_eq!(rwf::of(u32::from(rwf::NOWAIT | rwf::ATOMIC)), rwf::NOWAIT | rwf::ATOMIC);
        for bit in 0..32 {
            let flags = rwf::of(1 << bit);
            assert_eq!(rwf::ALL.iter().filter(|(known, _)| flags & known != 0).count(), 1, "{bit}");
        }
    }
}
