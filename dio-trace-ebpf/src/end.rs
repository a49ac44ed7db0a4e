//! Where a request ends: it is decided, counted and, if it is a finding, sent.

use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_ktime_get_ns, bpf_probe_read_user, bpf_ringbuf_output,
    bpf_ringbuf_query,
};
use dio_trace_common::{
    abi::{
        API_IO_URING, API_LIBAIO, API_SPLICE, OP_WRITE, REQ_PROVISIONAL, REQ_PUNTED, REQ_VECTORED,
        Request, Stat,
    },
    evidence::seen,
    offsets::ABSENT,
    verdict::decide,
};

use crate::{
    begin::{cache_probes_complete, may_be_direct, name, position},
    config::{
        EMIT_ALL, FILTER_REQUESTS, MIN_LATENCY, O_APPEND, OWN_TGID, WANTED_APIS, WANTED_DEV,
        WANTED_OPS,
    },
    counters::count_request,
    kernel::{
        ADDRESS_SPACE_HOST, Args, FILE_F_FLAGS, INODE_I_SIZE, IO_KIOCB_RESULT, IO_RW_ADDR,
        IO_RW_LEN, KIOCB_DIO_COMPLETE, KIOCB_KI_FILP, KIOCB_KI_FLAGS, KIOCB_KI_POS, TASK_FLAGS,
        read, read_fast,
    },
    maps::{EVENTS, REQUESTS, count, count_up},
    reaped, refused,
    steady::Steady,
    stops,
    threads::{ASYNC, IDLE, SYNC, Thread, is_submitting, open_request, thread},
};

const EAGAIN: i64 = -11;
const EINVAL: i64 = -22;
const EOPNOTSUPP: i64 = -95;
/// The request was queued; its completion ends it (include/linux/errno.h). io_uring returns the
/// same value for "no completion to post here" (IOU_ISSUE_SKIP_COMPLETE).
const EIOCBQUEUED: i64 = -529;
/// RWF_APPEND of an open request (include/linux/fs.h).
const IOCB_APPEND: u32 = 0x10;
/// IOU_REQUEUE, a kernel-internal verdict of io_uring from 6.15 on.
const IOU_REQUEUE: i64 = -3072;

/// Return of vfs_read, vfs_write, vfs_readv or vfs_writev in the submitter's thread.
#[inline(always)]
pub fn sync<A: Args>(ctx: &A, file: u64, ret: i64) {
    if !may_be_direct(ctx, file) {
        return;
    }
    let _steady = Steady::new();
    let Some(thread) = thread() else { return };
    // SAFETY: a value of THREADS, used by its own thread alone.
    unsafe {
        // The file is compared: where the end of an earlier request went by unseen, this is not it.
        if (*thread).file == file && leave_sync(thread) {
            let request = &raw mut (*thread).request;
            appended(request, ret, || position((*thread).ppos));
            finish(request, ret, file, 1);
        }
    }
}

/// Return of one part of a splice or sendfile. The other side of a sendfile is a part of its own.
#[inline(always)]
pub fn spliced(ret: i64) {
    let Some(thread) = thread() else { return };
    let _steady = Steady::new();
    // SAFETY: a value of THREADS, used by its own thread alone.
    unsafe {
        if (*thread).request.api == API_SPLICE && leave_sync(thread) {
            let request = &raw mut (*thread).request;
            appended(request, ret, || position((*thread).ppos));
            finish(request, ret, (*thread).file, 1);
        }
    }
}

/// The same at the return of the system call; the position was on its stack. Also the return of
/// io_submit: an error there is that of its first request, which never reached its callback.
#[inline(always)]
pub fn sys_exit(ret: i64) {
    let Some(thread) = thread() else { return };
    let _steady = Steady::new();
    // SAFETY: a value of THREADS, used by its own thread alone.
    unsafe {
        refused::returned(thread, ret);
        if let Some((request, result)) = reaped::still_open(thread, ret) {
            completes_elsewhere(request);
            end_async(request, result, 0);
            return; // a thread that waits for events submits nothing meanwhile
        }
        if (*thread).state == ASYNC {
            if let Some(request) = leave(thread) {
                if ret < 0 && (*request).api == API_LIBAIO {
                    end_async(request, ret, 1);
                }
            }
            return;
        }
        if leave_sync(thread) {
            let request = &raw mut (*thread).request;
            if ret > (*request).len as i64 {
                // The return of the request's own call was not seen: this is a later one.
                count(Stat::Unmatched);
                return;
            }
            let file = (*thread).file;
            let flags: u32 = read(file, &FILE_F_FLAGS);
            if flags & O_APPEND.load() != 0 {
                let host: u64 = read((*request).mapping, &ADDRESS_SPACE_HOST);
                appended(request, ret, || read(host, &INODE_I_SIZE));
            }
            finish(request, ret, file, 1);
        }
    }
}

