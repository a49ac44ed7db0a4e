//! Requests in flight, and access to a request's record.
//!
//! A synchronous request is part of its thread's record (thread_table.rs, the own-thread rule). An
//! asynchronous one lies in a slot of [`REQUESTS`], from its issue to its completion. Its kiocb's
//! address gives its home slot: in a hash map, a look-up takes 70 instructions more on 6.12, and an
//! insertion and a removal several hundred. Where another request has that slot, it takes one
//! nearby, which a hash map knows. [`RequestRef`] stands for either.
//!
//! # How and when it is safe to access a field
//!
//! Who may touch a record of [`REQUESTS`]:
//!
//! - The **slot rule**: a slot is a thread's that has added 1 to its `claims` and then read 1: of
//!   several that try at once none may get it, and then each takes 1 away again. Until `key` is
//!   written, as the last field, nobody finds the slot. A completion clears `key` first and takes 1
//!   from `claims` last. (An arm64 CPU may show another one the two in the other order: the next
//!   request of the slot would then be lost. Hundreds of instructions lie between the two.)
//!   `elsewhere` is only changed by atomic instructions.
//! - The **issuer rule**: from the claim until the issue function returns, the issuing thread
//!   reads and writes it: it finds it by the slot, kiocb and `begin_ns` in its own record
//!   (thread_table.rs:open_request). io_uring issues a request again only after the attempt before
//!   returned -EAGAIN or was cut short (io_uring/rw.c), so there is one issuer at a time; where it
//!   is another thread (io-wq), the work queue orders the two.
//! - The **one-completer rule**: the kernel completes a kiocb once, on one CPU, in any context.
//!   That program writes the result, decides, counts, sends and removes the record. Where the
//!   program is attached several times (preempt.rs), and where several functions tell of one
//!   completion, the first to run removes the record and the others find none. They run one after
//!   another on that CPU, or ordered by the kernel (the CQE is posted after the callback). A slot
//!   that was removed by two at once would be given back twice.
//!
//! `kind`, `begin_ns`, `kiocb`, `task`, `op`, `api` and `file` never change
//! between issue and removal: anybody may read them.
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
//! - `checksum` (--verify-stable): the issuer writes it at the issue; the completer reads it
//!   only where it is the issuer as well.
//! - `rw_flags` and `ring`: the issuer writes them at the issue, and `ring` again at a later
//!   attempt. The completer adds to them right before the record is sent.
//! - `last_token` is written only by programs that the kernel calls once for each completion
//!   (evidence/mod.rs:is_duplicate).
//!
//! A pointer may outlive its request, when the completer removes it under the issuer. The memory
//! stays part of the map. A late access may hit the next request in this slot; `begin_ns` is
//! compared right before, which leaves a window of a few instructions.

use aya_ebpf::btf_maps::{Array, HashMap};
use dio_trace_common::{
    abi::{FileId, KeyWords, Request, Task},
    evidence::{Evidence, seen},
};

use crate::{
    config::WANTED_FLAG,
    maps::Copied,
    record::{Field, fields},
};

const SLOT_BITS: u32 = 14;
const SLOTS: u32 = 1 << SLOT_BITS;
/// Slots that a request tries.
const TRIES: u32 = 32;

#[aya_ebpf::macros::btf_map]
static REQUESTS: Array<Open, { SLOTS as usize }> = Array::new();

/// Overflow: the slots of requests that are not in their home slot, by kiocb.
#[aya_ebpf::macros::btf_map]
static REQUESTS_ELSEWHERE: HashMap<u64, u32, { SLOTS as usize }> = HashMap::new();

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
    /// Of a slot: the kiocb by which its request is found, or 0.
    key: u64,
    /// Of a slot: how many requests have it, or try to.
    claims: u64,
    /// Of a slot: how many requests that have their home slot here took another one.
    elsewhere: u64,
    /// Of a slot: its number.
    slot: u32,
    pad: u32,
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
    key: u64,
    claims: u64,
    elsewhere: u64,
    /// Written by [`take`] only.
    pub slot: u32,
}

impl RequestRef {
    /// True if its file is open without O_DIRECT (`--cached`).
    #[inline(always)]
    pub fn is_not_asked(self) -> bool {
        // SAFETY: a request of a map; the bit is set at its issue.
        WANTED_FLAG.load() == 0 && unsafe { (*self.record()).evidence.seen & seen::NOT_ASKED != 0 }
    }
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

