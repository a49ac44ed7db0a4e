//! What the loader decides before the programs are verified: frozen `.rodata`, so that a switch
//! that is off costs nothing.

use aya_ebpf::Global;

/// O_DIRECT of this architecture (it differs: x86 0o40000, arm64 0o200000, …).
#[unsafe(no_mangle)]
pub static O_DIRECT: Global<u32> = Global::new(0);
/// The flag that an open file must have for its requests to be traced: [`O_DIRECT`]; 0: none
/// (`--cached`).
#[unsafe(no_mangle)]
pub static WANTED_FLAG: Global<u32> = Global::new(0);
/// O_APPEND of this architecture.
#[unsafe(no_mangle)]
pub static O_APPEND: Global<u32> = Global::new(0);
/// Bytes that the kernel moves at most in one request: `MAX_RW_COUNT` for its page size.
#[unsafe(no_mangle)]
pub static MAX_RW_COUNT: Global<u64> = Global::new(0);
/// Offset in `struct task_struct` of the 32 bits of its `thread_info` that tell 32-bit system calls
/// apart, and the bit that does.
#[unsafe(no_mangle)]
pub static COMPAT_WORD: Global<u32> = Global::new(0);
#[unsafe(no_mangle)]
pub static COMPAT_BIT: Global<u32> = Global::new(0);
/// Counters that there are: the fewer, the more CPUs have each of them.
#[unsafe(no_mangle)]
pub static COUNTER_PLACES: Global<u32> = Global::new(1);
/// 1: the kernel may preempt a probe, and redundant attachments run too (see [`crate::preempt`]).
#[unsafe(no_mangle)]
pub static COPIES: Global<u32> = Global::new(0);
/// Not 0: [`FILTER_PIDS`], [`WANTED_TID`] and [`WANTED_CGROUP`] are looked at. The verifier drops
/// the code of a switch that is off, but not its load.
#[unsafe(no_mangle)]
pub static FILTER_THREADS: Global<u32> = Global::new(0);
/// Not 0: only processes in `TARGETS`.
#[unsafe(no_mangle)]
pub static FILTER_PIDS: Global<u32> = Global::new(0);
/// The tracer's own process, whose self-test passes every filter.
#[unsafe(no_mangle)]
pub static OWN_TGID: Global<u32> = Global::new(0);
/// Not 0: only this thread.
#[unsafe(no_mangle)]
pub static WANTED_TID: Global<u32> = Global::new(0);
/// Not 0: only processes in the cgroup of this id, which is at this depth below the root.
#[unsafe(no_mangle)]
pub static WANTED_CGROUP: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
pub static WANTED_CGROUP_LEVEL: Global<u32> = Global::new(0);
/// Not 0: the following are looked at.
#[unsafe(no_mangle)]
pub static FILTER_REQUESTS: Global<u32> = Global::new(0);
/// A bit for each `OP_*` and `API_*` that is wanted.
#[unsafe(no_mangle)]
pub static WANTED_OPS: Global<u32> = Global::new(u32::MAX);
#[unsafe(no_mangle)]
pub static WANTED_APIS: Global<u32> = Global::new(u32::MAX);
/// Not 0: only files of this kernel `dev_t`.
#[unsafe(no_mangle)]
pub static WANTED_DEV: Global<u32> = Global::new(0);
/// Only requests that took at least this many ns.
#[unsafe(no_mangle)]
pub static MIN_LATENCY: Global<u64> = Global::new(0);
/// Not 0: what a traced process forks is traced too.
#[unsafe(no_mangle)]
pub static FOLLOW_CHILDREN: Global<u32> = Global::new(0);
/// 1: an event for every request, not only for findings.
#[unsafe(no_mangle)]
pub static EMIT_ALL: Global<u32> = Global::new(0);
/// Not 0: requests whose attempts ended with EAGAIN say why, and each of them is sent.
#[unsafe(no_mangle)]
pub static WHY_EAGAIN: Global<u32> = Global::new(0);
/// Not 0: the buffer of a write is compared at its end with what it was at its issue.
#[unsafe(no_mangle)]
pub static VERIFY_STABLE: Global<u32> = Global::new(0);
/// Not 0: each request has its stack taken.
#[unsafe(no_mangle)]
pub static STACKS: Global<u32> = Global::new(0);
/// Not 0: the first argument of `generic_perform_write` is a kiocb (since 5.12), else a file.
#[unsafe(no_mangle)]
pub static PERFORM_WRITE_BY_KIOCB: Global<u32> = Global::new(0);
/// Binary logarithm of the bytes of a page.
#[unsafe(no_mangle)]
pub static PAGE_SHIFT: Global<u32> = Global::new(0);