/// Closes the thread's synchronous request; true if there was one.
#[inline(always)]
unsafe fn leave_sync(thread: *mut Thread) -> bool {
    // SAFETY: per the caller, a value of THREADS.
    unsafe {
        let open = (*thread).state == SYNC;
        if open {
            note_missed(thread, &raw mut (*thread).request);
        }
        (*thread).passed = 0;
        (*thread).state = IDLE;
        open
    }
}

/// Kprobe mode: the return of a filemap_read went by unseen, its bytes are not known.
#[inline(always)]
unsafe fn note_missed(thread: *mut Thread, request: *mut Request) {
    // SAFETY: per the caller, a value of THREADS and its open request.
    unsafe {
        if (*thread).already != 0 {
            (*request).evidence.seen |= seen::MISSED;
            (*thread).already = 0;
        }
    }
}

/// A write may have gone elsewhere than its begin could know (O_APPEND, RWF_APPEND): what it
/// wrote ends at the position it left behind.
#[inline(always)]
unsafe fn appended(request: *mut Request, ret: i64, position: impl FnOnce() -> i64) {
    // SAFETY: per the caller, a request of a map.
    unsafe {
        if (*request).op == OP_WRITE && ret > 0 {
            (*request).pos = position() - ret;
        }
    }
}

/// Return of `int aio_read`: an error means that the request never reached its callback.
#[inline(always)]
pub fn aio_return(ret: i64) {
    let ret = i64::from(ret as i32);
    let _steady = Steady::new();
    let Some(thread) = thread() else { return };
    let request = leave(thread);
    if ret < 0 && ret != EIOCBQUEUED {
        if let Some(request) = request {
            end_async(request, ret, 1);
        }
    }
}

/// Return of `int io_read`. Errors of reads come only this way (6.1 on); -EAGAIN means another
/// attempt, or the end: io_uring_complete tells.
#[inline(always)]
pub fn io_return(ret: i64) {
    let ret = i64::from(ret as i32);
    let _steady = Steady::new();
    let Some(thread) = thread() else { return };
    let Some(request) = leave(thread) else { return };
    // SAFETY: a request of REQUESTS that this thread is submitting.
    chosen(request, unsafe { (*request).kiocb });
    if ret == EIOCBQUEUED || ret == 0 {
        waits_for_a_page(request); // 0: 5.10
        return;
    }
    if ret >= 0 || ret == IOU_REQUEUE {
        return;
    }
    // SAFETY: a request of REQUESTS that this thread is submitting.
    let progress = unsafe { (*request).done_before } != 0;
    if ret == EAGAIN || progress {
        // SAFETY: as above. The CQE says what an error after progress amounts to.
        unsafe { (*request).flags |= REQ_PUNTED };
        return;
    }
    end_async(request, ret, 1);
}

/// The buffer of a request that left the choice to the kernel (IOSQE_BUFFER_SELECT): its address and
/// length are in the request once the file system was asked (io_uring/rw.c:__io_import_rw_buffer).
#[inline(always)]
fn chosen(request: *mut Request, req: u64) {
    // SAFETY: a request of REQUESTS that its own thread is submitting, or whose completion runs.
    unsafe {
        if (*request).user == 0 && (*request).flags & REQ_VECTORED == 0 {
            let len: u32 = read(req, &IO_RW_LEN);
            if len != 0 {
                ((*request).user, (*request).len) = (read(req, &IO_RW_ADDR), u64::from(len));
            }
        }
    }
}

/// A fallback that io_uring serves with IOCB_WAITQ: `filemap_read` has queued the request until
/// the page is read, and task work of this same thread then issues it anew
/// (io_uring/rw.c:io_async_buf_func). A direct request that is queued completes instead, and may
/// have done so by now: this only reads our own record of it.
#[inline(always)]
fn waits_for_a_page(request: *mut Request) {
    // SAFETY: a request of REQUESTS.
    unsafe {
        if i64::from((*request).evidence.buffered_err) == EIOCBQUEUED {
            (*request).flags |= REQ_PUNTED;
        }
    }
}