    #[inline(always)]
    pub const fn as_ptr(self) -> *mut Open {
        self.0
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

/// The slot that a kiocb tries first.
#[inline(always)]
const fn home_slot(kiocb: u64) -> u32 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15; // 2^64 divided by the golden ratio
    (kiocb.wrapping_mul(GOLDEN) >> (64 - SLOT_BITS)) as u32
}

/// The slot of that number, if the request of the kiocb is there.
#[inline(always)]
pub fn at(number: u32, kiocb: u64) -> Option<*mut Open> {
    let slot = REQUESTS.get_ptr_mut(number)?;
    // SAFETY: slot rule.
    (unsafe { (*slot).key } == kiocb && kiocb != 0).then_some(slot)
}

/// [`get`], as it lies in the map.
#[inline(always)]
fn record(kiocb: u64) -> Option<*mut Open> {
    let home = REQUESTS.get_ptr_mut(home_slot(kiocb))?;
    // SAFETY: slot rule.
    unsafe {
        if (*home).key == kiocb && kiocb != 0 {
            return Some(home);
        }
        if (*home).elsewhere == 0 {
            return None;
        }
    }
    at(REQUESTS_ELSEWHERE.copied(kiocb)?, kiocb)
}

/// The open asynchronous request of a kiocb.
#[inline(always)]
pub fn get(kiocb: u64) -> Option<RequestRef> {
    let record = record(kiocb)?;
    Some(RequestRef(record))
}

/// The slot of a request whose completion was missed serves the next request of its kiocb. `number`
/// gets its number.
#[inline(always)]
pub fn take_over(stale: RequestRef, number: Field<u32>) {
    stale.hide();
    number.set_volatile(stale.slot().get());
}

/// The slot of that number, which nobody finds until [`RequestRef::show`]; `None` if [`take`] found
/// no room.
#[inline(always)]
pub fn taken(number: Field<u32>) -> Option<RequestRef> {
    let slot = REQUESTS.get_ptr_mut(number.get_volatile())?;
    Some(RequestRef(slot))
}

/// Takes a slot for the request of a kiocb. `number` gets its number, or [`SLOTS`] if there is no
/// room: in a register it would make the verifier walk what follows once for each try. Returns 0, as
/// a function of its own has to return a number.
#[inline(never)]
pub fn take(kiocb: u64, number: Field<u32>) -> u32 {
    let home = home_slot(kiocb);
    number.set_volatile(SLOTS);
    for n in 0..TRIES {
        let at = (home + n * n) % SLOTS;
        let Some(slot) = REQUESTS.get_ptr_mut(at) else { break };
        let slot = RequestRef(slot);
        slot.claims().add_atomic(1);
        if slot.claims().get_volatile() != 1 {
            slot.claims().add_atomic(u64::MAX);
            continue;
        }
        if n != 0 && !settle(kiocb, home, at) {
            slot.claims().add_atomic(u64::MAX);
            break;
        }
        slot.slot().set(at);
        number.set_volatile(at);
        break;
    }
    0
}

/// Makes a request findable that is not in its home slot; false if there is no room.
#[inline(always)]
fn settle(kiocb: u64, home: u32, at: u32) -> bool {
    let Some(home) = REQUESTS.get_ptr_mut(home) else { return false };
    let elsewhere = RequestRef(home).elsewhere();
    elsewhere.add_atomic(1);
    let settled = REQUESTS_ELSEWHERE.insert(kiocb, at, 0).is_ok();
    if !settled {
        elsewhere.add_atomic(u64::MAX);
    }
    settled
}

/// Undoes [`settle`].
#[inline(always)]
fn unsettle(kiocb: u64, home: u32) {
    // Gone already is fine.
    let _ = REQUESTS_ELSEWHERE.remove(kiocb);
    if let Some(home) = REQUESTS.get_ptr_mut(home) {
        RequestRef(home).elsewhere().add_atomic(u64::MAX);
    }
}

impl RequestRef {
    /// The request of a kiocb in this slot can be found from here on.
    #[inline(always)]
    pub fn show(self, kiocb: u64) {
        self.key().set_volatile(kiocb);
    }

    /// The request in this slot is no longer found. The slot stays its until [`RequestRef::remove`].
    #[inline(always)]
    pub fn hide(self) {
        self.key().set_volatile(0);
    }

    /// Gives the slot of a hidden request back.
    #[inline(always)]
    pub fn remove(self) {
        let kiocb = self.kiocb().get();
        let home = home_slot(kiocb);
        if self.slot().get() != home {
            unsettle(kiocb, home);
        }
        self.claims().add_atomic(u64::MAX);
    }
}
