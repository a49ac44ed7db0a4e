//! Sums of completed requests.
//!
//! Most requests of a thread have the same key as its previous one: the thread remembers the slot
//! of that key (its counter).

use aya_ebpf::{
    btf_maps::{Array, HashMap, PerCpuArray},
    helpers::generated::bpf_get_prandom_u32,
};
use dio_trace_common::abi::{Counter, KeyWords, LATENCY_BUCKETS, Request, Stat};

use crate::{
    config::COUNTER_PLACES,
    file_names::{self, Named},
    kernel_memory::{KIOCB_KI_FILP, read},
    maps::{add, count, insert_new},
    mixed_access,
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

/// Adds a request to its counter; the first request of a counter also names its file.
///
/// `hint` is the slot used by this thread's previous request; it may be stale. Most are counted
/// under the same key, and comparing the key saves hashing it.
#[inline(always)]
pub unsafe fn count_request(request: *mut Request, file: u64, hint: u32) {
    // SAFETY: per the caller, a request of a map.
    unsafe {
        let slot = if is_at(hint, request) { hint } else { slot_of(request, file) };
        match COUNTERS.get_ptr_mut(slot) {
            Some(counter) => add_to(counter, request),
            None => count(Stat::LostCounter),
        }
    }
}

/// True if the request is counted in that slot.
#[inline(always)]
unsafe fn is_at(slot: u32, request: *const Request) -> bool {
    let Some(there) = KEYS.get_ptr(slot) else {
        return false;
    };
    // SAFETY: a value of KEYS, and per the caller a request.
    let (there, key) = unsafe { (&*there, Request::key_words(request)) };
    there.iter().zip(&key).all(|(one, other)| one == other)
}

/// The slot where a request is counted, which its thread remembers; [`COUNTERS_MAX`] if there is no
/// room left.
#[inline(never)]
unsafe fn slot_of(request: *mut Request, file: u64) -> u32 {
    // SAFETY: per the caller, a request of a map.
    unsafe {
        let key = Request::key_words(request);
        let slot = get_or_claim(request, file, &key);
        let id = u64::from((*request).tgid) << 32 | u64::from((*request).tid);
        if let Some(thread) = thread_table::get(id) {
            let op = usize::from((*request).op & 1);
            (&raw mut (*thread).counter_slots).cast::<u32>().add(op).write(slot);
        }
        slot
    }
}

#[inline(always)]
unsafe fn get_or_claim(request: *mut Request, file: u64, key: &KeyWords) -> u32 {
    if let Some(slot) = COUNTED.get_ptr(key) {
        // SAFETY: a value of COUNTED.
        return unsafe { *slot };
    }
    // SAFETY: per the caller, a request of a map. While it has no end its kiocb is its own.
    unsafe {
        let kiocb = (*request).kiocb;
        let file = if kiocb == 0 { file } else { read(kiocb, &KIOCB_KI_FILP) };
        name(request);
        file_names::emit(&Named::open(file), (*request).tgid, &(*request).comm);
        mixed_access::remember(request, (*request).mapping);
    }
    let Some(free) = claim() else {
        return COUNTERS_MAX as u32;
    };
    if let Some(there) = KEYS.get_ptr_mut(free) {
        // SAFETY: a value of KEYS that nobody else has.
        unsafe { there.write(*key) };
    }
    if insert_new(&COUNTED, key, &free) {
        return free;
    }
    // Another CPU was first, or the map is full.
    let _ = TAKEN.remove(free);
    // SAFETY: a value of COUNTED.
    COUNTED.get_ptr(key).map_or(COUNTERS_MAX as u32, |slot| unsafe { *slot })
}

/// Claims a counter that is free.
#[inline(always)]
fn claim() -> Option<u32> {
    let all = COUNTER_PLACES.load();
    // SAFETY: no arguments.
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
unsafe fn add_to(counter: *mut Counter, request: *const Request) {
    // SAFETY: per the caller, this CPU's counter and a request of a map.
    unsafe {
        let ret = (*request).ret;
        let latency = (*request).end_ns - (*request).begin_ns;
        let direct = (&raw const (*request).direct_bytes).read_volatile();
        let cached = (&raw const (*request).cached_bytes).read_volatile();
        add(&raw mut (*counter).requests, 1);
        add(&raw mut (*counter).bytes, if ret > 0 { ret as u64 } else { 0 });
        add(&raw mut (*counter).direct_bytes, direct);
        add(&raw mut (*counter).cached_bytes, cached);
        add(&raw mut (*counter).latency_ns, latency);
        let bucket = log2(latency);
        if bucket < LATENCY_BUCKETS {
            add(&raw mut (*counter).latency[bucket], 1);
        }
    }
}

/// Positions of the highest bits of bytes.
static HIGHEST: [u8; 256] = {
    let mut table = [0; 256];
    let mut n = 2;
    while n < 256 {
        table[n] = table[n / 2] + 1;
        n += 1;
    }
    table
};

/// Position of the highest bit (0 for 0), at most the last bucket. By hand: BPF does not have such
/// an instruction, and the compiler's expansion of `leading_zeros` is longer.
///
/// In no branch may the verifier's bounds say that the result exceeds the last bucket: the verifier
/// of 6.1 then follows a branch that cannot be taken, and loses the pointer that is added to.
#[inline(always)]
fn log2(mut n: u64) -> usize {
    let mut bit = 0;
    if n >= 1 << 32 {
        n >>= 32;
        bit = 32;
        if n > 255 {
            n = 255;
        }
    } else {
        if n >= 1 << 16 {
            n >>= 16;
            bit = 16;
        }
        if n >= 1 << 8 {
            n >>= 8;
            bit += 8;
        }
    }
    bit += usize::from(HIGHEST[n as usize & 255]);
    if bit < LATENCY_BUCKETS { bit } else { LATENCY_BUCKETS - 1 }
}
