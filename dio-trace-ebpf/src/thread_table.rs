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
//!   `state`, `request.kiocb` and `request.begin_ns`, to tell whether this very thread is
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
//! What of [`Thread::request`] is safe follows from [`Thread::state`]: in `SYNC` it is the open
//! request, which ends in this thread, so that the own-thread rule covers it. In `ASYNC` the open
//! request is the copy in flight ([`REQUESTS`] has the rules), and only `kiocb` and `begin_ns` are
//! used here.

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    helpers::bpf_get_current_pid_tgid,
};
use dio_trace_common::abi::Request;

use crate::maps::{REQUESTS, insert_new};

/// [`Thread::state`]: no request open.
pub const IDLE: u32 = 0;
/// [`Thread::state`]: the open request is [`Thread::request`].
pub const SYNC: u32 = 1;
/// [`Thread::state`]: the open request is in [`REQUESTS`] under [`Request::kiocb`].
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
    /// The attachments of the entry probe that the open request has passed, as bits.
    pub entered_by: u32,
    pub pad: u32,
    /// The request's file.
    pub file: u64,
    /// Kernel address of the position of a synchronous request.
    pub ppos: u64,
    /// `address_space` of the file that a stacked file system forwarded the request to, or 0.
    pub lower_mapping: u64,
    /// The `address_space` of the invalidation in progress.
    pub invalidating: u64,
    /// 1 + `address_space.nrpages` when the invalidation in progress began, 0 if there is none.
    pub nrpages: u64,
    /// The file that the splice or sendfile in progress names as the one to write, 0 before any.
    pub splice_to: u64,
    /// The file whose rejected open was sent last, and the attachments of the probe that it passed.
    pub rejected: u64,
    pub rejected_by: u64,
    /// Only kprobe: `REFUSED_*` of the system call in progress that asks for O_DIRECT, else 0…
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
    pub request: Request,
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

/// The current thread's record, if it ever issued a request.
#[inline(always)]
pub fn current() -> Option<*mut Thread> {
    get(bpf_get_current_pid_tgid())
}

/// The record of the thread of that tgid and tid.
#[inline(always)]
pub fn get(id: u64) -> Option<*mut Thread> {
    let home = THREADS.get_ptr_mut(home_slot(id))?;
    // SAFETY: a value of THREADS.
    unsafe {
        // 0 is a CPU's idle task, on top of which a completion's interrupt may run.
        if (*home).owner == id && id != 0 {
            return Some(home);
        }
        if (*home).collided == 0 {
            return None;
        }
    }
    let slot = ELSEWHERE.get_ptr(id as u32)?;
    // SAFETY: a value of ELSEWHERE.
    let other = THREADS.get_ptr_mut(unsafe { *slot })?;
    // SAFETY: a value of THREADS.
    (unsafe { (*other).owner } == id).then_some(other)
}

/// The current thread's record, claimed if it has none.
#[inline(always)]
pub fn current_or_claim() -> Option<*mut Thread> {
    get_or_claim(bpf_get_current_pid_tgid())
}

/// [`get`], which claims a slot if the thread has none.
#[inline(always)]
pub fn get_or_claim(id: u64) -> Option<*mut Thread> {
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
        let slot = (home_slot(id) + n * STEP) % SLOTS;
        if !insert_new(&OWNERS, &slot, &id) {
            continue;
        }
        if n != 0 {
            let Some(home) = THREADS.get_ptr_mut(home_slot(id)) else {
                return 0;
            };
            // SAFETY: a value of THREADS; this is only ever set.
            unsafe { (*home).collided = 1 };
            if ELSEWHERE.insert(id as u32, &slot, 0).is_err() {
                let _ = OWNERS.remove(slot);
                return 0;
            }
        }
        let Some(thread) = THREADS.get_ptr_mut(slot) else {
            return 0;
        };
        // SAFETY: a value of THREADS that is this thread's from here on.
        unsafe { clear(thread) };
        // SAFETY: as above.
        unsafe { (*thread).owner = id };
        return 1;
    }
    0
}

/// As if nobody had had it.
#[inline(always)]
unsafe fn clear(thread: *mut Thread) {
    // SAFETY: per the caller. Volatile: otherwise the compiler calls its byte-by-byte `memset`.
    unsafe {
        (&raw mut (*thread).state).write_volatile(IDLE);
        (&raw mut (*thread).entered_by).write_volatile(0);
        (&raw mut (*thread).nrpages).write_volatile(0);
        (&raw mut (*thread).splice_to).write_volatile(0);
        (&raw mut (*thread).rejected).write_volatile(0);
        (&raw mut (*thread).rejected_by).write_volatile(0);
        (&raw mut (*thread).pending).write_volatile(0);
        (&raw mut (*thread).already).write_volatile(0);
        (&raw mut (*thread).wbc).write_volatile(0);
        (&raw mut (*thread).reaping).write_volatile(0);
    }
}

/// Frees the slot of a thread that has exited.
#[inline(always)]
pub fn release(id: u64) {
    let tid = id as u32;
    let Some(thread) = get(id) else { return };
    let slot = ELSEWHERE.get_ptr(tid);
    // SAFETY: a value of ELSEWHERE.
    let slot = slot.map_or(home_slot(id), |slot| unsafe { *slot });
    // SAFETY: a value of THREADS.
    unsafe { (*thread).owner = 0 };
    // Gone already is fine.
    let _ = ELSEWHERE.remove(tid);
    let _ = OWNERS.remove(slot);
}

/// True if it is the request in flight that the thread is submitting.
#[inline(always)]
pub fn is_submitting(thread: *mut Thread, request: *const Request) -> bool {
    // SAFETY: a value of THREADS, and a request of a map.
    unsafe {
        (*thread).state == ASYNC
            && (*thread).request.kiocb == (*request).kiocb
            && (*thread).request.begin_ns == (*request).begin_ns
    }
}

/// The request the thread is submitting, if any.
#[inline(always)]
pub fn open_request(thread: *mut Thread) -> Option<*mut Request> {
    // SAFETY: own-thread rule; an interrupt only compares.
    unsafe {
        match (*thread).state {
            SYNC => Some(&raw mut (*thread).request),
            ASYNC => {
                let request = REQUESTS.get_ptr_mut((*thread).request.kiocb)?;
                // The kiocb may have ended and be recycled by another request already.
                ((*request).begin_ns == (*thread).request.begin_ns).then_some(request)
            }
            _ => None,
        }
    }
}

/// The request the current thread is submitting, if any.
#[inline(always)]
pub fn current_request() -> Option<*mut Request> {
    open_request(current()?)
}
