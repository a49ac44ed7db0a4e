//! Finishes a request that completed: it is decided, counted and, if it is a finding, sent.

use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use dio_trace_common::{
    abi::{OP_WRITE, Request, Stat},
    evidence::seen,
    verdict::decide,
};

use crate::{
    alignment::{explain, wants_explaining},
    config::{CACHE_PROBES_COMPLETE, EMIT_ALL, FILTER_REQUESTS},
    counters::count_request,
    evidence::page_cache::note_missed,
    filter::request_wanted,
    kernel_memory::{
        ADDRESS_SPACE_HOST, INODE_I_SIZE, KIOCB_KI_FLAGS, KIOCB_KI_POS, read, read_fast,
    },
    maps::{REQUESTS, count},
    ring::emit,
    short_io,
    thread_table::{ASYNC, IDLE, SYNC, Thread, open_request},
};

/// RWF_APPEND of an open request (include/linux/fs.h).
const IOCB_APPEND: u32 = 0x10;

/// Closes the thread's synchronous request; true if there was one.
#[inline(always)]
pub unsafe fn leave_sync(thread: *mut Thread) -> bool {
    // SAFETY: own-thread rule.
    unsafe {
        let open = (*thread).state == SYNC;
        if open {
            note_missed(thread, &raw mut (*thread).request);
        }
        (*thread).entered_by = 0;
        (*thread).state = IDLE;
        open
    }
}

/// The thread has issued its asynchronous request: gives the request, if it is still open.
#[inline(always)]
pub fn leave(thread: *mut Thread) -> Option<*mut Request> {
    // SAFETY: own-thread rule.
    unsafe {
        let request = if (*thread).state == ASYNC { open_request(thread) } else { None };
        if let Some(request) = request {
            note_missed(thread, request);
        }
        (*thread).state = IDLE;
        request
    }
}

/// The request of a kiocb, if it was made by that API: the memory of a kiocb whose completion was
/// missed may serve the other API next, and a process that is not traced.
#[inline(always)]
pub fn asked_by(api: u8, kiocb: u64) -> Option<*mut Request> {
    let request = REQUESTS.get_ptr_mut(kiocb)?;
    // SAFETY: a request of REQUESTS.
    (unsafe { (*request).api } == api).then_some(request)
}

/// A write may have gone elsewhere than its issue could know (O_APPEND, RWF_APPEND): what it
/// wrote ends at the position it left behind.
#[inline(always)]
pub unsafe fn appended(request: *mut Request, ret: i64, position: impl FnOnce() -> i64) {
    // SAFETY: per the caller, a request of a map.
    unsafe {
        if (*request).op == OP_WRITE && ret > 0 {
            (*request).pos = position() - ret;
        }
    }
}

/// Finishes an asynchronous request, and removes it. The kiocb is still the request's, and holds
/// its file.
#[inline(always)]
pub fn end_async(request: *mut Request, ret: i64, in_thread: u32) {
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

/// See [`CACHE_PROBES_COMPLETE`].
#[inline(always)]
fn cache_probes_complete() -> bool {
    CACHE_PROBES_COMPLETE.load() != 0
}

/// Decides, counts and sends a request that completed. `file` is that of a synchronous one.
/// `in_thread`: not 0 if this is the thread that made the request, whose memory can be read.
#[inline(never)]
pub unsafe fn finish(request: *mut Request, ret: i64, file: u64, in_thread: u32) {
    // SAFETY: one-completer rule.
    unsafe {
        let slot = (&raw const (*request).ret).read_volatile() as u32; // see `open::fill`
        (*request).end_ns = bpf_ktime_get_ns();
        (*request).ret = ret;
        if FILTER_REQUESTS.load() != 0 && !request_wanted(request) {
            count(Stat::Ended);
            count(Stat::Filtered);
            return;
        }
        if in_thread != 0 && wants_explaining(request, ret) {
            explain(request);
        }
        if ret >= 0 && (ret as u64) < (*request).len {
            if in_thread != 0 && ret > 0 {
                short_io::look(request, ret as u64);
            }
            let host: u64 = read((*request).mapping, &ADDRESS_SPACE_HOST);
            (*request).size_end = read(host, &INODE_I_SIZE);
        }
        let evidence = &raw mut (*request).evidence;
        if (*evidence).seen & seen::BUFFERED_READ == 0 {
            // Pages came in for this mapping, and nobody read through the cache: the user buffer
            // is a mapping of the same file, and faulted.
            (*evidence).added_pages = 0;
        }
        let decision = decide(&(*request).facts(cache_probes_complete()), &(*request).evidence);
        // Through memory and back: the verifier follows what stays in registers, and would walk
        // all that comes below for every pair of verdict and outcome by itself.
        (&raw mut (*request).verdict).write_volatile(decision.verdict as u8);
        (&raw mut (*request).outcome).write_volatile(decision.outcome as u8);
        (&raw mut (*request).finding).write_volatile(u8::from(decision.finding));
        (&raw mut (*request).direct_bytes).write_volatile(decision.direct_bytes);
        (&raw mut (*request).cached_bytes).write_volatile(decision.cached_bytes);
        count(Stat::Ended);
        count_request(request, file, slot);
        if (&raw const (*request).finding).read_volatile() != 0 || EMIT_ALL.load() != 0 {
            emit(request);
        }
    }
}
