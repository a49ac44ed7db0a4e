//! Adding up what ended.
//!
//! Most requests of a thread go under the same key as its last: the thread remembers where that one
//! is counted, which spares hashing the key.

use aya_ebpf::{
    btf_maps::{HashMap, PerCpuArray},
    helpers::generated::bpf_get_prandom_u32,
};
use dio_trace_common::abi::{Counter, CounterKey, LATENCY_BUCKETS, Request, Stat};

use crate::{
    begin::name,
    config::COUNTER_PLACES,
    files::{self, Named},
    maps::{add, count, insert_new},
    mixed,
};

/// Counters at most. The loader gives fewer to machines with many CPUs.
pub const COUNTERS_MAX: usize = 16384;

/// Where the counters of a key are, by key.
#[aya_ebpf::macros::btf_map]
static COUNTED: HashMap<CounterKey, u32, COUNTERS_MAX> = HashMap::new();

#[aya_ebpf::macros::btf_map]
static COUNTERS: PerCpuArray<Counter, COUNTERS_MAX> = PerCpuArray::new();

/// The counters that are taken.
#[aya_ebpf::macros::btf_map]
static TAKEN: HashMap<u32, u32, COUNTERS_MAX> = HashMap::new();

/// Counters that a new key tries for.
const TRIES: u32 = 32;

/// What a thread's last request was counted under, and where. Remains true: a key keeps its place.
#[repr(C)]
pub struct Used {
    pub key: CounterKey,
    pub place: u32,
    pub pad: u32,
}

/// Adds a request to its counter; the first of a counter also names its file. `used` is the
/// thread's memory, or null in an interrupt.
#[inline(always)]
pub unsafe fn count_request(request: *mut Request, file: u64, used: *mut Used) {
    // SAFETY: per the caller, a request of a map, and a part of a value of THREADS or null.
    unsafe {
        let ret = (*request).ret;
        let key = CounterKey {
            inode: (*request).inode,
            ino: (*request).ino,
            dev: (*request).dev,
            tgid: (*request).tgid,
            op: (*request).op,
            verdict: (&raw const (*request).verdict).read_volatile(),
            outcome: (&raw const (*request).outcome).read_volatile(),
            finding: (&raw const (*request).finding).read_volatile(),
            errno: if ret < 0 { (-ret) as u16 } else { 0 },
            pad: [0; 2],
            generation: (*request).generation,
            pad_end: 0,
        };
        let place = if !used.is_null() && is_same(&raw const (*used).key, &raw const key) {
            (*used).place
        } else {
            let place = place_of(request, file, &raw const key);
            if !used.is_null() && place < COUNTERS_MAX as u32 {
                (*used).key = key;
                (*used).place = place;
            }
            place
        };
        match COUNTERS.get_ptr_mut(place) {
            Some(counter) => add_to(counter, request),
            None => count(Stat::LostCounter),
        }
    }
}

/// In words: a comparison of structs is a call.
#[inline(always)]
unsafe fn is_same(one: *const CounterKey, other: *const CounterKey) -> bool {
    let (one, other) = (one.cast::<u64>(), other.cast::<u64>());
    let mut differ = 0;
    for word in 0..size_of::<CounterKey>() / 8 {
        // SAFETY: per the caller, two keys; they are made of whole words.
        differ |= unsafe { one.add(word).read() ^ other.add(word).read() };
    }
    differ == 0
}

/// Where a key is counted; [`COUNTERS_MAX`] if there is no room left.
#[inline(never)]
unsafe fn place_of(request: *mut Request, file: u64, key: *const CounterKey) -> u32 {
    // SAFETY: per the caller, a request of a map and a key.
    unsafe {
        if let Some(place) = COUNTED.get_ptr(&*key) {
            return *place;
        }
        name(request);
        files::emit(&Named::open(file), (*request).tgid, &(*request).comm);
        mixed::remember(request, (*request).mapping);
        let Some(free) = take() else { return COUNTERS_MAX as u32 };
        if insert_new(&COUNTED, &*key, &free) {
            return free;
        }
        // Another CPU was first, or there is no room.
        let _ = TAKEN.remove(free);
        COUNTED.get_ptr(&*key).map_or(COUNTERS_MAX as u32, |place| *place)
    }
}

/// A counter that nobody uses.
#[inline(always)]
fn take() -> Option<u32> {
    let all = COUNTER_PLACES.load();
    // SAFETY: no arguments.
    let start = unsafe { bpf_get_prandom_u32() };
    for n in 0..TRIES {
        let place = start.wrapping_add(n.wrapping_mul(n)).checked_rem(all)?;
        if insert_new(&TAKEN, &place, &1) {
            return Some(place);
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

/// Position of the highest bit (0 for 0), at most the last bucket. By hand: BPF has no such
/// instruction, and the compiler's expansion of `leading_zeros` is longer.
#[inline(always)]
fn log2(mut n: u64) -> usize {
    let mut bit = 0;
    if n >= 1 << 32 {
        n >>= 32;
        bit += 32;
    }
    if n >= 1 << 16 {
        n >>= 16;
        bit += 16;
    }
    if n >= 1 << 8 {
        n >>= 8;
        bit += 8;
    }
    if n >= 1 << 4 {
        n >>= 4;
        bit += 4;
    }
    if n >= 1 << 2 {
        n >>= 2;
        bit += 2;
    }
    if n >= 2 {
        bit += 1;
    }
    if bit < LATENCY_BUCKETS { bit } else { LATENCY_BUCKETS - 1 }
}
