//! Children of traced processes.

use dio_trace_common::abi::Stat;

use crate::{
    config::{FILTER_PIDS, FOLLOW_CHILDREN},
    kernel_memory::{Args, TASK_PID, TASK_TGID, read},
    maps::{TARGETS, count},
    thread_table,
};

/// Tracepoint `sched_process_fork(struct task_struct *parent, struct task_struct *child)`
#[inline(always)]
pub fn fork<A: Args>(ctx: &A) {
    if FILTER_PIDS.load() == 0 || FOLLOW_CHILDREN.load() == 0 {
        return;
    }
    let parent: u32 = read(ctx.arg(0), &TASK_TGID);
    let child: u32 = read(ctx.arg(1), &TASK_TGID);
    // A new thread has its parent's tgid.
    if child == parent || TARGETS.get_ptr(parent).is_none() {
        return;
    }
    if TARGETS.insert(child, &1, 0).is_err() {
        count(Stat::LostChild);
    }
}

/// Tracepoint `sched_process_free(struct task_struct *)`, once for every thread: the last of a
/// process is its leader, reaped when all others are gone. Its id may be used again.
#[inline(always)]
pub fn free<A: Args>(ctx: &A) {
    let task = ctx.arg(0);
    let tgid: u32 = read(task, &TASK_TGID);
    let pid: u32 = read(task, &TASK_PID);
    thread_table::release(u64::from(tgid) << 32 | u64::from(pid));
    if pid == tgid && FILTER_PIDS.load() != 0 {
        let _ = TARGETS.remove(tgid);
    }
}
