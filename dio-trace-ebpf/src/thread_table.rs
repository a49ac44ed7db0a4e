//! The record of each thread, and finding it.
//!
//! Every probe that a direct request passes asks for it, and those of the page cache ask for
//! threads that never made a request. A thread has a slot of an array by its id, its home slot:
//! measured on 6.12, a look-up takes about 85 instructions less than one in task-local storage.
//! Where another thread has that slot already the thread takes one nearby (overflow), which a hash
//! map knows.
//!
//! # How and when it is safe to access a field
//!
//! - The **own-thread rule**: all fields but those named below are read and written only by
//!   programs that run for the thread itself, in its own context. The kernel runs them one after
//!   another; preemption may put another thread on the CPU in between, which has a record of its
//!   own.
//! - An **interrupt** that completes a request may run on top of any thread, in the midst of one of
//!   its programs. It finds the request by its kiocb, and of the record below it reads only
//!   `state`, `open.request.kiocb` and `begin_ns`, to tell whether this very thread is
//!   submitting the request (`is_submitting`). It writes no field of it. A pair that is half
//!   written matches no request in flight, as both are compared.
//! - The **slot rule**: `owner` is written by the thread that claims the slot, as the last field,
//!   and by the program of `sched_process_free`, when the thread has exited and no longer runs. Of
//!   several threads that want a slot the first to enter OWNERS has it; the others never touch the
//!   record. Every probe reads `owner`: another thread's id means that the record is not its own.
//!   `collided` is set by any thread whose home slot this is and which found it taken. It is never
//!   cleared, so that the order of stores does not matter.
//! - `counter_slots` is written by the program that completes a request of the thread, on any CPU.
//!   Each is one store of 4 bytes. A stale one costs a look-up: whoever uses it compares the key
//!   that is counted there (counters.rs:is_at).
//!
//! What of [`Thread::open`] is safe follows from [`Thread::state`]: in `SYNC` it is the open
//! request, which ends in this thread, so that the own-thread rule covers it. In `ASYNC` the open
//! request is the one in flight in [`Thread::slot`] (in_flight.rs has the rules), and only `kiocb`
//! and `begin_ns` are used here.

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    helpers::bpf_get_current_pid_tgid,
};

use crate::{
    in_flight::{self, Open, RequestRef},
    maps::{Copied, insert_new},
    record::{Field, fields},
};

/// [`Thread::state`]: no request open.
pub const IDLE: u32 = 0;
/// [`Thread::state`]: the open request is [`Thread::open`].
pub const SYNC: u32 = 1;
/// [`Thread::state`]: the open request is in flight, in [`Thread::slot`].
pub const ASYNC: u32 = 2;

/// What a thread is submitting.
#[repr(C)]
pub struct Thread {
    /// Its tgid and tid, as bpf_get_current_pid_tgid gives them; 0: the slot is free.
    pub owner: u64,
    /// 1 if a thread that has its home slot here found it taken. Stays with the slot.
    pub collided: u64,
    pub state: u32,
    /// Segments of the vector that is about to be issued.
    pub nr_segs: u32,
    /// In `ASYNC`: the slot of the open request.
    pub slot: u32,
    /// The attachments of the entry probe that the open request has passed, as bits.
    pub entered_by: u32,
    /// Flags (`REQ_*`) of the request that is about to be issued…
    pub asked_flags: u32,
    pub pad: u32,
    /// … and its length.
    pub asked_len: u64,
    /// The request's file.
    pub file: u64,
    /// Kernel address of the position of a synchronous request.
    pub ppos: u64,
    /// `address_space` of the file that a stacked file system forwarded the request to, or 0.
    pub lower_mapping: u64,
    /// The `address_space` of the invalidation in progress, or 0.
    pub invalidating: u64,
    /// `address_space.nrpages` when it began.
    pub nrpages: u64,
    /// The file that the splice or sendfile in progress names as the one to write, 0 before any.
    pub splice_to: u64,
    /// The file whose rejected open was sent last, and the attachments of the probe that it passed.
    pub rejected: u64,
    pub rejected_by: u64,
    /// Only kprobe: `BY_*` of the system call in progress that asks for O_DIRECT, else 0…
    pub pending: u64,
    /// … and for which file.
    pub pending_mnt: u64,
    pub pending_dentry: u64,
    /// Only kprobe, as a kretprobe has no arguments: 1 + third argument of the `filemap_read` in
    /// progress, 0 if there is none.
    pub already: u64,
    /// Only kprobe: the `writeback_control` of the `do_writepages` in progress, or 0.
    pub wbc: u64,
    /// Only kprobe: where the io_getevents in progress puts its events, or 0.
    pub reaping: u64,
    /// The kiocb of one of these events whose completion was missed, and its result.
    pub missed_kiocb: u64,
    pub missed_result: i64,
    /// The counters of its last read and of its last write.
    pub counter_slots: [u32; 2],
    pub open: Open,
}

