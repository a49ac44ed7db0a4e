//! What the loader decides before the programs are verified: frozen `.rodata`, so that a switch
//! that is off costs nothing.

use aya_ebpf::Global;

/// O_DIRECT of this architecture (it differs: x86 0o40000, arm64 0o200000, …).
#[unsafe(no_mangle)]
pub static O_DIRECT: Global<u32> = Global::new(0);
/// O_APPEND of this architecture.
#[unsafe(no_mangle)]
pub static O_APPEND: Global<u32> = Global::new(0);
/// Not 0: `THREADS` is task-local storage; 0: a hash map by thread id, for kernels before 5.11.
#[unsafe(no_mangle)]
pub static TASK_STORAGE: Global<u32> = Global::new(1);
/// Not 0: only processes in `TARGETS`.
#[unsafe(no_mangle)]
pub static FILTER_PIDS: Global<u32> = Global::new(0);
/// Not 0: what a traced process forks is traced too.
#[unsafe(no_mangle)]
pub static FOLLOW_CHILDREN: Global<u32> = Global::new(0);
/// Not 0: an event for every request, not for findings alone.
#[unsafe(no_mangle)]
pub static EMIT_ALL: Global<u32> = Global::new(0);
/// Not 0: every probe of the page cache is attached (see `Facts::cache_probes_complete`).
#[unsafe(no_mangle)]
pub static CACHE_PROBES_COMPLETE: Global<u32> = Global::new(0);
/// `dio_trace_common::abi::ABI_VERSION` this object was built with.
#[unsafe(no_mangle)]
pub static ABI_VERSION: Global<u32> = Global::new(dio_trace_common::abi::ABI_VERSION);