/// Ends the thread's part in an asynchronous request; the request itself, if it is still open.
#[inline(always)]
fn leave(thread: *mut Thread) -> Option<*mut Request> {
    // SAFETY: a value of THREADS, used by its own thread alone.
    unsafe {
        let request = if (*thread).state == ASYNC { open_request(thread) } else { None };
        if let Some(request) = request {
            note_missed(thread, request);
        }
        (*thread).state = IDLE;
        request
    }
}

/// `io_complete_rw(struct kiocb *, long res, …)`, `io_complete_rw_iopoll` and `kiocb_done`:
/// io_uring is told the result of an attempt. (`kiocb_done` takes an io_kiocb from 6.1 on; its
/// first member is the kiocb.)
#[inline(always)]
pub fn io_complete<A: Args>(ctx: &A) {
    let kiocb = ctx.arg(0);
    let ret = ctx.arg(1) as i64;
    let file: u64 = ctx.load(kiocb, &KIOCB_KI_FILP);
    if !may_be_direct(ctx, file) || ret == EIOCBQUEUED {
        return;
    }
    let _steady = Steady::new();
    let Some(request) = asked_by(API_IO_URING, kiocb) else { return };
    // SAFETY: a request of REQUESTS; its completion runs once.
    let (done, op) = unsafe { ((*request).done_before as i64, (*request).op) };
    // The submitter may still be on its way out of the kernel, in this very thread or on
    // another CPU; only in the first case is its memory ours to read.
    let in_thread = thread().is_some_and(|t| is_submitting(t, request));
    let provisional = op == OP_WRITE && completes_later(kiocb);
    let again = matches!(ret, EAGAIN | EOPNOTSUPP) && !(in_thread && is_io_worker());
    if provisional {
        // SAFETY: as above.
        unsafe { (*request).flags |= REQ_PROVISIONAL };
        return;
    }
    if again || (ret < 0 && done != 0) {
        // io_uring may issue it anew (io_rw_should_reissue; some drivers answer a bio that must
        // not wait with EOPNOTSUPP), or count the earlier bytes.
        // SAFETY: as above.
        unsafe { (*request).flags |= REQ_PUNTED };
        return;
    }
    // Its submitter may not have come to its own look yet.
    chosen(request, kiocb);
    if !in_thread {
        completes_elsewhere(request);
    }
    let all = if ret < 0 { ret } else { moved(request, kiocb, done + ret) };
    end_async(request, all, u32::from(in_thread));
}

/// True in a thread of io-wq, which may wait: what it is told is final
/// (io_uring/rw.c:io_rw_should_reissue).
#[inline(always)]
fn is_io_worker() -> bool {
    const PF_IO_WORKER: u32 = 0x10; // include/linux/sched.h
    // SAFETY: returns the current task.
    let flags: u32 = read(unsafe { bpf_get_current_task() }, &TASK_FLAGS);
    flags & PF_IO_WORKER != 0
}

/// See [`seen::DIRECT_ENTERED`]: what goes through the page cache ends in the thread that submits
/// it, or in io-wq, which submits it anew.
#[inline(always)]
fn completes_elsewhere(request: *mut Request) {
    // SAFETY: a request of REQUESTS; its completion runs once.
    unsafe { (*request).evidence.seen |= seen::DIRECT_ENTERED };
}

/// Bytes of a read whose last part is `done` with those of earlier attempts. io_uring may call
/// the file system again inside one attempt, for the rest after a short read, and reports the
/// last part alone here (io_uring/rw.c:__io_read); the position has moved by all of them.
#[inline(always)]
fn moved(request: *mut Request, kiocb: u64, done: i64) -> i64 {
    // SAFETY: a request of REQUESTS.
    let (op, begin, len) = unsafe { ((*request).op, (*request).pos, (*request).len) };
    if op == OP_WRITE || done as u64 >= len {
        return done;
    }
    let position: i64 = read_fast(kiocb, &KIOCB_KI_POS);
    let moved = position - begin;
    if moved > done && moved as u64 <= len { moved } else { done }
}

/// 6.6 to 6.18: an asynchronous iomap write tells its owner 0 first and completes itself when
/// the owner asks (`IOCB_DIO_CALLER_COMP`, fs/iomap/direct-io.c); the CQE has the true result.
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

/// The true end of what [`completes_later`]. There may be no CQE to tell it (IOSQE_CQE_SKIP_SUCCESS).
#[inline(always)]
pub fn completed_later(request: *mut Request, kiocb: u64, size: i64, error: i32) {
    if KIOCB_DIO_COMPLETE.load() == ABSENT {
        return;
    }
    // SAFETY: a request of REQUESTS; its completion runs once.
    unsafe {
        if (*request).flags & REQ_PROVISIONAL == 0 || (*request).kiocb != kiocb {
            return;
        }
        // The same; but known to the verifier for one of this map.
        let Some(request) = asked_by(API_IO_URING, kiocb) else { return };
        // Through memory and back, lest the verifier walks what follows for each of them.
        let ret = &raw mut (*request).ret;
        ret.write_volatile((*request).done_before as i64 + size);
        if error != 0 {
            ret.write_volatile(i64::from(error));
        }
        completes_elsewhere(request);
        end_async(request, ret.read_volatile(), 0);
    }
}