/// A thread's record: a slot of [`THREADS`].
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct ThreadRef(*mut Thread);

fields! { ThreadRef:
    pub owner: u64,
    collided: u64,
    pub state: u32,
    pub nr_segs: u32,
    pub slot: u32,
    pub entered_by: u32,
    pub asked_flags: u32,
    pub asked_len: u64,
    pub file: u64,
    pub ppos: u64,
    pub lower_mapping: u64,
    pub invalidating: u64,
    pub nrpages: u64,
    pub splice_to: u64,
    pub rejected: u64,
    pub rejected_by: u64,
    pub pending: u64,
    pub pending_mnt: u64,
    pub pending_dentry: u64,
    pub already: u64,
    pub wbc: u64,
    pub reaping: u64,
    pub missed_kiocb: u64,
    pub missed_result: i64,
    counter_slots: [u32; 2],
}

impl ThreadRef {
    #[inline(always)]
    pub const fn as_ptr(self) -> *mut Thread {
        self.0
    }

    /// Its request: the open one in `SYNC`. In `ASYNC` only `kiocb` and `begin_ns` are the open one's.
    #[inline(always)]
    pub fn request(self) -> RequestRef {
        // SAFETY: a part of a map's value.
        unsafe { RequestRef::new(&raw mut (*self.0).open) }
    }

    /// The counter of its last request of this kind (`OP_*`).
    #[inline(always)]
    pub fn counter_slot(self, op: u8) -> Field<u32> {
        let first = self.counter_slots().as_ptr().cast::<u32>();
        // SAFETY: one of two.
        unsafe { Field::new(first.add(usize::from(op & 1))) }
    }
}

/// Live threads that may have made a request.
const SLOTS: u32 = 16384;
/// Slots that a thread tries.
const TRIES: u32 = 16;
/// From one to the next: far enough that the threads of a process, whose ids follow one another, do
/// not all try the same.
const STEP: u32 = 577;

#[aya_ebpf::macros::btf_map]
static THREADS: Array<Thread, { SLOTS as usize }> = Array::new();

/// The owner of each slot: the first thread to enter it here.
#[aya_ebpf::macros::btf_map]
static OWNERS: HashMap<u32, u64, { SLOTS as usize }> = HashMap::new();

/// Overflow: the slots of threads that are not in their home slot, by thread id.
#[aya_ebpf::macros::btf_map]
static ELSEWHERE: HashMap<u32, u32, { SLOTS as usize }> = HashMap::new();

/// The slot that a thread tries first.
#[inline(always)]
const fn home_slot(id: u64) -> u32 {
    id as u32 % SLOTS
}

#[inline(always)]
fn slot(number: u32) -> Option<ThreadRef> {
    let record = THREADS.get_ptr_mut(number)?;
    Some(ThreadRef(record))
}

/// The current thread's record, if it ever issued a request.
#[inline(always)]
pub fn current() -> Option<ThreadRef> {
    get(bpf_get_current_pid_tgid())
}

/// The record of the thread of that tgid and tid.
#[inline(always)]
pub fn get(id: u64) -> Option<ThreadRef> {
    let home = THREADS.get_ptr_mut(home_slot(id))?;
    // SAFETY: slot rule.
    unsafe {
        // 0 is a CPU's idle task, on top of which a completion's interrupt may run.
        if (*home).owner == id && id != 0 {
            return Some(ThreadRef(home));
        }
        if (*home).collided == 0 {
            return None;
        }
    }
    let slot = ELSEWHERE.get_ptr(id as u32)?;
    // SAFETY: a value of ELSEWHERE.
    let other = THREADS.get_ptr_mut(unsafe { *slot })?;
    // SAFETY: slot rule.
    (unsafe { (*other).owner } == id).then_some(ThreadRef(other))
}

