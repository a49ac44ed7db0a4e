//! The functions that a request enters the kernel's I/O by, and what each knows of it.
//!
//! Position and length are read here, at the entry, rather than in `rw_verify_area`, where all of
//! them meet: every read and write of the system goes through that one, and bystanders would pay
//! for it.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_probe_read_user};
use dio_trace_common::abi::{
    API_IO_URING, API_LIBAIO, API_READ, API_READV, API_SPLICE, OP_READ, OP_WRITE, REQ_VECTORED,
    Stat,
};

use crate::{
    begin::{Ask, Direct, begin, direct, position, wants},
    evidence::passed_to,
    kernel::{
        AIO_IOCB_BUF, AIO_IOCB_NBYTES, AIO_IOCB_OFFSET, AIO_IOCB_OPCODE, Args, ByRead, FILE_F_POS,
        IO_KIOCB_OPCODE, IO_RW_ADDR, IO_RW_LEN, KIOCB_KI_FILP, KIOCB_KI_POS, read, read_fast,
    },
    maps::count,
    reaped,
    steady::Steady,
    threads::{SYNC, Thread, of_or_new, thread},
};

/// A thread that may begin a request, and does so undisturbed.
struct Admitted {
    thread: *mut Thread,
    direct: Direct,
    _steady: Steady,
}

/// Sends away who is not traced: a few loads and, for a direct file, one lookup.
#[inline(always)]
fn admitted<A: Args>(ctx: &A, file: u64) -> Option<Admitted> {
    let direct = direct(ctx, file)?;
    let id = bpf_get_current_pid_tgid();
    if !wants(id) {
        return None;
    }
    let steady = Steady::new();
    let Some(thread) = of_or_new(id) else {
        count(Stat::LostThread);
        return None;
    };
    Some(Admitted { thread, direct, _steady: steady })
}

/// `ssize_t vfs_read(struct file *, char __user *, size_t, loff_t *pos)` and `vfs_write`: read,
/// pread and their twins.
#[inline(always)]
fn vfs_rw<A: Args>(ctx: &A, op: u8, copy: u32) {
    let file = ctx.arg(0);
    let Some(admitted) = admitted(ctx, file) else { return };
    // SAFETY: a value of THREADS, used by its own thread alone.
    if unsafe { another_copy_has(admitted.thread, copy) } {
        return;
    }
    let ppos = ctx.arg(3);
    let ask = Ask {
        direct: admitted.direct,
        op,
        api: API_READ,
        flags: 0,
        pos: position(ppos),
        len: ctx.arg(2),
        user: ctx.arg(1),
        nr_segs: 1,
        kiocb: 0,
        ppos,
        paired: true,
    };
    begin(ctx, admitted.thread, file, &ask);
}

/// True if another copy of this probe has begun this very request: one is open, and this copy has
/// not passed it. (Had its end gone by unseen, this copy would find its own bit.)
#[inline(always)]
unsafe fn another_copy_has(thread: *mut Thread, copy: u32) -> bool {
    // SAFETY: per the caller, a value of THREADS.
    unsafe {
        let passed = (*thread).passed;
        let same = (*thread).state == SYNC && passed != 0 && passed & copy == 0;
        (*thread).passed = if same { passed | copy } else { copy };
        same
    }
}

/// See [`vfs_rw`]. `COPY` is a bit: where the kernel is preemptible further copies of the program
/// are attached, which begin what the first one was skipped for (see `steady`).
#[inline(always)]
pub fn vfs_read<A: Args, const COPY: u32>(ctx: &A) {
    vfs_rw(ctx, OP_READ, COPY);
}

/// See [`vfs_read`].
#[inline(always)]
pub fn vfs_write<A: Args, const COPY: u32>(ctx: &A) {
    vfs_rw(ctx, OP_WRITE, COPY);
}

