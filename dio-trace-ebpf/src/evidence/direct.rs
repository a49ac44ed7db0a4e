//! The direct paths: iomap, legacy, DAX.

use dio_trace_common::evidence::seen;

use super::{EvidenceRef, is_duplicate, request_of};
use crate::{
    in_flight::RequestRef,
    kernel_memory::{
        Args, DIO_IOCB, DIO_RESULT, IOMAP_DIO_ERROR, IOMAP_DIO_IOCB, IOMAP_DIO_SIMPLE_IOCB,
        IOMAP_DIO_SIMPLE_SIZE, IOMAP_DIO_SIZE,
    },
    preempt::PreemptGuard,
    thread_table::current_request,
};

/// Adds what a direct path reported at its end.
#[inline(always)]
fn add_direct(request: RequestRef, bit: u32, bytes: i64, error: i32) {
    let evidence = EvidenceRef::of(request);
    evidence.set_seen(bit);
    if error != 0 {
        evidence.direct_err().set(error);
    } else if bytes > 0 {
        evidence.direct_bytes().add(bytes as u64);
    }
}

/// What to do with a request whose completion was deferred to the end of its direct I/O.
pub trait Deferred {
    /// The kiocb is done, with this size or error.
    fn completed(request: RequestRef, kiocb: u64, size: i64, error: i32);
}

/// `ssize_t iomap_dio_complete(struct iomap_dio *)`: the end of every iomap direct request that
/// was submitted, synchronous or not. Read at the entry: at the return the dio is freed.
#[inline(always)]
pub fn iomap_dio_complete<A: Args, D: Deferred, const REDUNDANT: bool>(ctx: &A) {
    let _guard = PreemptGuard::new();
    let dio = ctx.arg(0);
    let kiocb: u64 = ctx.load(dio, &IOMAP_DIO_IOCB);
    let Some(request) = request_of(ctx, kiocb) else { return };
    if is_duplicate::<REDUNDANT>(request, dio) {
        return;
    }
    let error: i32 = ctx.load(dio, &IOMAP_DIO_ERROR);
    let size: i64 = ctx.load(dio, &IOMAP_DIO_SIZE);
    add_direct(request, seen::IOMAP_DIO, size, error);
    D::completed(request, kiocb, size, error);
}

/// Tracepoint `iomap_dio_complete(struct kiocb *, int error, ssize_t ret)`: [`iomap_dio_complete`]
/// in kprobe mode.
#[inline(always)]
pub fn iomap_dio_completed<A: Args, D: Deferred>(ctx: &A) {
    let kiocb = ctx.arg(0);
    let Some(request) = request_of(ctx, kiocb) else { return };
    let (error, size) = (ctx.arg(1) as i32, ctx.arg(2) as i64);
    add_direct(request, seen::IOMAP_DIO, size, error);
    D::completed(request, kiocb, size, error);
}

/// `iomap_dio_simple_complete(struct iomap_dio_simple *)`: the end of the one-bio read path of 7.x
/// (fs/iomap/direct-io.c).
#[inline(always)]
pub fn iomap_dio_simple_complete<A: Args, const REDUNDANT: bool>(ctx: &A) {
    let _guard = PreemptGuard::new();
    let sr = ctx.arg(0);
    let kiocb: u64 = ctx.load(sr, &IOMAP_DIO_SIMPLE_IOCB);
    let Some(request) = request_of(ctx, kiocb) else { return };
    if is_duplicate::<REDUNDANT>(request, sr) {
        return;
    }
    // An error shows in the request's own result; the size then proves nothing and does no harm.
    let size: u64 = ctx.load(sr, &IOMAP_DIO_SIMPLE_SIZE);
    add_direct(request, seen::IOMAP_SIMPLE, size as i64, 0);
}

/// `dio_complete(struct dio *, ssize_t ret, …)`: the end of the legacy direct path
/// (fs/direct-io.c).
#[inline(always)]
pub fn dio_complete<A: Args, const REDUNDANT: bool>(ctx: &A) {
    let _guard = PreemptGuard::new();
    let dio = ctx.arg(0);
    let kiocb: u64 = ctx.load(dio, &DIO_IOCB);
    let Some(request) = request_of(ctx, kiocb) else { return };
    if is_duplicate::<REDUNDANT>(request, dio) {
        return;
    }
    let bytes: i64 = ctx.load(dio, &DIO_RESULT);
    add_direct(request, seen::LEGACY_DIO, bytes, 0);
}

/// `dax_iomap_rw(struct kiocb *, …)`
#[inline(always)]
pub fn dax_iomap_rw<A: Args>(_ctx: &A) {
    let _guard = PreemptGuard::new();
    let Some(request) = current_request() else { return };
    EvidenceRef::of(request).set_seen(seen::DAX);
}

/// `__blockdev_direct_IO`, `__iomap_dio_rw` or `__iomap_dio_read_simple`, in the thread that
/// submits.
#[inline(always)]
pub fn entered<A: Args>(_ctx: &A) {
    if let Some(request) = current_request() {
        EvidenceRef::of(request).set_seen(seen::DIRECT_ENTERED);
    }
}

/// `bio_iov_iter_bounce(struct bio *, …)`: a direct request goes through pages of the kernel's own,
/// so that its buffer cannot change under a checksum (block/bio.c, 7.x).
#[inline(always)]
pub fn bounced<A: Args>(_ctx: &A) {
    let _guard = PreemptGuard::new();
    let Some(request) = current_request() else { return };
    EvidenceRef::of(request).set_seen(seen::BOUNCED);
}

/// The request completes outside of the thread that submitted it: it was direct (see
/// [`seen::DIRECT_ENTERED`]). What goes through the page cache completes in the thread that submits
/// it, or in io-wq, which issues it again.
#[inline(always)]
pub fn completes_elsewhere(request: RequestRef) {
    EvidenceRef::of(request).set_seen(seen::DIRECT_ENTERED);
}