/// The current thread's record, claimed if it has none.
#[inline(always)]
pub fn current_or_claim() -> Option<ThreadRef> {
    get_or_claim(bpf_get_current_pid_tgid())
}

/// [`get`], which claims a slot if the thread has none.
#[inline(always)]
pub fn get_or_claim(id: u64) -> Option<ThreadRef> {
    if let Some(thread) = get(id) {
        return Some(thread);
    }
    claim(id);
    get(id)
}

/// Takes a slot for a thread, if there is one.
#[inline(never)]
fn claim(id: u64) -> u32 {
    if id == 0 {
        return 0; // see `get`
    }
    for n in 0..TRIES {
        let number = (home_slot(id) + n * STEP) % SLOTS;
        if !insert_new(&OWNERS, &number, &id) {
            continue;
        }
        if n != 0 {
            let Some(home) = slot(home_slot(id)) else { return 0 };
            home.collided().set(1);
            if ELSEWHERE.insert(id as u32, &number, 0).is_err() {
                let _ = OWNERS.remove(number);
                return 0;
            }
        }
        let Some(thread) = slot(number) else { return 0 };
        reset(thread);
        thread.owner().set(id);
        return 1;
    }
    0
}

/// Forgets what the slot's previous owner left there. Volatile: otherwise the compiler calls its
/// byte-by-byte `memset`.
#[inline(always)]
fn reset(thread: ThreadRef) {
    thread.state().set_volatile(IDLE);
    thread.entered_by().set_volatile(0);
    thread.invalidating().set_volatile(0);
    thread.splice_to().set_volatile(0);
    thread.rejected().set_volatile(0);
    thread.rejected_by().set_volatile(0);
    thread.pending().set_volatile(0);
    thread.already().set_volatile(0);
    thread.wbc().set_volatile(0);
    thread.reaping().set_volatile(0);
}

/// Frees the slot of a thread that has exited.
#[inline(always)]
pub fn release(id: u64) {
    let tid = id as u32;
    let Some(thread) = get(id) else { return };
    let number = ELSEWHERE.copied(tid).unwrap_or(home_slot(id));
    thread.owner().set(0);
    // Gone already is fine.
    let _ = ELSEWHERE.remove(tid);
    let _ = OWNERS.remove(number);
}

/// The thread submits the request in flight in [`Thread::slot`].
#[inline(always)]
pub fn submits(thread: ThreadRef, request: RequestRef) {
    let own = thread.request();
    own.begin_ns().set(request.begin_ns().get());
    own.kiocb().set(request.kiocb().get());
    thread.state().set(ASYNC);
}

/// True if it is the request in flight that the thread is submitting.
#[inline(always)]
pub fn is_submitting(thread: ThreadRef, request: RequestRef) -> bool {
    thread.state().get() == ASYNC
        && thread.request().kiocb().get() == request.kiocb().get()
        && thread.request().begin_ns().get() == request.begin_ns().get()
}

/// The request the thread is submitting, if any. A plain pointer: LLVM makes other instructions of
/// an `Option<RequestRef>` here.
#[inline(always)]
pub fn open_request(thread: ThreadRef) -> Option<*mut Open> {
    let thread = thread.as_ptr();
    // SAFETY: own-thread rule; an interrupt only compares.
    unsafe {
        match (*thread).state {
            SYNC => Some(&raw mut (*thread).open),
            ASYNC => {
                let own = &raw const (*thread).open.request;
                let open = in_flight::at((*thread).slot, (*own).kiocb)?;
                // The kiocb may have completed and serve another request already.
                ((*open).request.begin_ns == (*own).begin_ns).then_some(open)
            }
            _ => None,
        }
    }
}

/// The request the current thread is submitting, if any.
#[inline(always)]
pub fn current_request() -> Option<RequestRef> {
    let request = open_request(current()?)?;
    // SAFETY: a request of a map.
    Some(unsafe { RequestRef::new(request) })
}
