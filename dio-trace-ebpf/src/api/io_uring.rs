//! io_uring (io_uring/rw.c; fs/io_uring.c before 6.0).

use core::hint::black_box;

use dio_trace_common::{
    abi::{API_IO_URING, OP_READ, OP_WRITE, REQ_PROVISIONAL, REQ_PUNTED, REQ_VECTORED},
    offsets::ABSENT,
};

use super::{Asked, admitted};
use crate::{
    errno::{EAGAIN, EIOCBQUEUED, EOPNOTSUPP, IOU_REQUEUE},
    evidence::{
        direct::{Deferred, completes_elsewhere},
        page_cache::buffered_err,
    },
    filter::may_be_direct,
    in_flight::RequestRef,
    issue::Issue,
    kernel_memory::{
        Args, FILE_F_POS, IO_KIOCB_OPCODE, IO_KIOCB_RESULT, IO_RW_ADDR, IO_RW_LEN,
        KIOCB_DIO_COMPLETE, KIOCB_KI_FILP, KIOCB_KI_FLAGS, KIOCB_KI_POS, read, read_fast,
    },
    preempt::PreemptGuard,
    request::{
        finish::{asked_by, end_async, leave},
        open::open_async,
    },
    task::is_io_worker,
    thread_table::{self, is_submitting},
    uring_flags,
};

/// `int io_read(struct io_kiocb *, …)` and `io_write`; the kiocb is the request's first member.
/// Called for every attempt, a later one with the position that the one before reached.
#[inline(always)]
fn io_rw<A: Args>(ctx: &A, op: u8, paired: bool) {
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
    let asked = match is_vectored(opcode) {
        true => Asked::by_vector(admitted.thread, user, len),
        false => Asked::by_buffer(admitted.thread, u64::from(len)),
    };
    let issue = Issue {
        direct: admitted.direct,
        op,
        api: API_IO_URING,
        flags: asked.flags,
        pos: if pos == CURRENT { read(file, &FILE_F_POS) } else { pos },
        len: asked.len,
        user,
        nr_segs: asked.nr_segs,
        rw_flags: uring_flags::at_issue(req),
        kiocb: ctx.number(req),
        ppos: 0,
        paired,
    };
    open_async::<A, true>(ctx, admitted.thread, file, &issue);
}

