//! The maps, and what is kept of each thread.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::{
    btf_maps::{HashMap, LruHashMap, PerCpuArray, PerCpuHashMap, RingBuf},
    cty::c_void,
    helpers::{
        bpf_get_current_pid_tgid, bpf_map_delete_elem, bpf_map_lookup_elem, bpf_map_update_elem,
        generated::{bpf_get_current_task_btf, bpf_task_storage_get},
    },
};
use dio_trace_common::abi::{Counter, CounterKey, Mixer, Request, STATS, Stat};

use crate::config::TASK_STORAGE;

/// [`Thread::state`]: no request open.
pub const IDLE: u32 = 0;
/// [`Thread::state`]: the open request is [`Thread::request`].
pub const SYNC: u32 = 1;
/// [`Thread::state`]: the open request is in [`REQUESTS`] under [`Request::kiocb`].
pub const ASYNC: u32 = 2;

/// What a thread is submitting.
#[repr(C)]
pub struct Thread {
    pub state: u32,
    /// Segments of the request that is about to begin.
    pub nr_segs: u32,
    /// The copies of the entry probe that the open request has passed, as bits.
    pub passed: u32,
    pub pad: u32,
    /// The request's file.
    pub file: u64,
    /// Kernel address of the position of a synchronous request.
    pub ppos: u64,
    /// `address_space` of the file that a stacked file system passed the request on to, or 0.
    pub nested: u64,
    /// The `address_space` of the invalidation in progress.
    pub invalidating: u64,
    /// 1 + `address_space.nrpages` when the invalidation in progress began, 0 if none is.
    pub nrpages: u64,
    /// The file that the splice or sendfile in progress names as the one to write, 0 before any.
    pub splice_to: u64,
    /// The file whose refused open was told last, and the copies of the probe that it has passed.
    pub refused: u64,
    pub refused_by: u64,
    /// kprobe alone: `REFUSED_*` of the system call in progress that asks for O_DIRECT, else 0…
    pub asking: u64,
    /// … and for which file.
    pub asking_mnt: u64,
    pub asking_dentry: u64,
    /// kprobe alone, for kretprobes have no arguments: 1 + third argument of the `filemap_read`
    /// in progress, 0 if none is.
    pub already: u64,
    /// kprobe alone: the `writeback_control` of the `do_writepages` in progress, or 0.
    pub wbc: u64,
    pub request: Request,
}

/// Task-local storage; aya-ebpf has no type for it.
#[repr(C)]
pub struct TaskStorage<T> {
    r#type: *const [i32; 29], // BPF_MAP_TYPE_TASK_STORAGE
    key: *const i32,
    value: *const T,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; 1], // BPF_F_NO_PREALLOC, required
}

// SAFETY: only a definition for the loader; the pointers are never followed.
unsafe impl<T> Sync for TaskStorage<T> {}

impl<T> TaskStorage<T> {
    const fn new() -> Self {
        Self {
            r#type: core::ptr::null(),
            key: core::ptr::null(),
            value: core::ptr::null(),
            max_entries: core::ptr::null(),
            map_flags: core::ptr::null(),
        }
    }

    /// The value of the current thread, made if `create`.
    #[inline(always)]
    fn of_current(&self, create: bool) -> Option<*mut T> {
        // SAFETY: the map outlives the program; the helper takes a NULL initial value as zeroes
        // and returns NULL or a value of this map.
        let value = unsafe {
            bpf_task_storage_get(
                self.as_ptr(),
                bpf_get_current_task_btf().cast(),
                core::ptr::null_mut(),
                u64::from(create),
            )
        };
        if value.is_null() { None } else { Some(value.cast()) }
    }

    const fn as_ptr(&self) -> *mut c_void {
        core::ptr::from_ref(self).cast_mut().cast()
    }
}

/// The same map where the loader has made a hash map of it: key is the thread id.
impl TaskStorage<Thread> {
    #[inline(always)]
    fn by_tid(&self, create: bool) -> Option<*mut Thread> {
        let tid = bpf_get_current_pid_tgid() as u32;
        let found = self.look_up(tid);
        if found.is_some() || !create {
            return found;
        }
        // SAFETY: key and value are of the map's sizes.
        unsafe {
            bpf_map_update_elem(
                self.as_ptr(),
                (&raw const tid).cast(),
                (&raw const NO_THREAD).cast(),
                0,
            );
        }
        self.look_up(tid)
    }

