//! Calls on files that are open without O_DIRECT, for `--expect-direct`: programs of their own,
//! which are not loaded without it.

use aya_ebpf::btf_maps::LruHashMap;
use dio_trace_common::{
    abi::{OP_READ, OP_WRITE, UNASKED, UNASKED_MMAP, rwf},
    offsets::ABSENT,
};

use super::{Asked, aio::is_vectored as aio_is_vectored, io_uring::is_vectored, position};
use crate::{
    config::{MAX_RW_COUNT, O_DIRECT},
    errno::EIOCBQUEUED,
    kernel_memory::{
        AIO_IOCB_BUF, AIO_IOCB_NBYTES, AIO_IOCB_OFFSET, AIO_IOCB_OPCODE, AIO_IOCB_RW_FLAGS, Args,
        IO_KIOCB_OPCODE, IO_RW_ADDR, IO_RW_LEN, KIOCB_KI_FILP, KIOCB_KI_POS, PIPE_RING_SIZE,
        Return, read,
    },
    preempt::PreemptGuard,
    task::is_io_worker,
    thread_table,
    unasked::{count, how, is_counted},
    uring_flags,
};

/// Counts a call at this position, if its file was not opened with O_DIRECT.
#[inline(always)]
fn call(file: u64, op: u8, rw_flags: u16, pos: i64, len: impl FnOnce() -> u64) {
    let _guard = PreemptGuard::new();
    let how = how(op, rw_flags);
    if how != 0 && is_counted(file, O_DIRECT.load()) != 0 {
        count(file, how, pos, len());
    }
}

/// Bytes of a vector in user memory.
#[inline(always)]
fn vector(user: u64, segments: u32) -> u64 {
    thread_table::current_or_claim()
        .map_or(0, |thread| Asked::by_vector(thread, user, segments).len)
}

/// `ssize_t vfs_read(struct file *, char __user *, size_t, loff_t *pos)`
#[inline(always)]
pub fn vfs_read<A: Args>(ctx: &A) {
    call(ctx.arg(0), OP_READ, 0, position(ctx.arg(3)), || ctx.arg(2));
}

/// See [`vfs_read`].
#[inline(always)]
pub fn vfs_write<A: Args>(ctx: &A) {
    call(ctx.arg(0), OP_WRITE, 0, position(ctx.arg(3)), || ctx.arg(2));
}

/// `ssize_t vfs_readv(struct file *, const struct iovec __user *, unsigned long vlen, loff_t *pos,
/// rwf_t)` and `vfs_writev`.
#[inline(always)]
fn vfs_iov<A: Args>(ctx: &A, op: u8) {
    let (flags, pos) = (rwf::of(ctx.arg(4) as u32), position(ctx.arg(3)));
    call(ctx.arg(0), op, flags, pos, || vector(ctx.arg(1), ctx.arg(2) as u32));
}

/// See [`vfs_iov`].
#[inline(always)]
pub fn vfs_readv<A: Args>(ctx: &A) {
    vfs_iov(ctx, OP_READ);
}

/// See [`vfs_iov`].
#[inline(always)]
pub fn vfs_writev<A: Args>(ctx: &A) {
    vfs_iov(ctx, OP_WRITE);
}

/// `int aio_read(struct kiocb *, const struct iocb *, …)` and `aio_write`.
#[inline(always)]
fn aio_rw<A: Args>(ctx: &A, op: u8) {
    let iocb = ctx.arg(1);
    let flags = rwf::of(read(iocb, &AIO_IOCB_RW_FLAGS));
    let pos = read(iocb, &AIO_IOCB_OFFSET);
    call(read(ctx.arg(0), &KIOCB_KI_FILP), op, flags, pos, || {
        let nbytes: u64 = read(iocb, &AIO_IOCB_NBYTES);
        match aio_is_vectored(read(iocb, &AIO_IOCB_OPCODE)) {
            true => vector(read(iocb, &AIO_IOCB_BUF), nbytes as u32),
            false => nbytes,
        }
    });
}

/// See [`aio_rw`].
#[inline(always)]
pub fn aio_read<A: Args>(ctx: &A) {
    aio_rw(ctx, OP_READ);
}