/// True if the request has a vector. By arithmetic: after a comparison for each operation the
/// verifier would walk the loops over the vector once more.
#[inline(always)]
pub(super) fn is_vectored(opcode: u8) -> bool {
    const IORING_OP_READV: u64 = 1; // include/uapi/linux/io_uring.h
    const IORING_OP_WRITEV: u64 = 2;
    const IORING_OP_READV_FIXED: u64 = 60;
    const IORING_OP_WRITEV_FIXED: u64 = 61;
    const VECTORED: u64 = 1 << IORING_OP_READV
        | 1 << IORING_OP_WRITEV
        | 1 << IORING_OP_READV_FIXED
        | 1 << IORING_OP_WRITEV_FIXED;
    // Operations from 64 on do not come here.
    black_box(VECTORED >> (opcode & 63)) & 1 != 0
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

/// Return of `int io_read`. Errors of reads come only this way (6.1 on). -EAGAIN means another
/// attempt or the completion: the tracepoint io_uring_complete says which.
#[inline(always)]
pub fn returned(ret: i64) {
    let ret = i64::from(ret as i32);
    let _guard = PreemptGuard::new();
    let Some(thread) = thread_table::current() else { return };
    let Some(request) = leave(thread) else { return };
    chosen(request, request.kiocb().get());
    if ret == EIOCBQUEUED || ret == 0 {
        waits_for_a_page(request); // 0: 5.10
        return;
    }
    if ret >= 0 || ret == IOU_REQUEUE {
        return;
    }
    let progress = request.done_before().get() != 0;
    if ret == EAGAIN || progress {
        // The CQE has the result of an error after progress.
        request.flags().set_bits(REQ_PUNTED);
        return;
    }
    end_async(request, ret, 1);
}

/// The buffer of a request that left the choice to the kernel (IOSQE_BUFFER_SELECT): its address
/// and length are in the io_kiocb once the file system was asked
/// (io_uring/rw.c:__io_import_rw_buffer).
#[inline(always)]
fn chosen(request: RequestRef, req: u64) {
    if request.user().get() == 0 && !request.flags().has(REQ_VECTORED) {
        let len: u32 = read(req, &IO_RW_LEN);
        if len != 0 {
            let user = read(req, &IO_RW_ADDR);
            request.user().set(user);
            request.len().set(u64::from(len));
        }
    }
}

/// A fallback that io_uring serves with IOCB_WAITQ: `filemap_read` has queued the request until
/// the page is read, and task work of this thread then issues it again
/// (io_uring/rw.c:io_async_buf_func). A direct request that is queued completes instead, and may
/// have done so by now: this only uses our own record of it.
#[inline(always)]
fn waits_for_a_page(request: RequestRef) {
    if i64::from(buffered_err(request)) == EIOCBQUEUED {
        request.flags().set_bits(REQ_PUNTED);
    }
}

/// `io_complete_rw(struct kiocb *, long res, …)`, `io_complete_rw_iopoll` and `kiocb_done`:
/// io_uring gets the result of an attempt. (`kiocb_done` takes an io_kiocb from 6.1 on; its
/// first member is the kiocb.)
#[inline(always)]
pub fn completed<A: Args>(ctx: &A) {
    let kiocb = ctx.arg(0);
    let ret = ctx.arg(1) as i64;
    let file: u64 = ctx.load(kiocb, &KIOCB_KI_FILP);
    if !may_be_direct(ctx, file) || ret == EIOCBQUEUED {
        return;
    }
    let _guard = PreemptGuard::new();
    let Some(request) = asked_by(API_IO_URING, ctx.number(kiocb)) else { return };
    let (done, op) = (request.done_before().get() as i64, request.op().get());
    // The submitter may still be on its way out of the kernel, in this very thread or on
    // another CPU; only in the first case can its memory be read here.
    let in_thread = thread_table::current().is_some_and(|t| is_submitting(t, request));
    let provisional = op == OP_WRITE && completes_later(kiocb);
    let again = matches!(ret, EAGAIN | EOPNOTSUPP) && !(in_thread && is_io_worker());
    if provisional {
        request.flags().set_bits(REQ_PROVISIONAL);
        return;
    }
    if again || (ret < 0 && done != 0) {
        // io_uring may issue it again (io_rw_should_reissue; some drivers answer a bio that must
        // not wait with EOPNOTSUPP), or count the earlier bytes.
        request.flags().set_bits(REQ_PUNTED);
        return;
    }
    // Its submitter may not have done this yet.
    chosen(request, kiocb);
    if !in_thread {
        completes_elsewhere(request);
    }
    let all = if ret < 0 { ret } else { moved(request, kiocb, done + ret) };
    end_async(request, all, u32::from(in_thread));
}

/// Bytes of a read whose last part is `done` with those of earlier attempts. io_uring may call
/// the file system again inside one attempt, for the rest after a short read, and reports only the
/// last part here (io_uring/rw.c:__io_read); the position has moved by all of them.
#[inline(always)]
fn moved(request: RequestRef, kiocb: u64, done: i64) -> i64 {
    let (op, begin, len) = (request.op().get(), request.pos().get(), request.len().get());
    if op == OP_WRITE || done as u64 >= len {
        return done;
    }
    let position: i64 = read_fast(kiocb, &KIOCB_KI_POS);
    let moved = position - begin;
    if moved > done && moved as u64 <= len { moved } else { done }
}

/// 6.6 to 6.18: an asynchronous iomap write reports 0 to its owner first and completes when the
/// owner asks (`IOCB_DIO_CALLER_COMP`, fs/iomap/direct-io.c); the CQE has the true result.
#[inline(always)]
fn completes_later(kiocb: u64) -> bool {
    // The bit means something else on kernels without the member.
    const IOCB_DIO_CALLER_COMP: u32 = 1 << 22;
    if KIOCB_DIO_COMPLETE.load() == ABSENT {
        return false;
    }
    let flags: u32 = read_fast(kiocb, &KIOCB_KI_FLAGS);
    let callback: u64 = read_fast(kiocb, &KIOCB_DIO_COMPLETE);
    flags & IOCB_DIO_CALLER_COMP != 0 && callback != 0
}

/// Completes a request that [`completes_later`]. There may be no CQE with its result
/// (IOSQE_CQE_SKIP_SUCCESS).
pub struct CallerCompletes;

impl Deferred for CallerCompletes {
    #[inline(always)]
    fn completed(request: RequestRef, kiocb: u64, size: i64, error: i32) {
        if KIOCB_DIO_COMPLETE.load() == ABSENT {
            return;
        }
        if !request.flags().has(REQ_PROVISIONAL) || request.kiocb().get() != kiocb {
            return;
        }
        // Looked up again: the verifier then knows that it is a value of that map.
        let Some(request) = asked_by(API_IO_URING, request.kiocb().get_volatile()) else { return };
        // Through memory and back: otherwise the verifier walks what follows for each of the two.
        let ret = request.ret();
        ret.set_volatile(request.done_before().get() as i64 + size);
        if error != 0 {
            ret.set_volatile(i64::from(error));
        }
        completes_elsewhere(request);
        end_async(request, ret.get_volatile(), 0);
    }
}

/// Tracepoint io_uring_complete: the CQE completes what no earlier completion has.
#[inline(always)]
pub fn cqe(kiocb: u64, res: i64) {
    let _guard = PreemptGuard::new();
    if let Some(request) = asked_by(API_IO_URING, kiocb) {
        end_async(request, res, 0);
    }
}

/// `io_req_rw_complete(struct io_kiocb *, …)`: task work posts what an interrupt has left in the
/// request (5.10, whose io_uring_complete names none).
#[inline(always)]
pub fn posts<A: Args>(ctx: &A) {
    if IO_KIOCB_RESULT.load() != ABSENT {
        let req = ctx.arg(0);
        let result: i32 = read_fast(req, &IO_KIOCB_RESULT);
        cqe(req, i64::from(result));
    }
}
