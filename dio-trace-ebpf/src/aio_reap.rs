//! Only kprobe: completions of libaio requests that were missed, found when the program fetches
//! them.
//!
//! A kprobe that interrupts another one is skipped (kernel/kprobes.c:kprobe_running), and nothing
//! but a kprobe sees `aio_complete_rw`. A request whose event io_getevents hands out has completed:
//! if it is still open here, its completion was skipped.

use aya_ebpf::btf_maps::LruHashMap;
use dio_trace_common::{abi::API_LIBAIO, offsets::ABSENT};

use crate::{
    filter::current_wanted,
    in_flight::{self, RequestRef},
    kernel_memory::{AIO_KIOCB_KI_RES, Args, read},
    thread_table::{ThreadRef, current_or_claim},
    user_memory::read_user,
};

/// struct io_event (include/uapi/linux/aio_abi.h)
#[repr(C)]
#[derive(Clone, Copy)]
struct IoEvent {
    data: u64,
    /// User address of the iocb that was submitted.
    obj: u64,
    res: i64,
    res2: i64,
}

/// A program's iocb. Another program may have one at the same address.
#[repr(C)]
#[derive(Clone, Copy)]
struct Submitted {
    obj: u64,
    tgid: u64,
}

/// What was submitted with it last.
#[repr(C)]
#[derive(Clone, Copy)]
struct Latest {
    kiocb: u64,
    begin_ns: u64,
}

#[aya_ebpf::macros::btf_map]
static SUBMITTED: LruHashMap<Submitted, Latest, 16384> = LruHashMap::new();

/// Events of one call that are looked at.
const EVENTS: u32 = 64;

/// Remembers by which iocb a request was submitted, once it is open.
#[inline(always)]
pub fn remember(kiocb: u64) {
    let Some(request) = in_flight::get(kiocb) else { return };
    if AIO_KIOCB_KI_RES.load() == ABSENT {
        return;
    }
    // `ki_res` is a struct io_event, filled but for the result (fs/aio.c:__io_submit_one).
    let obj: u64 = read(kiocb + 8, &AIO_KIOCB_KI_RES);
    let (tgid, begin_ns) = (u64::from(request.tgid().get()), request.begin_ns().get());
    let _ = SUBMITTED.insert(Submitted { obj, tgid }, Latest { kiocb, begin_ns }, 0);
}

/// `long do_io_getevents(aio_context_t, long min_nr, long nr, struct io_event __user *, …)`: keeps
/// where the events go until the system call returns.
#[inline(always)]
pub fn getevents_entered<A: Args>(ctx: &A) {
    if !current_wanted() {
        return;
    }
    let Some(thread) = current_or_claim() else { return };
    thread.reaping().set(ctx.arg(3));
}

/// The system call returned `count` events: a request among them that is still open, and its
/// result. Only one is looked for: more than one skipped in one call are rarer than what is counted
/// as unmatched anyway.
#[inline(always)]
pub fn still_open(thread: ThreadRef, count: i64) -> Option<(RequestRef, i64)> {
    if thread.reaping().get() == 0 {
        return None;
    }
    find(thread, count);
    thread.reaping().set(0);
    let kiocb = thread.missed_kiocb().get_volatile();
    if kiocb == 0 {
        return None;
    }
    Some((in_flight::get(kiocb)?, thread.missed_result().get()))
}

/// Leaves what it finds in the thread's record, in memory: so the verifier sees one state after the
/// call, whichever event it was.
#[inline(never)]
fn find(thread: ThreadRef, count: i64) -> u32 {
    thread.missed_kiocb().set_volatile(0);
    let (events, tgid) = (thread.reaping().get(), thread.owner().get() >> 32);
    for n in 0..EVENTS {
        if i64::from(n) >= count {
            break;
        }
        let at = events + u64::from(n) * size_of::<IoEvent>() as u64;
        let Some(event) = read_user::<IoEvent>(at) else { break };
        let Some(latest) = SUBMITTED.get_ptr(Submitted { obj: event.obj, tgid }) else { continue };
        // SAFETY: a value of SUBMITTED.
        let (kiocb, begin_ns) = unsafe { ((*latest).kiocb, (*latest).begin_ns) };
        let Some(request) = in_flight::get(kiocb) else { continue };
        if request.api().get() == API_LIBAIO && request.begin_ns().get() == begin_ns {
            thread.missed_kiocb().set_volatile(kiocb);
            thread.missed_result().set(event.res);
            break;
        }
    }
    0
}