/// See [`aio_rw`].
#[inline(always)]
pub fn aio_write<A: Args>(ctx: &A) {
    aio_rw(ctx, OP_WRITE);
}

/// Requests of io_uring that the kernel issues again once a page has been read
/// (io_uring/rw.c:io_async_buf_func). Only fentry: a kretprobe has no arguments.
#[aya_ebpf::macros::btf_map]
static ISSUED_AGAIN: LruHashMap<u64, u32, 4096> = LruHashMap::new();

/// `int io_read(struct io_kiocb *, …)` and `io_write`: their first attempt, unless the request goes
/// to a worker at once.
#[inline(always)]
fn io_rw<A: Args>(ctx: &A, op: u8) {
    let req = ctx.arg(0);
    if is_io_worker() || ISSUED_AGAIN.remove(ctx.number(req)).is_ok() {
        return;
    }
    let (flags, pos) = (uring_flags::of_call(req), read(req, &KIOCB_KI_POS));
    call(read(req, &KIOCB_KI_FILP), op, flags, pos, || {
        let len: u32 = read(req, &IO_RW_LEN);
        match is_vectored(read(req, &IO_KIOCB_OPCODE)) {
            true => vector(read(req, &IO_RW_ADDR), len),
            false => u64::from(len),
        }
    });
}

/// See [`io_rw`].
#[inline(always)]
pub fn io_read<A: Args>(ctx: &A) {
    io_rw(ctx, OP_READ);
}

/// Return of `int io_read`: -EIOCBQUEUED says that it waits for a page. (Before 5.19 it returns 0 for
/// that, as it does for a request that is done.)
#[inline(always)]
pub fn io_read_returned<A: Args + Return<2>>(ctx: &A) {
    let (req, ret) = (ctx.arg(0), i64::from(ctx.ret() as i32));
    let file: u64 = read(req, &KIOCB_KI_FILP);
    if ret == EIOCBQUEUED && is_counted(file, O_DIRECT.load()) != 0 {
        let _ = ISSUED_AGAIN.insert(ctx.number(req), 1, 0);
    }
}

/// See [`io_rw`].
#[inline(always)]
pub fn io_write<A: Args>(ctx: &A) {
    io_rw(ctx, OP_WRITE);
}

/// `ssize_t do_splice_read(struct file *, loff_t *, struct pipe_inode_info *, size_t, unsigned)`: one
/// part, at most what the pipe has room for.
#[inline(always)]
pub fn splice_read<A: Args>(ctx: &A) {
    call(ctx.arg(0), OP_READ, 0, position(ctx.arg(1)), || {
        let (room, len) = (pipe_room(ctx.arg(2)), ctx.arg(3));
        if len < room { len } else { room }
    });
}

/// `unsigned long vm_mmap_pgoff(struct file *, unsigned long addr, unsigned long len, …)`: a mapping
/// goes through the page cache, whatever the flags of the open file.
#[inline(always)]
pub fn mmap<A: Args>(ctx: &A) {
    let _guard = PreemptGuard::new();
    let file = ctx.arg(0);
    if file != 0 && is_counted(file, 0) != 0 {
        count(file, UNASKED | UNASKED_MMAP, 0, ctx.arg(2));
    }
}

/// Bytes that an empty pipe has room for (struct pipe_inode_info, ring_size: its pages).
#[inline(always)]
fn pipe_room(pipe: u64) -> u64 {
    if PIPE_RING_SIZE.load() == ABSENT {
        return u64::MAX;
    }
    let page = (1 << 31) - MAX_RW_COUNT.load(); // include/linux/fs.h: INT_MAX & PAGE_MASK
    u64::from(read::<u32>(pipe, &PIPE_RING_SIZE)) * page
}

/// `ssize_t iter_file_splice_write(struct pipe_inode_info *, struct file *, loff_t *, size_t,
/// unsigned)`
#[inline(always)]
pub fn splice_write<A: Args>(ctx: &A) {
    call(ctx.arg(1), OP_WRITE, 0, position(ctx.arg(2)), || ctx.arg(3));
}