/// `ssize_t vfs_readv(struct file *, const struct iovec __user *, unsigned long vlen, loff_t *pos,
/// rwf_t)` and `vfs_writev`.
#[inline(always)]
fn vfs_iov<A: Args>(ctx: &A, op: u8) {
    let file = ctx.arg(0);
    let Some(admitted) = admitted(ctx, file) else { return };
    let (user, nr_segs, ppos) = (ctx.arg(1), ctx.arg(2) as u32, ctx.arg(3));
    let ask = Ask {
        direct: admitted.direct,
        op,
        api: API_READV,
        flags: REQ_VECTORED,
        pos: position(ppos),
        len: total(admitted.thread, user, nr_segs),
        user,
        nr_segs,
        kiocb: 0,
        ppos,
        paired: true,
    };
    begin(ctx, admitted.thread, file, &ask);
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

/// `long do_splice(struct file *in, loff_t *, struct file *out, loff_t *, size_t, unsigned)` and
/// `do_splice_direct` (sendfile), which have `out` in the same place: the file that is written may
/// be a stacked one, whose file system hands the pipe on to the file below.
#[inline(always)]
pub fn splice<A: Args>(ctx: &A) {
    let out = ctx.arg(2);
    if let Some(admitted) = admitted(ctx, out) {
        // SAFETY: a value of THREADS, used by its own thread alone.
        unsafe { (*admitted.thread).splice_to = out };
    } else if let Some(thread) = thread() {
        // SAFETY: as above. What an earlier one named is not meant any more.
        unsafe { (*thread).splice_to = 0 };
    }
}

/// `ssize_t do_splice_read(struct file *, loff_t *, struct pipe_inode_info *, size_t, unsigned)`
/// (before 6.8: `do_splice_to`): one part of a splice or sendfile, at most what the pipe has room
/// for.
#[inline(always)]
pub fn splice_read<A: Args>(ctx: &A) {
    let file = ctx.arg(0);
    let Some(admitted) = admitted(ctx, file) else { return };
    begin(ctx, admitted.thread, file, &spliced(ctx, admitted.direct, OP_READ));
}

/// `ssize_t iter_file_splice_write(struct pipe_inode_info *, struct file *, loff_t *, size_t,
/// unsigned)`: the same for writing.
#[inline(always)]
pub fn splice_write<A: Args>(ctx: &A) {
    let below = ctx.arg(1);
    let Some(admitted) = admitted(ctx, below) else { return };
    // SAFETY: a value of THREADS, used by its own thread alone.
    let named = unsafe { (*admitted.thread).splice_to };
    let stacked = if named == 0 || named == below { None } else { direct(&ByRead(ctx), named) };
    let (file, direct) = stacked.map_or((below, admitted.direct), |direct| (named, direct));
    begin(&ByRead(ctx), admitted.thread, file, &spliced(ctx, direct, OP_WRITE));
    if file != below {
        passed_to(&ByRead(ctx), admitted.thread, below);
    }
}

#[inline(always)]
fn spliced<A: Args>(ctx: &A, direct: Direct, op: u8) -> Ask {
    let ppos = ctx.arg(if op == OP_WRITE { 2 } else { 1 });
    Ask {
        direct,
        op,
        api: API_SPLICE,
        flags: 0,
        pos: position(ppos),
        len: ctx.arg(3),
        user: 0,
        nr_segs: 0,
        kiocb: 0,
        ppos,
        paired: true,
    }
}

/// `int aio_read(struct kiocb *, const struct iocb *, bool vectored, bool compat)` and `aio_write`;
/// position and flags of the kiocb are not set yet, its file is. The iocb is the kernel's copy.
#[inline(always)]
fn aio_rw<A: Args>(ctx: &A, op: u8) {
    const IOCB_CMD_PREADV: u16 = 7; // include/uapi/linux/aio_abi.h
    const IOCB_CMD_PWRITEV: u16 = 8;
    let kiocb = ctx.arg(0);
    let file: u64 = ctx.load(kiocb, &KIOCB_KI_FILP);
    let Some(admitted) = admitted(ctx, file) else { return };
    let iocb = ctx.arg(1);
    let user: u64 = ctx.load(iocb, &AIO_IOCB_BUF);
    let nbytes: u64 = ctx.load(iocb, &AIO_IOCB_NBYTES);
    let opcode: u16 = ctx.load(iocb, &AIO_IOCB_OPCODE);
    let vectored = matches!(opcode, IOCB_CMD_PREADV | IOCB_CMD_PWRITEV);
    let ask = Ask {
        direct: admitted.direct,
        op,
        api: API_LIBAIO,
        flags: if vectored { REQ_VECTORED } else { 0 },
        pos: ctx.load(iocb, &AIO_IOCB_OFFSET),
        len: if vectored { total(admitted.thread, user, nbytes as u32) } else { nbytes },
        user,
        nr_segs: if vectored { nbytes as u32 } else { 1 },
        kiocb,
        ppos: 0,
        paired: true,
    };
    begin(ctx, admitted.thread, file, &ask);
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

/// With what finds its end, should that be missed.
#[inline(always)]
pub fn aio_read_by_kprobe<A: Args>(ctx: &A) {
    aio_rw(ctx, OP_READ);
    reaped::remember(ctx.arg(0));
}

/// See [`aio_read_by_kprobe`].
#[inline(always)]
pub fn aio_write_by_kprobe<A: Args>(ctx: &A) {
    aio_rw(ctx, OP_WRITE);
    reaped::remember(ctx.arg(0));
}

/// `int io_read(struct io_kiocb *, …)` and `io_write`; the kiocb is the request's first member. It
/// is called anew for every attempt, then with the position that the last one reached.
#[inline(always)]
fn io_rw<A: Args>(ctx: &A, op: u8, paired: bool) {
    const IORING_OP_READV: u8 = 1; // include/uapi/linux/io_uring.h
    const IORING_OP_WRITEV: u8 = 2;
    const IORING_OP_READV_FIXED: u8 = 60;
    const IORING_OP_WRITEV_FIXED: u8 = 61;
    /// "At the file's own position" (io_uring/rw.c:io_kiocb_update_pos).
    const CURRENT: i64 = -1;
    let req = ctx.arg(0);
    let file: u64 = ctx.load(req, &KIOCB_KI_FILP);
    let Some(admitted) = admitted(ctx, file) else { return };
    // `struct io_rw` overlays the request's command area; BTF does not know that.
    let user: u64 = read_fast(req, &IO_RW_ADDR);
    let len: u32 = read_fast(req, &IO_RW_LEN);
    let opcode: u8 = read_fast(req, &IO_KIOCB_OPCODE);
    let pos: i64 = read_fast(req, &KIOCB_KI_POS);
    let vectored = matches!(
        opcode,
        IORING_OP_READV | IORING_OP_WRITEV | IORING_OP_READV_FIXED | IORING_OP_WRITEV_FIXED
    );
    let ask = Ask {
        direct: admitted.direct,
        op,
        api: API_IO_URING,
        flags: if vectored { REQ_VECTORED } else { 0 },
        pos: if pos == CURRENT { read(file, &FILE_F_POS) } else { pos },
        len: if vectored { total(admitted.thread, user, len) } else { u64::from(len) },
        user,
        nr_segs: if vectored { len } else { 1 },
        kiocb: req,
        ppos: 0,
        paired,
    };
    begin(ctx, admitted.thread, file, &ask);
}

/// See [`io_rw`].
#[inline(always)]
pub fn io_read<A: Args>(ctx: &A) {
    io_rw(ctx, OP_READ, true);
}

/// See [`io_rw`].
#[inline(always)]
pub fn io_write<A: Args>(ctx: &A) {
    io_rw(ctx, OP_WRITE, true);
}

/// Without a probe at the return, which would have said that another attempt follows.
#[inline(always)]
pub fn io_read_unpaired<A: Args>(ctx: &A) {
    io_rw(ctx, OP_READ, false);
}

/// See [`io_read_unpaired`].
#[inline(always)]
pub fn io_write_unpaired<A: Args>(ctx: &A) {
    io_rw(ctx, OP_WRITE, false);
}

/// Sum of the lengths of `segments` iovecs in user memory; 0, which is no request, if they cannot
/// be read (they could a moment ago, or the call fails with EFAULT).
///
/// Sixteen at a time, then the rest one by one. The number lies in the thread's record, not in a
/// register: so every step looks alike to the verifier, which would otherwise follow each way out
/// of the loops by itself, in every program anew.
#[inline(never)]
fn total(thread: *mut Thread, user: u64, segments: u32) -> u64 {
    const UIO_MAXIOV: u32 = 1024; // include/uapi/linux/uio.h
    const CHUNK: u32 = 16;
    // SAFETY: per the callers, a value of THREADS, used by its own thread alone; also below.
    let kept = unsafe { &raw mut (*thread).nr_segs };
    // SAFETY: as above.
    unsafe { kept.write_volatile(segments) };
    let mut sum: u64 = 0;
    for chunk in 0..UIO_MAXIOV / CHUNK {
        // SAFETY: as above.
        if (chunk + 1) * CHUNK > unsafe { kept.read_volatile() } {
            break;
        }
        let at = user + u64::from(chunk) * size_of::<[Iovec; CHUNK as usize]>() as u64;
        let Some(iovecs) = read_user::<[Iovec; CHUNK as usize]>(at) else { return unreadable() };
        for iovec in &iovecs {
            sum += iovec.len;
        }
    }
    for rest in 0..CHUNK {
        // SAFETY: as above.
        let segments = unsafe { kept.read_volatile() };
        let segment = (segments & !(CHUNK - 1)) + rest;
        if segment >= segments {
            break;
        }
        let at = user + u64::from(segment) * size_of::<Iovec>() as u64;
        let Some(iovec) = read_user::<Iovec>(at) else { return unreadable() };
        sum += iovec.len;
    }
    sum
}

/// Counts a request as lost.
#[inline(always)]
fn unreadable() -> u64 {
    count(Stat::LostLength);
    0
}

/// struct iovec (include/uapi/linux/uio.h)
#[repr(C)]
#[derive(Clone, Copy)]
struct Iovec {
    base: u64,
    len: u64,
}

/// Reads user memory.
#[inline(always)]
pub fn read_user<T: Copy>(at: u64) -> Option<T> {
    // Not zeroed first: the compiler's `memset` goes byte by byte.
    let mut to = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the address and writes all bytes, or zeroes them and fails.
    let failed = unsafe {
        bpf_probe_read_user(to.as_mut_ptr().cast(), size_of::<T>() as u32, at as *const _)
    } != 0;
    if failed {
        return None;
    }
    // SAFETY: written by the helper; T is made of integers.
    Some(unsafe { to.assume_init() })
}
