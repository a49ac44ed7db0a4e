//! Sums of completed requests.
//!
//! Most requests of a thread have the same key as its previous one: the thread remembers the slot
//! of that key (its counter).

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray},
    helpers::generated::bpf_get_prandom_u32,
};
use dio_trace_common::{
    abi::{Counter, KeyWords, Stat},
    histogram::{self, BUCKETS, Histogram},
};

use crate::{
    config::COUNTER_PLACES,
    file_names::{self, Named},
    in_flight::RequestRef,
    kernel_memory::{KIOCB_KI_FILP, read},
    maps::{Copied, count, insert_new},
    mixed_access,
    record::{Field, fields},
    task::name,
    thread_table,
};

/// The most counters. The loader gives fewer to machines with many CPUs.
pub const COUNTERS_MAX: usize = 16384;

/// The slot of a key's counters, by key.
#[aya_ebpf::macros::btf_map]
static COUNTED: HashMap<KeyWords, u32, COUNTERS_MAX> = HashMap::new();

#[aya_ebpf::macros::btf_map]
static COUNTERS: PerCpuArray<Counter, COUNTERS_MAX> = PerCpuArray::new();

/// The slots that are claimed.
#[aya_ebpf::macros::btf_map]
static TAKEN: HashMap<u32, u32, COUNTERS_MAX> = HashMap::new();

/// Slots that a new key tries.
const TRIES: u32 = 32;

/// The keys of the claimed slots. They stay: a key keeps its slot.
#[aya_ebpf::macros::btf_map]
static KEYS: Array<KeyWords, COUNTERS_MAX> = Array::new();

/// Sums of this CPU under one key.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct CounterRef(*mut Counter);

fields! { CounterRef:
    requests: u64,
    bytes: u64,
    direct_bytes: u64,
    cached_bytes: u64,
    latency_ns: u64,
    latency: Histogram,
}

/// Adds a request to its counter; the first request of a counter also names its file.
///
/// Most requests are counted under the same key as their thread's previous one, and comparing the
/// key saves hashing it.
#[inline(always)]
pub fn count_request(request: RequestRef, file: u64) {
    let hint = request.counter_slot().get() as u32;
    let slot = if is_at(hint, request) { hint } else { slot_of(request, file) };
    match COUNTERS.get_ptr_mut(slot) {
        Some(counter) => add_to(CounterRef(counter), request),
        None => count(Stat::LostCounter),
    }
}

/// True if the request is counted in that slot.
#[inline(always)]
fn is_at(slot: u32, request: RequestRef) -> bool {
    let Some(there) = KEYS.get_ptr(slot) else { return false };
    // SAFETY: a value of KEYS, written once, before its slot could be found.
    let there = unsafe { &*there };
    there.iter().zip(&request.key_words()).all(|(one, other)| one == other)
}

/// The slot where a request is counted, which its thread remembers; [`COUNTERS_MAX`] if there is no
/// room left.
#[inline(never)]
fn slot_of(request: RequestRef, file: u64) -> u32 {
    let key = request.key_words();
    let slot = get_or_claim(request, file, &key);
    let id = u64::from(request.tgid().get()) << 32 | u64::from(request.tid().get());
    if let Some(thread) = thread_table::get(id) {
        thread.counter_slot(request.op().get()).set(slot);
    }
    slot
}

#[inline(always)]
fn get_or_claim(request: RequestRef, file: u64, key: &KeyWords) -> u32 {
    if let Some(slot) = COUNTED.copied(key) {
        return slot;
    }
    // Until the request is finished its kiocb is its own.
    let kiocb = request.kiocb().get();
    let file = if kiocb == 0 { file } else { read(kiocb, &KIOCB_KI_FILP) };
    name(request);
    // SAFETY: the task of a request that one CPU completes (one-completer rule).
    let task = unsafe { &*request.task().as_ptr() };
    file_names::emit(&Named::open(file), task, 0);
    if !request.is_not_asked() {
        mixed_access::remember(request, request.mapping().get());
    }
    let Some(free) = claim() else { return COUNTERS_MAX as u32 };
    if let Some(there) = KEYS.get_ptr_mut(free) {
        // SAFETY: a value of KEYS; its slot was claimed above, so that no other program writes it.
        unsafe { there.write(*key) };
    }
    if insert_new(&COUNTED, key, &free) {
        return free;
    }
    // Another CPU was first, or there is no room.
    let _ = TAKEN.remove(free);
    COUNTED.copied(key).unwrap_or(COUNTERS_MAX as u32)
}

/// Claims a counter that is free.
#[inline(always)]
fn claim() -> Option<u32> {
    let all = COUNTER_PLACES.load();
    // SAFETY: a helper without arguments.
    let start = unsafe { bpf_get_prandom_u32() };
    for n in 0..TRIES {
        let slot = start.wrapping_add(n.wrapping_mul(n)).checked_rem(all)?;
        if insert_new(&TAKEN, &slot, &1) {
            return Some(slot);
        }
    }
    None
}

#[inline(always)]
fn add_to(counter: CounterRef, request: RequestRef) {
    let ret = request.ret().get();
    let latency = request.end_ns().get() - request.begin_ns().get();
    let direct = request.direct_bytes().get_volatile();
    let cached = request.cached_bytes().get_volatile();
    counter.requests().add_atomic(1);
    counter.bytes().add_atomic(if ret > 0 { ret as u64 } else { 0 });
    counter.direct_bytes().add_atomic(direct);
    counter.cached_bytes().add_atomic(cached);
    counter.latency_ns().add_atomic(latency);
    let bucket = histogram::bucket(latency);
    if bucket < BUCKETS {
        let first = counter.latency().as_ptr().cast::<u32>();
        // SAFETY: one of the buckets.
        let bucket = unsafe { Field::new(first.add(bucket)) };
        bucket.add_atomic(1);
    }
}
