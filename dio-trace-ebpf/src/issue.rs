//! What a function that issues a request knows of it, and what the issue means for an earlier
//! request that is still open: it goes on, or its completion was missed.
//!
//! (A log message has the names of its module and its file in the program, so that their lengths
//! are instructions.)

use dio_trace_common::abi::{REQ_PUNTED, Stat, ring};

use crate::{
    evidence::{EvidenceRef, would_block},
    filter::Direct,
    in_flight::RequestRef,
    kernel_memory::Args,
    maps::count,
    task::is_io_worker,
    thread_table::{IDLE, SYNC, ThreadRef, submits},
};

/// What an issue function knows besides the file.
pub struct Issue {
    /// Of the file.
    pub direct: Direct,
    pub op: u8,
    pub api: u8,
    /// `REQ_VECTORED` and `REQ_COMPAT`, or 0.
    pub flags: u8,
    pub pos: i64,
    pub len: u64,
    pub user: u64,
    pub nr_segs: u32,
    /// `rwf::*`
    pub rw_flags: u16,
    /// Of an asynchronous request, else 0.
    pub kiocb: u64,
    /// Kernel address of a synchronous request's position, else 0.
    pub ppos: u64,
    /// The return of each attempt is probed too.
    pub paired: bool,
}

/// If the thread's synchronous request is still open when the thread issues another one, its return
/// was missed.
#[inline(always)]
pub fn close_stale<A: Args>(ctx: &A, thread: ThreadRef) {
    if thread.state().get() == SYNC {
        let request = thread.request();
        aya_log_ebpf::debug!(
            ctx,
            "thread {}: no end seen of inode {} offset {} length {}",
            request.tid().get(),
            request.ino().get(),
            request.pos().get(),
            request.len().get()
        );
        count(Stat::Unmatched);
    }
    thread.state().set(IDLE);
}

/// io_uring issues a request again, under the same kiocb: in io-wq after -EAGAIN, or for the rest
/// after a short inline read (io_uring/rw.c). It is one request if both issues ask for the same
/// bytes, and this one for a position inside them. Anything else is a recycled kiocb whose
/// completion was missed: `false`.
#[inline(always)]
pub fn continue_attempt(thread: ThreadRef, request: RequestRef, issue: &Issue) -> bool {
    // SAFETY: issuer rule: between two attempts nobody else touches it.
    unsafe {
        let open = &raw mut (*request.as_ptr()).request;
        let same = ((*open).flags & REQ_PUNTED != 0 || !issue.paired)
            && ((*open).user == issue.user || (*open).user == 0)
            && ((*open).len == issue.len || (*open).user == 0)
            && issue.pos >= (*open).pos
            && ((issue.pos - (*open).pos) as u64) < issue.len;
        if !same {
            return false;
        }
        // A buffer of the kernel's choice is known once it was chosen (IOSQE_BUFFER_SELECT).
        ((*open).user, (*open).len) = (issue.user, issue.len);
        let done = (issue.pos - (*open).pos) as u64;
        would_block::next_attempt(request, done);
        EvidenceRef::of(request).next_attempt(done);
        (*open).done_before = done;
        (*open).flags &= !REQ_PUNTED;
        if is_io_worker() {
            (*open).ring |= ring::WORKER;
        }
    }
    thread.slot().set(request.slot().get());
    submits(thread, request);
    true
}

/// The kiocb of an open request serves another one: its completion was missed.
#[inline(always)]
pub fn begins_anew<A: Args>(ctx: &A, stale: RequestRef) {
    aya_log_ebpf::debug!(
        ctx,
        "kiocb {:x} begins anew: no end seen of inode {} offset {} length {}",
        stale.kiocb().get(),
        stale.ino().get(),
        stale.pos().get(),
        stale.len().get()
    );
    count(Stat::Unmatched);
}
