//! libaio (fs/aio.c).

use dio_trace_common::abi::{API_LIBAIO, OP_READ, OP_WRITE, rwf};

use super::{Asked, admitted};
use crate::{
    aio_reap,
    errno::EIOCBQUEUED,
    evidence::direct::completes_elsewhere,
    filter::may_be_direct,
    issue::Issue,
    kernel_memory::{
        AIO_IOCB_BUF, AIO_IOCB_NBYTES, AIO_IOCB_OFFSET, AIO_IOCB_OPCODE, AIO_IOCB_RW_FLAGS, Args,
        KIOCB_KI_FILP,
    },
    preempt::PreemptGuard,
    request::{
        finish::{asked_by, end_async, leave},
        open::open_async,
    },
    thread_table::{self, is_submitting},
};

/// `int aio_read(struct kiocb *, const struct iocb *, bool vectored, bool compat)` and `aio_write`;
/// position and flags of the kiocb are not set yet, its file is. The iocb is the kernel's copy.
#[inline(always)]
fn aio_rw<A: Args>(ctx: &A, op: u8) {
    let kiocb = ctx.arg(0);
    let file: u64 = ctx.load(kiocb, &KIOCB_KI_FILP);
    let Some(admitted) = admitted(ctx, file) else { return };
    let iocb = ctx.arg(1);
    let user: u64 = ctx.load(iocb, &AIO_IOCB_BUF);
    let nbytes: u64 = ctx.load(iocb, &AIO_IOCB_NBYTES);
    let opcode: u16 = ctx.load(iocb, &AIO_IOCB_OPCODE);
    let asked = match is_vectored(opcode) {
        true => Asked::by_vector(admitted.thread, user, nbytes as u32),
        false => Asked::by_buffer(admitted.thread, nbytes),
    };
    let issue = Issue {
        direct: admitted.direct,
        op,
        api: API_LIBAIO,
        flags: asked.flags,
        pos: ctx.load(iocb, &AIO_IOCB_OFFSET),
        len: asked.len,
        user,
        nr_segs: asked.nr_segs,
        rw_flags: rwf::of(ctx.load(iocb, &AIO_IOCB_RW_FLAGS)),
        kiocb: ctx.number(kiocb),
        ppos: 0,
        paired: true,
    };
    open_async::<A, false>(ctx, admitted.thread, file, &issue);
}

/// True if the buffer of an iocb is a vector.
#[inline(always)]
pub(super) const fn is_vectored(opcode: u16) -> bool {
    const IOCB_CMD_PREADV: u16 = 7; // include/uapi/linux/aio_abi.h
    const IOCB_CMD_PWRITEV: u16 = 8;
    matches!(opcode, IOCB_CMD_PREADV | IOCB_CMD_PWRITEV)
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

/// [`aio_read`], which also keeps what finds the completion if a kprobe misses it.
#[inline(always)]
pub fn aio_read_by_kprobe<A: Args>(ctx: &A) {
    aio_rw(ctx, OP_READ);
    aio_reap::remember(ctx.arg(0));
}

/// See [`aio_read_by_kprobe`].
#[inline(always)]
pub fn aio_write_by_kprobe<A: Args>(ctx: &A) {
    aio_rw(ctx, OP_WRITE);
    aio_reap::remember(ctx.arg(0));
}

/// Return of `int aio_read`: an error means that the request never reached its callback.
#[inline(always)]
pub fn returned(ret: i64) {
    let ret = i64::from(ret as i32);
    let _guard = PreemptGuard::new();
    let Some(thread) = thread_table::current() else { return };
    let request = leave(thread);
    if ret < 0 && ret != EIOCBQUEUED {
        if let Some(request) = request {
            end_async(request, ret, 1);
        }
    }
}

/// `aio_complete_rw(struct kiocb *, long res, …)`: libaio has no retries, -EAGAIN is final.
#[inline(always)]
pub fn completed<A: Args>(ctx: &A) {
    let kiocb = ctx.arg(0);
    let file: u64 = ctx.load(kiocb, &KIOCB_KI_FILP);
    if !may_be_direct(ctx, file) {
        return;
    }
    let _guard = PreemptGuard::new();
    let Some(request) = asked_by(API_LIBAIO, ctx.number(kiocb)) else { return };
    let in_thread = thread_table::current().is_some_and(|t| is_submitting(t, request));
    if !in_thread {
        completes_elsewhere(request);
    }
    end_async(request, ctx.arg(1) as i64, u32::from(in_thread));
}
