//! Maps that several modules use. [`REQUESTS`] says who may access a request in flight.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::btf_maps::{HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf};
use dio_trace_common::abi::{Mixer, Request, STATS, Stat};

/// Open asynchronous requests by kiocb address, each from its issue to its completion. (A
/// synchronous one is part of its thread's record: thread_table.rs, the own-thread rule.)
///
/// # How and when it is safe to access a field
///
/// Who may touch a record of [`REQUESTS`]:
///
/// - The **issuer rule**: from the insertion until the issue function returns, the issuing thread
///   reads and writes it: it finds it by the kiocb and `begin_ns` in its own record
///   (thread_table.rs:open_request). io_uring issues a request again only after the attempt before
///   returned -EAGAIN or was cut short (io_uring/rw.c), so there is one issuer at a time; where it
///   is another thread (io-wq), the work queue orders the two.
/// - The **one-completer rule**: the kernel completes a kiocb once, on one CPU, in any context.
///   That program writes the result, decides, counts, sends and removes the record. Where the
///   program is attached several times (preempt.rs), and where several functions tell of one
///   completion, the first to run removes the record and the others find none. They run one after
///   another on that CPU, or ordered by the kernel (the CQE is posted after the callback).
///
/// `kind`, `begin_ns`, `kiocb`, `tgid`, `tid`, `op`, `api` and the file's identity never change
/// between insertion and removal: anybody may read them.
///
/// What is racy: the device may complete a request while its issuer is still on the way out of the
/// kernel. Both may then write the record, without atomic instructions:
///
/// - `user` and `len` of a buffer that the kernel chose: both write the same values.
/// - `flags`: the issuer sets `REQ_PUNTED` where `filemap_read` queued the request or the attempt
///   failed, and then no direct completion is pending.
/// - `evidence.seen`: the issuer adds no bit of the direct path after it submitted; it may add
///   `MISSED` (kprobe mode). If both change the word within the same few instructions, one bit is
///   lost. The completer sets `DIRECT_ENTERED` again where it runs in another context, so that the
///   proof of the direct path does not hang on one store.
/// - `end_ns` is a de-duplication token until the request is finished; it is used only in programs
///   that the kernel calls once for each completion (evidence/mod.rs:is_duplicate).
///
/// A pointer may outlive its entry, when the completer removes the record under the issuer. The
/// memory stays part of the map (elements are preallocated and reused, kernel/bpf/hashtab.c), so
/// that a late access is never out of bounds. It may hit the next request with this element;
/// `begin_ns` is compared right before, which leaves a window of a few instructions.
#[aya_ebpf::macros::btf_map]
pub static REQUESTS: HashMap<u64, Request, 16384> = HashMap::new();

/// Traced thread-group ids (if [`crate::config::FILTER_PIDS`]).
#[aya_ebpf::macros::btf_map]
pub static TARGETS: HashMap<u32, u32, 16384> = HashMap::new();

/// A file that is used directly, with the identity that its requests have.
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

/// Pages by buffered user: who uses such a file through the page cache.
#[aya_ebpf::macros::btf_map]
pub static MIXERS: PerCpuHashMap<Mixer, u64, 4096> = PerCpuHashMap::new();

/// The `address_space` of the file that a thread (by tid) is writing back.
#[aya_ebpf::macros::btf_map]
pub static WRITING_BACK: LruHashMap<u32, u64, 1024> = LruHashMap::new();

#[aya_ebpf::macros::btf_map]
pub static STATS_BY_CPU: PerCpuArray<u64, { STATS }> = PerCpuArray::new();

/// The size is set by the loader.
#[aya_ebpf::macros::btf_map]
pub static EVENTS: RingBuf<Request, { 1 << 22 }> = RingBuf::new();

/// Inserts under a new key: of several programs that try, one gets true.
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

/// [`count`]; what it is then, or nearly (an interrupt may count too).
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