    #[inline(always)]
    fn look_up(&self, tid: u32) -> Option<*mut Thread> {
        // SAFETY: a key of the map's size; returns NULL or a value of this map.
        let value = unsafe { bpf_map_lookup_elem(self.as_ptr(), (&raw const tid).cast()) };
        if value.is_null() { None } else { Some(value.cast()) }
    }

    #[inline(always)]
    fn forget(&self, tid: u32) {
        // SAFETY: a key of the map's size.
        unsafe { bpf_map_delete_elem(self.as_ptr(), (&raw const tid).cast()) };
    }
}

/// A new thread's record, in `.rodata`.
static NO_THREAD: [u64; size_of::<Thread>() / 8] = [0; size_of::<Thread>() / 8];

#[aya_ebpf::macros::btf_map]
pub static THREADS: TaskStorage<Thread> = TaskStorage::new();

/// Open asynchronous requests by kiocb address.
#[aya_ebpf::macros::btf_map]
pub static REQUESTS: HashMap<u64, Request, 16384> = HashMap::new();

/// Traced thread-group ids (if [`crate::config::FILTER_PIDS`]).
#[aya_ebpf::macros::btf_map]
pub static TARGETS: HashMap<u32, u32, 16384> = HashMap::new();

#[aya_ebpf::macros::btf_map]
pub static COUNTERS: PerCpuHashMap<CounterKey, Counter, 16384> = PerCpuHashMap::new();

/// A file that was used directly, as its requests name it.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct DirectFile {
    pub inode: u64,
    pub ino: u64,
    /// Inode number of the mapping's host: the file below, where a stacked one was asked for.
    pub host_ino: u64,
    pub dev: u32,
    pub generation: u32,
}

/// Files used directly, by the `address_space` of their data.
#[aya_ebpf::macros::btf_map]
pub static DIRECT_FILES: LruHashMap<u64, DirectFile, 16384> = LruHashMap::new();

/// Pages by who uses such a file through the page cache.
#[aya_ebpf::macros::btf_map]
pub static MIXERS: PerCpuHashMap<Mixer, u64, 4096> = PerCpuHashMap::new();

#[aya_ebpf::macros::btf_map]
pub static STATS_BY_CPU: PerCpuArray<u64, { STATS }> = PerCpuArray::new();

/// The size is set by the loader.
#[aya_ebpf::macros::btf_map]
pub static EVENTS: RingBuf<Request, { 1 << 22 }> = RingBuf::new();

/// The current thread's record, if it ever began a request.
#[inline(always)]
pub fn thread() -> Option<*mut Thread> {
    if TASK_STORAGE.load() != 0 { THREADS.of_current(false) } else { THREADS.by_tid(false) }
}

/// The current thread's record, made if need be.
#[inline(always)]
pub fn thread_or_new() -> Option<*mut Thread> {
    if TASK_STORAGE.load() != 0 { THREADS.of_current(true) } else { THREADS.by_tid(true) }
}

/// A thread is gone; the kernel itself drops what is in task-local storage.
#[inline(always)]
pub fn forget_thread(tid: u32) {
    if TASK_STORAGE.load() == 0 {
        THREADS.forget(tid);
    }
}

/// Adds one to a statistic of this CPU.
#[inline(always)]
pub fn count(stat: Stat) {
    if let Some(n) = STATS_BY_CPU.get_ptr_mut(stat as u32) {
        // SAFETY: a valid slot of this CPU.
        unsafe { add(n, 1) };
    }
}

/// Adds to a number of this CPU. In one instruction: a completion's interrupt may come between the
/// load and the store of two, and count under the same number.
#[inline(always)]
pub unsafe fn add<T: Copy>(number: *mut T, more: T) {
    // SAFETY: per the caller, a number in a map's value, aligned.
    unsafe { atomic_xadd::<T, T, { AtomicOrdering::Relaxed }>(number, more) };
}

/// The request the thread is submitting, if any.
#[inline(always)]
pub fn open_request(thread: *mut Thread) -> Option<*mut Request> {
    // SAFETY: `thread` is a value of THREADS.
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
    open_request(thread()?)
}
