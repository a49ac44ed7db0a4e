//! What the kernel does for an open request: every write to [`Evidence`] is in this
//! room, but for the bits that a request starts with (request/open.rs:fill).
//!
//! Submission runs in the submitter's thread and is found by the thread. Completion may run in an
//! interrupt on top of a thread with a request of its own: it is found by its kiocb, unless the
//! kiocb is synchronous.
//!
//! - [`direct`]: the direct paths
//! - [`page_cache`]: reads and writes through the page cache, and the pages that come into it
//! - [`writeback`]: side effects on the page cache: write-back and invalidation
//! - [`would_block`]: why an attempt that must not wait ended with EAGAIN
//! - [`stacked`]: what a stacked file system forwards to a lower one

pub mod direct;
pub mod page_cache;
pub mod stacked;
pub mod would_block;
pub mod writeback;

use dio_trace_common::{
    evidence::{Evidence, seen},
    offsets::ABSENT,
    verdict::magic,
};

use crate::{
    config::COPIES,
    in_flight::{self, RequestRef},
    kernel_memory::{Args, BACKING_AIO_ORIG_IOCB, KIOCB_KI_COMPLETE, read},
    record::fields,
    thread_table::{self, IDLE, ThreadRef, current_request, open_request},
    user_memory::Iovec,
};

/// The evidence of a request.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct EvidenceRef(*mut Evidence);

fields! { EvidenceRef:
    direct_bytes: u64,
    cached_bytes: u64,
    seen: u32,
    direct_err: i32,
    buffered_err: i32,
    attempts: u32,
    flushed_pages: u32,
    invalidated_pages: u32,
    added_pages: u32,
    addr_bits: u32,
    len_bits: u32,
    segments: u32,
}

impl EvidenceRef {
    #[inline(always)]
    pub fn of(request: RequestRef) -> Self {
        Self(request.evidence().as_ptr())
    }

    /// True if one of these bits of [`seen`] is set.
    #[inline(always)]
    pub fn has_seen(self, bits: u32) -> bool {
        self.seen().has(bits)
    }

    #[inline(always)]
    pub fn set_seen(self, bits: u32) {
        self.seen().set_bits(bits);
    }

    #[inline(always)]
    pub fn clear_seen(self, bits: u32) {
        self.seen().clear_bits(bits);
    }

    /// Evidence of a first attempt: all zero but the count of attempts. In words and volatile:
    /// otherwise the compiler calls its `memset`, which goes byte by byte.
    #[inline(always)]
    pub fn reset(self) {
        let words = self.0.cast::<u64>();
        for word in 0..size_of::<Evidence>() / 8 {
            // SAFETY: a record in a map's value, which is made of whole words.
            unsafe { words.add(word).write_volatile(0) };
        }
        self.attempts().set(1);
    }

    /// Another attempt begins, which goes on behind the `done` bytes of earlier ones.
    #[inline(always)]
    pub fn next_attempt(self, done: u64) {
        self.attempts().add(1);
        self.buffered_err().set(0);
        // What an earlier attempt read beyond `done` is read again.
        if self.cached_bytes().get() > done {
            self.cached_bytes().set(done);
        }
        let direct = done - self.cached_bytes().get();
        if self.direct_bytes().get() > direct {
            self.direct_bytes().set(direct);
        }
    }

    /// One of the user's buffers, for [`crate::alignment`].
    #[inline(always)]
    pub fn only_segment(self, request: RequestRef) {
        self.addr_bits().set(request.user().get() as u32);
        self.len_bits().set(request.len().get() as u32);
        self.segments().set(1);
    }

    /// One of several buffers.
    #[inline(always)]
    pub fn add_segment(self, segment: &Iovec) {
        self.addr_bits().set_bits(segment.base as u32);
        self.len_bits().set_bits(segment.len as u32);
        self.segments().add(1);
    }
}

/// The request that a completing kiocb belongs to.
#[inline(always)]
fn request_of<A: Args>(ctx: &A, kiocb: u64) -> Option<RequestRef> {
    let complete: u64 = ctx.load(kiocb, &KIOCB_KI_COMPLETE);
    if complete == 0 {
        return current_request();
    }
    in_flight::get(ctx.number(kiocb)).or_else(|| forwarding_request(kiocb))
}

/// The request behind the kiocb that a stacked file system made for it, which holds a pointer to
/// the original (fs/backing-file.c, `struct backing_aio`). Any other kiocb has something else
/// there, which is not the address of a request's kiocb.
#[inline(always)]
fn forwarding_request(kiocb: u64) -> Option<RequestRef> {
    if BACKING_AIO_ORIG_IOCB.load() == ABSENT {
        return None;
    }
    let original: u64 = read(kiocb, &BACKING_AIO_ORIG_IOCB);
    in_flight::get(original)
}

/// De-duplication of redundant attachments (preempt.rs): true in the second one, if the first has
/// run for the same thing. `token` identifies that thing. If one of the two was skipped, the other
/// stands for both. The token is left over then: if it comes again, the other attachment counts,
/// but as often.
#[inline(always)]
fn is_duplicate<const REDUNDANT: bool>(request: RequestRef, token: u64) -> bool {
    if !REDUNDANT || COPIES.load() == 0 {
        return false;
    }
    let last = request.last_token();
    let duplicate = last.get() == token;
    let token = if duplicate { 0 } else { token };
    last.set(token);
    duplicate
}

/// The open request of this thread, if `mapping` is the one its data lives in. The same thread
/// may meanwhile fault in a buffer that is another file's mapping, read metadata, or reclaim.
#[inline(always)]
fn request_on(mapping: u64) -> Option<(ThreadRef, RequestRef)> {
    let thread = thread_table::current()?;
    // SAFETY: a value of THREADS.
    if unsafe { (*thread.as_ptr()).state } == IDLE {
        return None;
    }
    let request = open_request(thread)?;
    // SAFETY: a request of a map.
    let request = unsafe { RequestRef::new(request) };
    // SAFETY: a request of a map, and a value of THREADS.
    let (own, lower_mapping) =
        unsafe { ((*request.record()).mapping, (*thread.as_ptr()).lower_mapping) };
    (own == mapping || lower_mapping == mapping).then_some((thread, request))
}

/// What the verdict needs to know of a file system, as evidence. Asked by the verdict itself, it
/// would make the verifier walk the rules once for each answer.
#[inline(always)]
pub const fn of_magic(magic: u32) -> u32 {
    let private_path = if magic::has_private_path(magic) { seen::PRIVATE_PATH } else { 0 };
    private_path | if magic::is_local(magic) { seen::LOCAL } else { 0 }
}
