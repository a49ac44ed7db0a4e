//! Maps that several modules use, and what maps have in common. (Requests in flight are in
//! in_flight.rs, threads in thread_table.rs, sums in counters.rs.)

use core::{borrow::Borrow, ptr::from_ref};

use aya_ebpf::{
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
    helpers::bpf_map_update_elem,
};
use dio_trace_common::abi::{BufferedUse, FileId, Request, STATS, Stat};

use crate::record::Field;

/// Traced thread-group ids (if [`crate::config::FILTER_PIDS`]).
#[aya_ebpf::macros::btf_map]
pub static TARGETS: HashMap<u32, u32, 16384> = HashMap::new();

/// A file that is used directly, with the identity that its requests have.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DirectFile {
    pub file: FileId,
    /// Inode number of the mapping's host: of the lower file, if the request was for a stacked one.
    pub host_ino: u64,
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

/// Pages by buffered user: who uses such a file through the page cache.
#[aya_ebpf::macros::btf_map]
pub static BUFFERED_USES: PerCpuHashMap<BufferedUse, u64, 4096> = PerCpuHashMap::new();

/// The `address_space` of the file that a thread (by tid) is writing back.
#[aya_ebpf::macros::btf_map]
pub static WRITING_BACK: LruHashMap<u32, u64, 1024> = LruHashMap::new();

#[aya_ebpf::macros::btf_map]
pub static STATS_BY_CPU: PerCpuArray<u64, { STATS }> = PerCpuArray::new();

/// The size is set by the loader.
#[aya_ebpf::macros::btf_map]
pub static EVENTS: RingBuf<Request, { 1 << 22 }> = RingBuf::new();

/// Not 0: tracing has ended, and no request is begun any more. Detaching takes seconds, because the
/// kernel waits for each probe until no task can be in it (kernel/trace/ftrace.c:ftrace_shutdown).
#[aya_ebpf::macros::btf_map]
pub static ENDED: Array<u32, 1> = Array::new();

/// True if tracing has ended.
#[inline(always)]
pub fn has_ended() -> bool {
    // SAFETY: a word that user space sets once.
    ENDED.get_ptr(0).is_some_and(|ended| unsafe { *ended } != 0)
}

/// Of [`insert_per_cpu`]: only under a new key.
pub const BPF_NOEXIST: u64 = 1;

/// Inserts under a new key: of several programs that try, one gets true.
#[inline(always)]
pub fn insert_new<K, V, const N: usize>(map: &HashMap<K, V, N>, key: &K, value: &V) -> bool {
    map.insert(key, value, BPF_NOEXIST).is_ok()
}

/// Inserts into a per-CPU map, for which aya has no method; false if that failed. `flags` are those of
/// the helper.
#[inline(always)]
pub fn insert_per_cpu<K, V, const N: usize>(
    map: &PerCpuHashMap<K, V, N>,
    key: &K,
    value: &V,
    flags: u64,
) -> bool {
    // SAFETY: key and value are of the map's sizes.
    unsafe {
        bpf_map_update_elem(
            from_ref(map).cast_mut().cast(),
            from_ref(key).cast_mut().cast(),
            from_ref(value).cast_mut().cast(),
            flags,
        ) == 0
    }
}

/// A map whose values are read as a whole.
pub trait Copied<K, V: Copy> {
    /// The value of a key. Another CPU may replace it meanwhile: a value of up to 8 bytes is the
    /// old or the new one, a longer one may be made of both.
    fn copied(&self, key: impl Borrow<K>) -> Option<V>;
}

macro_rules! copied {
    ($($Map:ident),+) => {$(
        impl<K, V: Copy, const N: usize> Copied<K, V> for $Map<K, V, N> {
            #[inline(always)]
            fn copied(&self, key: impl Borrow<K>) -> Option<V> {
                // SAFETY: a value of the map, which stays mapped as long as the program runs.
                self.get_ptr(key).map(|value| unsafe { *value })
            }
        }
    )+};
}
copied!(HashMap, LruHashMap);

/// Adds one to a statistic of this CPU.
#[inline(always)]
pub fn count(stat: Stat) {
    count_up(stat);
}

/// Adds to a statistic of this CPU.
#[inline(always)]
pub fn count_by(stat: Stat, more: u64) {
    let Some(n) = STATS_BY_CPU.get_ptr_mut(stat as u32) else { return };
    // SAFETY: a value of this CPU.
    unsafe { Field::new(n) }.add_atomic(more);
}

/// [`count`]; what it is then, or nearly (an interrupt may count too).
#[inline(always)]
pub fn count_up(stat: Stat) -> u64 {
    let Some(n) = STATS_BY_CPU.get_ptr_mut(stat as u32) else { return 0 };
    // SAFETY: a value of this CPU.
    let n = unsafe { Field::new(n) };
    n.add_atomic(1);
    n.get()
}
