//! What the kernel does for an open request: every write to [`Evidence`] is in this room.
//!
//! Submission runs in the submitter's thread and is found by the thread. Completion may run in an
//! interrupt on top of a thread with a request of its own: it is found by its kiocb, unless the
//! kiocb is synchronous.
//!
//! - [`direct`]: the direct paths
//! - [`page_cache`]: reads and writes through the page cache, and the pages that come into it
//! - [`writeback`]: side effects on the page cache: write-back and invalidation
//! - [`stacked`]: what a stacked file system forwards to a lower one

pub mod direct;
pub mod page_cache;
pub mod stacked;
pub mod writeback;

use dio_trace_common::{
    abi::Request,
    evidence::{Evidence, seen},
    offsets::ABSENT,
    verdict::magic,
};

use crate::{
    config::COPIES,
    kernel_memory::{Args, BACKING_AIO_ORIG_IOCB, KIOCB_KI_COMPLETE, read},
    maps::REQUESTS,
    thread_table::{self, IDLE, Thread, current_request, open_request},
};

/// The request that a completing kiocb belongs to.
#[inline(always)]
fn request_of<A: Args>(ctx: &A, kiocb: u64) -> Option<*mut Request> {
    let complete: u64 = ctx.load(kiocb, &KIOCB_KI_COMPLETE);
    if complete == 0 {
        return current_request();
    }
    REQUESTS.get_ptr_mut(kiocb).or_else(|| lower_request(kiocb))
}

/// The request behind the kiocb that a stacked file system made for it: it holds a pointer to the
/// original (fs/backing-file.c, `struct backing_aio`). Any other kiocb has something else there,
/// which is not the address of a request's kiocb.
#[inline(always)]
fn lower_request(kiocb: u64) -> Option<*mut Request> {
    if BACKING_AIO_ORIG_IOCB.load() == ABSENT {
        return None;
    }
    let original: u64 = read(kiocb, &BACKING_AIO_ORIG_IOCB);
    REQUESTS.get_ptr_mut(original)
}

/// De-duplication of redundant attachments (preempt.rs): true in the second one, if the first has
/// run for the same thing. `token` identifies that thing. If one of the two was skipped, the other
/// stands for both. The token is left over then: if it comes again, the other attachment counts,
/// but as often.
#[inline(always)]
fn is_duplicate<const REDUNDANT: bool>(request: *mut Request, token: u64) -> bool {
    if !REDUNDANT || COPIES.load() == 0 {
        return false;
    }
    // SAFETY: a request of a map. It is not complete yet: until then `end_ns` holds the token.
    unsafe {
        let last = &raw mut (*request).end_ns;
        let duplicate = *last == token;
        *last = if duplicate { 0 } else { token };
        duplicate
    }
}

/// The open request of this thread, if `mapping` is the one its data lives in. The same thread
/// may meanwhile fault in a buffer that is another file's mapping, read metadata, or reclaim.
#[inline(always)]
fn request_on(mapping: u64) -> Option<(*mut Thread, *mut Request)> {
    let thread = thread_table::current()?;
    // SAFETY: a value of THREADS.
    if unsafe { (*thread).state } == IDLE {
        return None;
    }
    let request = open_request(thread)?;
    // SAFETY: a request of a map, and a value of THREADS.
    let (own, lower_mapping) = unsafe { ((*request).mapping, (*thread).lower_mapping) };
    (own == mapping || lower_mapping == mapping).then_some((thread, request))
}

/// Evidence of a first attempt: all zero but the count of attempts. In words and volatile:
/// otherwise the compiler calls its `memset`, which goes byte by byte.
#[inline(always)]
pub unsafe fn reset(evidence: *mut Evidence) {
    // SAFETY: per the caller; the struct is made of whole words.
    unsafe {
        let words = evidence.cast::<u64>();
        for word in 0..size_of::<Evidence>() / 8 {
            words.add(word).write_volatile(0);
        }
        (*evidence).attempts = 1;
    }
}

/// What the verdict needs to know of a file system, as evidence. Asked by the verdict itself, it
/// would make the verifier walk the rules once for each answer.
#[inline(always)]
pub const fn of_magic(magic: u32) -> u32 {
    let own_way = if magic::has_own_way(magic) { seen::OWN_WAY } else { 0 };
    own_way | if magic::is_local(magic) { seen::LOCAL } else { 0 }
}