/// `aio_complete_rw(struct kiocb *, long res, …)`: libaio has no retries, -EAGAIN is final.
#[inline(always)]
pub fn aio_complete<A: Args>(ctx: &A) {
    let kiocb = ctx.arg(0);
    let file: u64 = ctx.load(kiocb, &KIOCB_KI_FILP);
    if !may_be_direct(ctx, file) {
        return;
    }
    let _steady = Steady::new();
    let Some(request) = asked_by(API_LIBAIO, kiocb) else { return };
    let in_thread = thread().is_some_and(|t| is_submitting(t, request));
    if !in_thread {
        completes_elsewhere(request);
    }
    end_async(request, ctx.arg(1) as i64, u32::from(in_thread));
}

/// Tracepoint io_uring_complete: the CQE is the last word on what no earlier end took.
#[inline(always)]
pub fn cqe(kiocb: u64, res: i64) {
    let _steady = Steady::new();
    if let Some(request) = asked_by(API_IO_URING, kiocb) {
        end_async(request, res, 0);
    }
}

/// `io_req_rw_complete(struct io_kiocb *, …)`: task work posts what an interrupt has left in the
/// request (5.10, whose io_uring_complete names none).
#[inline(always)]
pub fn io_posts<A: Args>(ctx: &A) {
    if IO_KIOCB_RESULT.load() != ABSENT {
        let req = ctx.arg(0);
        let result: i32 = read_fast(req, &IO_KIOCB_RESULT);
        cqe(req, i64::from(result));
    }
}

/// The request of a kiocb, if it was made by that API: the memory of a kiocb whose end went by
/// unseen may serve the other API next, and a process that is not traced.
#[inline(always)]
fn asked_by(api: u8, kiocb: u64) -> Option<*mut Request> {
    let request = REQUESTS.get_ptr_mut(kiocb)?;
    // SAFETY: a request of REQUESTS.
    (unsafe { (*request).api } == api).then_some(request)
}

#[inline(always)]
fn end_async(request: *mut Request, ret: i64, in_thread: u32) {
    // SAFETY: a request of REQUESTS. The kiocb is still the request's, and holds its file.
    unsafe {
        let kiocb = (*request).kiocb;
        // Not every file system moves the position of an asynchronous request: fuse with
        // FOPEN_DIRECT_IO does not.
        if (*request).op == OP_WRITE && read_fast::<u32>(kiocb, &KIOCB_KI_FLAGS) & IOCB_APPEND != 0
        {
            appended(request, ret, || read(kiocb, &KIOCB_KI_POS));
        }
        finish(request, ret, 0, in_thread);
        let _ = REQUESTS.remove(kiocb);
    }
}

/// True unless a filter is against it. Asked at the end, where its latency is known.
#[inline(always)]
unsafe fn is_wanted(request: *const Request) -> bool {
    // SAFETY: per the caller, a request of a map.
    unsafe {
        if (*request).tgid == OWN_TGID.load() {
            return true;
        }
        let latency = (*request).end_ns - (*request).begin_ns;
        WANTED_OPS.load() >> ((*request).op & 31) & 1 != 0
            && WANTED_APIS.load() >> ((*request).api & 31) & 1 != 0
            && (WANTED_DEV.load() == 0 || (*request).dev == WANTED_DEV.load())
            && latency >= MIN_LATENCY.load()
    }
}

