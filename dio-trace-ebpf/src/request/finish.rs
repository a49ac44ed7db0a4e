//! Finishes a request that completed: it is decided, counted and, if it is a finding, sent.

use core::hint::black_box;

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use dio_trace_common::{
    abi::{OP_WRITE, Stat},
    evidence::{Evidence, Facts, seen},
    verdict::{self, Decision, Verdict, is_finding},
};

use crate::{
    alignment::{explain, wants_explaining},
    config::{EMIT_ALL, FILTER_REQUESTS, MAX_RW_COUNT, VERIFY_STABLE, WHY_EAGAIN},
    counters::count_request,
    errno::{EAGAIN, ERESTART_LAST, ERESTARTSYS},
    evidence::{
        EvidenceRef,
        page_cache::{discard_faulted, note_missed},
        would_block,
    },
    filter::request_wanted,
    in_flight::{self, RequestRef},
    kernel_memory::{
        ADDRESS_SPACE_HOST, ADDRESS_SPACE_NRPAGES, INODE_I_SIZE, KIOCB_KI_FLAGS, KIOCB_KI_POS,
        read, read_fast,
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
    request.hide();
    finish(request, ret, 0, in_thread);
    request.remove();
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
    if (ERESTART_LAST..=ERESTARTSYS).contains(&ret) {
        // A signal came before anything was moved. The program sees another call, or EINTR.
        count(Stat::Ended);
        count(Stat::Restarted);
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
        if ret as u64 == MAX_RW_COUNT.load() {
            EvidenceRef::of(request).set_seen(seen::AT_MOST);
        }
    }
    discard_faulted(request);
    if request.is_not_asked() && !uses_page_cache(request) {
        count(Stat::Ended);
        count(Stat::Filtered);
        return;
    }
    if VERIFY_STABLE.load() != 0 && in_thread != 0 && ret > 0 {
        stable_buffer::completed(request);
    }
    decide(request);
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

/// True if a request that did not ask for direct I/O went to a file with a page cache. (Those of procfs,
/// sysfs and others have none.)
#[inline(always)]
fn uses_page_cache(request: RequestRef) -> bool {
    let by = seen::BUFFERED_READ | seen::BUFFERED_WRITE | seen::DAX;
    EvidenceRef::of(request).has_seen(by)
        || read::<u64>(request.mapping().get(), &ADDRESS_SPACE_NRPAGES) != 0
}

/// Decides a request as [`verdict::decide`] does, and writes the decision into its record.
///
/// Step by step: each takes what it needs from the record, and leaves its answer there. The
/// verifier follows what stays in registers, and would walk a step again for each way through those
/// before it.
#[inline(always)]
fn decide(request: RequestRef) {
    if step(request, verdict::is_plain) {
        let plain = Decision::plain(request.ret().get());
        write_path(request, plain.verdict, plain.direct_bytes, plain.cached_bytes);
        request.outcome().set_volatile(plain.outcome as u8);
        request.finding().set_volatile(u8::from(plain.finding));
        return;
    }
    let path = step(request, verdict::path);
    write_path(request, path.verdict, path.direct_bytes, path.cached_bytes);
    request.outcome().set_volatile(step(request, verdict::outcome) as u8);
    let (verdict, outcome) = (request.verdict().get_volatile(), request.outcome().get_volatile());
    let finding = step(request, |facts, ev| is_finding(facts, ev, verdict, outcome));
    request.finding().set_volatile(u8::from(finding));
}

#[inline(always)]
fn write_path(request: RequestRef, verdict: Verdict, direct_bytes: u64, cached_bytes: u64) {
    request.verdict().set_volatile(verdict as u8);
    request.direct_bytes().set_volatile(direct_bytes);
    request.cached_bytes().set_volatile(cached_bytes);
}

/// Takes a step of the decision. The compiler cannot carry what it knows of the record into it.
#[inline(always)]
fn step<T>(request: RequestRef, of: impl FnOnce(&Facts, &Evidence) -> T) -> T {
    let record = black_box(request.record());
    // SAFETY: one CPU completes the request, and only reads it here (own-thread rule, one-completer
    // rule).
    let record = unsafe { &*record };
    of(&record.facts(), &record.evidence)
}
