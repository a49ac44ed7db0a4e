//! Requests in flight, and access to a request's record.
//!
//! A synchronous request is part of its thread's record (thread_table.rs, the own-thread rule). An
//! asynchronous one lies in [`REQUESTS`] under the address of its kiocb, from its issue to its
//! completion. [`RequestRef`] stands for either.
//!
//! # How and when it is safe to access a field
//!
//! Who may touch a record of [`REQUESTS`]:
//!
//! - The **issuer rule**: from the insertion until the issue function returns, the issuing thread
//!   reads and writes it: it finds it by the kiocb and `begin_ns` in its own record
//!   (thread_table.rs:open_request). io_uring issues a request again only after the attempt before
//!   returned -EAGAIN or was cut short (io_uring/rw.c), so there is one issuer at a time; where it
//!   is another thread (io-wq), the work queue orders the two.
//! - The **one-completer rule**: the kernel completes a kiocb once, on one CPU, in any context.
//!   That program writes the result, decides, counts, sends and removes the record. Where the
//!   program is attached several times (preempt.rs), and where several functions tell of one
//!   completion, the first to run removes the record and the others find none. They run one after
//!   another on that CPU, or ordered by the kernel (the CQE is posted after the callback).
//!
//! `kind`, `begin_ns`, `kiocb`, `task`, `op`, `api` and `file` never change
//! between insertion and removal: anybody may read them.
//!
//! What is racy: the device may complete a request while its issuer is still on the way out of the
//! kernel. Both may then write the record, without atomic instructions:
//!
//! - `user` and `len` of a buffer that the kernel chose: both write the same values.
//! - `flags`: the issuer sets `REQ_PUNTED` where `filemap_read` queued the request or the attempt
//!   failed, and then no direct completion is pending.
//! - `evidence.seen`: the issuer adds no bit of the direct path after it submitted; it may add
//!   `MISSED` (kprobe mode). If both change the word within the same few instructions, one bit is
//!   lost. The completer sets `DIRECT_ENTERED` again where it runs in another context, so that the
//!   proof of the direct path does not hang on one store.
//! - `waits_for` and `would_block` (--why-eagain): the issuer writes both, and only of an attempt
//!   that failed, of which no completion is pending; the completer writes them after EAGAIN.
//! - `checksum` (--verify-stable): the issuer writes it before the insertion; the completer reads it
//!   only where it is the issuer as well.
//! - `rw_flags` and `ring`: the issuer writes them before the insertion, and `ring` again at a later
//!   attempt. The completer adds to them right before the record is sent.
//! - `last_token` is written only by programs that the kernel calls once for each completion
//!   (evidence/mod.rs:is_duplicate).
//!
//! A pointer may outlive its entry, when the completer removes the record under the issuer. The
//! memory stays part of the map (elements are preallocated and reused, kernel/bpf/hashtab.c), so
//! that a late access is never out of bounds. It may hit the next request with this element;
//! `begin_ns` is compared right before, which leaves a window of a few instructions.

use aya_ebpf::btf_maps::HashMap;
use dio_trace_common::{
    abi::{FileId, KeyWords, Request, Task},
    evidence::Evidence,
};

use crate::record::fields;

/// Open asynchronous requests by kiocb address.
#[aya_ebpf::macros::btf_map]
static REQUESTS: HashMap<u64, Open, 16384> = HashMap::new();

/// An open request, and what only the probes need while it is open.
#[repr(C)]
pub struct Open {
    /// The record that is sent.
    pub request: Request,
    /// The last completion that was counted, see evidence/mod.rs:is_duplicate.
    pub last_token: u64,
    /// The slot of the counter of its thread's previous request of this kind; may be stale.
    pub counter_slot: u64,
    /// Checksum of the user's buffer at issue, see stable_buffer.rs; 0: none was taken.
    pub checksum: u64,
    /// What the present attempt would have to wait for, see evidence/would_block.rs.
    pub waits_for: u64,
}

/// A request's record: a value of [`REQUESTS`], or a part of a thread's record.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct RequestRef(*mut Open);

fields! { RequestRef:
    pub last_token: u64,
    pub counter_slot: u64,
    pub checksum: u64,
    pub waits_for: u64,
}

fields! { RequestRef in request.file:
    pub ino: u64,
    pub dev: u32,
}

fields! { RequestRef in request.task:
    pub tid: u32,
    pub tgid: u32,
    pub comm: [u8; 16],
}

fields! { RequestRef in request:
    pub file: FileId,
    pub task: Task,
    pub nr_segs: u32,
    pub begin_ns: u64,
    pub end_ns: u64,
    pub kiocb: u64,
    pub mapping: u64,
    pub user: u64,
    pub pos: i64,
    pub len: u64,
    pub ret: i64,
    pub done_before: u64,
    pub size_end: i64,
    pub direct_bytes: u64,
    pub cached_bytes: u64,
    pub op: u8,
    pub verdict: u8,
    pub outcome: u8,
    pub finding: u8,
    pub magic: u32,
    pub lower_magic: u32,
    pub api: u8,
    pub flags: u8,
    pub stack: u16,
    pub rw_flags: u16,
    pub ring: u8,
    pub would_block: u8,
    /// Written by the room `evidence` only.
    pub evidence: Evidence,
}

impl RequestRef {
    /// # Safety
    /// `record` lies in a map's value.
    #[inline(always)]
    pub const unsafe fn new(record: *mut Open) -> Self {
        Self(record)
    }

    /// The record that is sent.
    #[inline(always)]
    pub const fn record(self) -> *const Request {
        self.0.cast()
    }

    /// What it is counted under. It holds its decision.
    #[inline(always)]
    pub fn key_words(self) -> KeyWords {
        // SAFETY: a request's record, which one CPU completes (one-completer rule).
        unsafe { Request::key_words(self.record()) }
    }
}

/// [`get`], as it lies in the map.
#[inline(always)]
pub fn record(kiocb: u64) -> Option<*mut Open> {
    REQUESTS.get_ptr_mut(kiocb)
}

/// The open asynchronous request of a kiocb.
#[inline(always)]
pub fn get(kiocb: u64) -> Option<RequestRef> {
    let record = REQUESTS.get_ptr_mut(kiocb)?;
    Some(RequestRef(record))
}

/// Keeps a copy of the request under its kiocb, until [`remove`]; false if there is no room.
#[inline(always)]
pub fn insert(kiocb: u64, request: RequestRef) -> bool {
    // SAFETY: of the current thread's record: nobody writes it meanwhile (own-thread rule).
    REQUESTS.insert(kiocb, unsafe { &*request.0 }, 0).is_ok()
}

/// Forgets the request of a kiocb.
#[inline(always)]
pub fn remove(kiocb: u64) {
    // Gone already is fine.
    let _ = REQUESTS.remove(kiocb);
}