/// Decides, counts and sends a request that ended. `file` is that of a synchronous one.
#[inline(never)]
unsafe fn finish(request: *mut Request, ret: i64, file: u64, in_thread: u32) {
    // SAFETY: per the callers, a request of a map that nobody else ends.
    unsafe {
        let place = (&raw const (*request).ret).read_volatile() as u32; // see `begin::fill`
        (*request).end_ns = bpf_ktime_get_ns();
        (*request).ret = ret;
        if FILTER_REQUESTS.load() != 0 && !is_wanted(request) {
            count(Stat::Ended);
            count(Stat::Filtered);
            return;
        }
        if in_thread != 0 && wants_explaining(request, ret) {
            explain(request);
        }
        if ret >= 0 && (ret as u64) < (*request).len {
            if in_thread != 0 && ret > 0 {
                stops::look(request, ret as u64);
            }
            let host: u64 = read((*request).mapping, &ADDRESS_SPACE_HOST);
            (*request).size_end = read(host, &INODE_I_SIZE);
        }
        let evidence = &raw mut (*request).evidence;
        if (*evidence).seen & seen::BUFFERED_READ == 0 {
            // Pages came in for this mapping, yet nobody read through the cache: the user
            // buffer is a mapping of the same file, and faulted.
            (*evidence).added_pages = 0;
        }
        let decision = decide(&(*request).facts(cache_probes_complete()), &(*request).evidence);
        // Through memory and back: what stays in registers the verifier follows, and it would
        // walk all that comes below for every pair of verdict and outcome by itself.
        (&raw mut (*request).verdict).write_volatile(decision.verdict as u8);
        (&raw mut (*request).outcome).write_volatile(decision.outcome as u8);
        (&raw mut (*request).finding).write_volatile(u8::from(decision.finding));
        (&raw mut (*request).direct_bytes).write_volatile(decision.direct_bytes);
        (&raw mut (*request).cached_bytes).write_volatile(decision.cached_bytes);
        count(Stat::Ended);
        count_request(request, file, place);
        if (&raw const (*request).finding).read_volatile() != 0 || EMIT_ALL.load() != 0 {
            emit(request);
        }
    }
}

/// True if the alignment of the buffers may be the reason: a refusal, or a vector that the file
/// system served through the cache without trying otherwise.
#[inline(always)]
unsafe fn wants_explaining(request: *const Request, ret: i64) -> bool {
    // SAFETY: per the caller, a request of a map.
    unsafe {
        let untried = || (*request).evidence.seen & seen::DIRECT_TRIED == 0;
        ret == EINVAL || (ret > 0 && (*request).flags & REQ_VECTORED != 0 && untried())
    }
}

/// Sends the record as it stands.
#[inline(always)]
unsafe fn emit(request: *mut Request) {
    // Not each of them asks: it takes longer than much of the rest. The reader is late by as many
    // events of a CPU at most.
    const ASKS: u64 = 8;
    let nth = count_up(Stat::Events);
    let wakeup = if nth % ASKS == 0 { wakeup() } else { NO_WAKEUP };
    // SAFETY: a whole Request of a map.
    let sent = unsafe {
        name(request);
        bpf_ringbuf_output(
            (&raw const EVENTS).cast_mut().cast(),
            request.cast(),
            size_of::<Request>() as u64,
            wakeup,
        )
    };
    if sent != 0 {
        count(Stat::LostEvent);
    }
}

/// BPF_RB_NO_WAKEUP (include/uapi/linux/bpf.h)
const NO_WAKEUP: u64 = 1;

/// Wakes the reader only when much is waiting; its own timer fetches the rest. Measured: the
/// default policy costs more than all the rest of an event.
#[inline(always)]
pub fn wakeup() -> u64 {
    const FORCE_WAKEUP: u64 = 2;
    const AVAILABLE: u64 = 0; // BPF_RB_AVAIL_DATA
    const MUCH: u64 = 64 << 10;
    // SAFETY: only asks.
    let waiting = unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), AVAILABLE) };
    if waiting >= MUCH { FORCE_WAKEUP } else { NO_WAKEUP }
}

/// Collects what alignment the caller offered, to explain an EINVAL: the buffer, or up to
/// [`MAX_SEGMENTS`] iovecs read from user memory.
#[inline(always)]
unsafe fn explain(request: *mut Request) {
    const MAX_SEGMENTS: u32 = 16;
    // SAFETY: per the caller; user memory is read through the checking helper.
    unsafe {
        let evidence = &raw mut (*request).evidence;
        if (*request).flags & REQ_VECTORED == 0 {
            (*evidence).addr_bits = (*request).user as u32;
            (*evidence).len_bits = (*request).len as u32;
            (*evidence).segments = 1;
            return;
        }
        for i in 0..MAX_SEGMENTS {
            if i >= (*request).nr_segs {
                break;
            }
            let mut iovec = [0u64; 2]; // struct iovec: base, length
            let at = (*request).user + u64::from(i) * 16;
            let failed = bpf_probe_read_user((&raw mut iovec).cast(), 16, at as *const _) != 0;
            if failed {
                break;
            }
            (*evidence).addr_bits |= iovec[0] as u32;
            (*evidence).len_bits |= iovec[1] as u32;
            (*evidence).segments += 1;
        }
    }
}
