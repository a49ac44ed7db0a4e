//! The ring buffer: sending a request, and waking the reader.

use aya_ebpf::helpers::generated::{bpf_ringbuf_output, bpf_ringbuf_query};
use dio_trace_common::abi::Stat;

use crate::{
    in_flight::RequestRef,
    maps::{EVENTS, count, count_up},
    task::name,
};

/// Sends the request's record as it stands.
#[inline(always)]
pub fn emit(request: RequestRef) {
    // Every eighth event asks how much is waiting: the query takes longer than much of the rest.
    // The reader is late by at most this number of events of a CPU.
    const ASKS: u64 = 8;
    let nth = count_up(Stat::Events);
    let wakeup = if nth % ASKS == 0 { wakeup() } else { NO_WAKEUP };
    name(request);
    // SAFETY: a whole Request of a map; one CPU completes it (one-completer rule).
    if !unsafe { output(request.record(), wakeup) } {
        count(Stat::LostEvent);
    }
}

/// Sends another event; false if there was no room.
///
/// # Safety
/// `event` lies in a map's value, and nobody writes it meanwhile.
#[inline(always)]
pub unsafe fn send<T>(event: *const T) -> bool {
    // SAFETY: per the caller.
    unsafe { output(event, wakeup()) }
}

/// # Safety
/// As of [`send`].
#[inline(always)]
unsafe fn output<T>(event: *const T, flags: u64) -> bool {
    let (ring, size) = ((&raw const EVENTS).cast_mut().cast(), size_of::<T>() as u64);
    // SAFETY: the helper reads the event as it stands, and copies it.
    unsafe { bpf_ringbuf_output(ring, event.cast_mut().cast(), size, flags) == 0 }
}

/// BPF_RB_NO_WAKEUP (include/uapi/linux/bpf.h)
const NO_WAKEUP: u64 = 1;

/// Flags of an event that wake the reader only when much is waiting; the reader's own timer fetches
/// the rest. Measured: the default policy costs more than all the rest of an event.
#[inline(always)]
pub fn wakeup() -> u64 {
    const FORCE_WAKEUP: u64 = 2;
    const AVAILABLE: u64 = 0; // BPF_RB_AVAIL_DATA
    const MUCH: u64 = 64 << 10;
    // SAFETY: a map, of which the helper only returns a number.
    let waiting = unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), AVAILABLE) };
    if waiting >= MUCH { FORCE_WAKEUP } else { NO_WAKEUP }
}
