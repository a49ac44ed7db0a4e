//! The maps.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::btf_maps::{HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use dio_trace_common::abi::{Mixer, Request, STATS, Stat};

/// Open asynchronous requests by kiocb address.
#[aya_ebpf::macros::btf_map]
pub static REQUESTS: HashMap<u64, Request, 16384> = HashMap::new();

/// Traced thread-group ids (if [`crate::config::FILTER_PIDS`]).
#[aya_ebpf::macros::btf_map]
pub static TARGETS: HashMap<u32, u32, 16384> = HashMap::new();

/// A file that was used directly, as its requests name it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DirectFile {
    pub inode: u64,
    pub ino: u64,
    /// Inode number of the mapping's host: the lower file, where a stacked one was asked for.
    pub host_ino: u64,
    pub dev: u32,
    pub generation: u32,
    /// Generation of the mapping's host: an inode number may be used again.
    pub host_generation: u32,
    /// Thread-group id of the process that uses it directly, or [`SEVERAL`].
    pub user: u32,
}

/// [`DirectFile::user`]: more than one process.
pub const SEVERAL: u32 = 0;

/// Files used directly, by the `address_space` of their data.
#[aya_ebpf::macros::btf_map]
pub static DIRECT_FILES: LruHashMap<u64, DirectFile, 16384> = LruHashMap::new();

/// Pages by who uses such a file through the page cache.
#[aya_ebpf::macros::btf_map]
pub static MIXERS: PerCpuHashMap<Mixer, u64, 4096> = PerCpuHashMap::new();

/// Threads (by tid) that write such a file back just now: the `address_space`.
#[aya_ebpf::macros::btf_map]
pub static WRITING_BACK: LruHashMap<u32, u64, 1024> = LruHashMap::new();

#[aya_ebpf::macros::btf_map]
pub static STATS_BY_CPU: PerCpuArray<u64, { STATS }> = PerCpuArray::new();

/// The size is set by the loader.
#[aya_ebpf::macros::btf_map]
pub static EVENTS: RingBuf<Request, { 1 << 22 }> = RingBuf::new();

/// True if it is new there: of several that try, one has it.
#[inline(always)]
pub fn insert_new<K, V, const N: usize>(map: &HashMap<K, V, N>, key: &K, value: &V) -> bool {
    const BPF_NOEXIST: u64 = 1;
    map.insert(key, value, BPF_NOEXIST).is_ok()
}

/// Adds one to a statistic of this CPU.
#[inline(always)]
pub fn count(stat: Stat) {
    count_up(stat);
}

/// The same; what it is then, or thereabouts (an interrupt may count too).
#[inline(always)]
pub fn count_up(stat: Stat) -> u64 {
    let Some(n) = STATS_BY_CPU.get_ptr_mut(stat as u32) else {
        return 0;
    };
    // SAFETY: a valid slot of this CPU.
    unsafe {
        add(n, 1);
        n.read()
    }
}

/// Adds to a number of this CPU. In one instruction: a completion's interrupt may come between the
/// load and the store of two, and count under the same number.
#[inline(always)]
pub unsafe fn add<T: Copy>(number: *mut T, more: T) {
    // SAFETY: per the caller, a number in a map's value, aligned.
    unsafe { atomic_xadd::<T, T, { AtomicOrdering::Relaxed }>(number, more) };
}
