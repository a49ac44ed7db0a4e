//! The ring buffer: sending a request, and waking the reader.

use aya_ebpf::helpers::generated::{bpf_ringbuf_output, bpf_ringbuf_query};
use dio_trace_common::abi::{Request, Stat};

use crate::{
    maps::{EVENTS, count, count_up},
    task::name,
};

/// Sends the record as it stands.
#[inline(always)]
pub unsafe fn emit(request: *mut Request) {
    // Not each of them asks: it takes longer than much of the rest. The reader is late by as many
    // events of a CPU at most.
    const ASKS: u64 = 8;
    let nth = count_up(Stat::Events);
    let wakeup = if nth % ASKS == 0 { wakeup() } else { NO_WAKEUP };
    // SAFETY: a whole Request of a map.
    let sent = unsafe {
        name(request);
        bpf_ringbuf_output(
            (&raw const EVENTS).cast_mut().cast(),
            request.cast(),
            size_of::<Request>() as u64,
            wakeup,
        )
    };
    if sent != 0 {
        count(Stat::LostEvent);
    }
}

/// BPF_RB_NO_WAKEUP (include/uapi/linux/bpf.h)
const NO_WAKEUP: u64 = 1;

/// Wakes the reader only when much is waiting; its own timer fetches the rest. Measured: the
/// default policy costs more than all the rest of an event.
#[inline(always)]
pub fn wakeup() -> u64 {
    const FORCE_WAKEUP: u64 = 2;
    const AVAILABLE: u64 = 0; // BPF_RB_AVAIL_DATA
    const MUCH: u64 = 64 << 10;
    // SAFETY: only asks.
    let waiting = unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), AVAILABLE) };
    if waiting >= MUCH { FORCE_WAKEUP } else { NO_WAKEUP }
}
