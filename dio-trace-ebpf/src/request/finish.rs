//! Finishes a request that completed: it is decided, counted and, if it is a finding, sent.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use dio_trace_common::{
    abi::{OP_WRITE, Stat},
    verdict::decide,
};

use crate::{
    alignment::{explain, wants_explaining},
    config::{EMIT_ALL, FILTER_REQUESTS, VERIFY_STABLE, WHY_EAGAIN},
    counters::count_request,
    errno::EAGAIN,
    evidence::{
        page_cache::{discard_faulted, note_missed},
        would_block,
    },
    filter::request_wanted,
    in_flight::{self, RequestRef},
    kernel_memory::{
        ADDRESS_SPACE_HOST, INODE_I_SIZE, KIOCB_KI_FLAGS, KIOCB_KI_POS, read, read_fast,
    },
    maps::count,
    ring::emit,
    short_io, stable_buffer,
    thread_table::{ASYNC, IDLE, SYNC, ThreadRef, open_request},
    uring_flags,
};

/// RWF_APPEND of an open request (include/linux/fs.h).
const IOCB_APPEND: u32 = 0x10;

/// Closes the thread's synchronous request; true if there was one.
#[inline(always)]
pub fn leave_sync(thread: ThreadRef) -> bool {
    let open = thread.state().get() == SYNC;
    if open {
        note_missed(thread, thread.request());
    }
    thread.entered_by().set(0);
    thread.state().set(IDLE);
    open
}

/// The thread has issued its asynchronous request: gives the request, if it is still open.
#[inline(always)]
pub fn leave(thread: ThreadRef) -> Option<RequestRef> {
    let request = if thread.state().get() == ASYNC { open_request(thread) } else { None };
    if let Some(request) = request {
        // SAFETY: a request of a map.
        note_missed(thread, unsafe { RequestRef::new(request) });
    }
    thread.state().set(IDLE);
    // SAFETY: a request of a map.
    Some(unsafe { RequestRef::new(request?) })
}

/// The request of a kiocb, if it was made by that API: the memory of a kiocb whose completion was
/// missed may serve the other API next, and a process that is not traced.
#[inline(always)]
pub fn asked_by(api: u8, kiocb: u64) -> Option<RequestRef> {
    let request = in_flight::get(kiocb)?;
    (request.api().get() == api).then_some(request)
}

/// A write may have gone elsewhere than its issue could know (O_APPEND, RWF_APPEND): what it
/// wrote ends at the position it left behind.
#[inline(always)]
pub fn appended(request: RequestRef, ret: i64, position: impl FnOnce() -> i64) {
    if request.op().get() == OP_WRITE && ret > 0 {
        let pos = position() - ret;
        request.pos().set(pos);
    }
}

/// Finishes an asynchronous request, and removes it. The kiocb is still the request's, and holds
/// its file.
#[inline(always)]
pub fn end_async(request: RequestRef, ret: i64, in_thread: u32) {
    let kiocb = request.kiocb().get();
    // Not every file system moves the position of an asynchronous request: fuse with
    // FOPEN_DIRECT_IO does not.
    if request.op().get() == OP_WRITE && read_fast::<u32>(kiocb, &KIOCB_KI_FLAGS) & IOCB_APPEND != 0
    {
        appended(request, ret, || read(kiocb, &KIOCB_KI_POS));
    }
    finish(request, ret, 0, in_thread);
    in_flight::remove(kiocb);
}

/// Decides, counts and sends a request that completed. `file` is that of a synchronous one.
/// `in_thread`: not 0 if this is the thread that made the request, whose memory can be read.
#[inline(never)]
pub fn finish(request: RequestRef, ret: i64, file: u64, in_thread: u32) {
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    request.end_ns().set(now);
    request.ret().set(ret);
    if FILTER_REQUESTS.load() != 0 && !request_wanted(request) {
        count(Stat::Ended);
        count(Stat::Filtered);
        return;
    }
    // The switch first: the verifier follows `ret` by itself behind a comparison.
    if WHY_EAGAIN.load() != 0 && ret == EAGAIN {
        would_block::attempt_failed(request);
    }
    if in_thread != 0 && wants_explaining(request, ret) {
        explain(request);
    }
    if ret >= 0 && (ret as u64) < request.len().get() {
        if in_thread != 0 && ret > 0 {
            short_io::look(request, ret as u64);
        }
        let host: u64 = read(request.mapping().get(), &ADDRESS_SPACE_HOST);
        let size = read(host, &INODE_I_SIZE);
        request.size_end().set(size);
    }
    discard_faulted(request);
    if VERIFY_STABLE.load() != 0 && in_thread != 0 && ret > 0 {
        stable_buffer::completed(request);
    }
    // SAFETY: one CPU completes the request, and only reads it here (own-thread rule, one-completer
    // rule).
    let decision = unsafe {
        let request = &*request.record();
        decide(&request.facts(), &request.evidence)
    };
    // Through memory and back: the verifier follows what stays in registers, and would walk all
    // that comes below for every pair of verdict and outcome by itself.
    request.verdict().set_volatile(decision.verdict as u8);
    request.outcome().set_volatile(decision.outcome as u8);
    request.finding().set_volatile(u8::from(decision.finding));
    request.direct_bytes().set_volatile(decision.direct_bytes);
    request.cached_bytes().set_volatile(decision.cached_bytes);
    count(Stat::Ended);
    count_request(request, file);
    if request.finding().get_volatile() != 0
        || EMIT_ALL.load() != 0
        || would_block::wants_event(request)
    {
        uring_flags::add(request);
        emit(request);
    }
}
