//! The current task: its name, and how it runs.

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid,
    generated::{bpf_get_current_comm, bpf_get_current_task},
};
use dio_trace_common::abi::Task;

use crate::{
    config::{COMPAT_BIT, COMPAT_WORD},
    in_flight::RequestRef,
    kernel_memory::{
        SIGPENDING_SIGNAL, TASK_COMM, TASK_FLAGS, TASK_GROUP_LEADER, TASK_PENDING, can_cast, read,
        read_at,
    },
};

/// The current thread and its name.
#[inline(always)]
pub fn identify() -> Task {
    let ids = bpf_get_current_pid_tgid();
    let mut task = Task { tid: ids as u32, tgid: (ids >> 32) as u32, comm: [0; 16] };
    // SAFETY: room for 16 bytes.
    unsafe { bpf_get_current_comm(task.comm.as_mut_ptr().cast(), 16) };
    task
}

/// The current `task_struct`.
#[inline(always)]
pub fn current() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_get_current_task() }
}

/// Puts the thread's name into a synchronous request, which completes in its own thread. Only where
/// the name is sent: few are.
#[inline(always)]
pub fn name(request: RequestRef) {
    if request.kiocb().get() == 0 {
        comm(request);
    }
}

/// Puts the current thread's name into a request, as two words of 8 bytes. The helper takes twice
/// as many instructions as two loads.
#[inline(always)]
pub fn comm(request: RequestRef) {
    let to = request.comm().as_ptr().cast::<u64>();
    // SAFETY: room for 16 bytes.
    unsafe {
        if can_cast() {
            let at = current() + u64::from(TASK_COMM.load());
            to.write(read_at(at));
            to.add(1).write(read_at(at + 8));
        } else {
            bpf_get_current_comm(to.cast(), 16);
        }
    }
}

/// Puts the name of the current process into a request.
#[inline(always)]
pub fn leader_comm(request: RequestRef) {
    let leader: u64 = read(current(), &TASK_GROUP_LEADER);
    let comm = read(leader, &TASK_COMM);
    request.comm().set(comm);
}

/// True if the name in the request begins with "iou-", as those of io-wq and SQPOLL threads do.
/// Compared as one word: a slice comparison is a call.
#[inline(always)]
pub fn starts_with_iou(request: RequestRef) -> bool {
    // SAFETY: the name of a request that this thread issues (own-thread rule).
    let comm = unsafe { &*request.comm().as_ptr() };
    u32::from_ne_bytes([comm[0], comm[1], comm[2], comm[3]]) == u32::from_ne_bytes(*b"iou-")
}

/// True in a thread of io-wq, which may wait: the result that it gets is final
/// (io_uring/rw.c:io_rw_should_reissue). The submission thread of a ring with SQPOLL has the flag as
/// well (kernel/fork.c:create_io_thread, 5.12 on), and must not wait.
#[inline(always)]
pub fn is_io_worker() -> bool {
    const PF_IO_WORKER: u32 = 0x10; // include/linux/sched.h
    const SUBMITS: u64 = u64::from_ne_bytes(*b"iou-sqp-"); // io_uring/sqpoll.c:io_sq_thread
    let task = current();
    let flags: u32 = read(task, &TASK_FLAGS);
    flags & PF_IO_WORKER != 0 && read::<u64>(task, &TASK_COMM) != SUBMITS
}

/// True in a system call of a 32-bit program (`in_ia32_syscall`; x32 has another mark).
#[inline(always)]
pub fn is_compat() -> bool {
    read::<u32>(current(), &COMPAT_WORD) & COMPAT_BIT.load() != 0
}

/// True if SIGKILL is pending for this thread, as it is for every thread of a process that a signal
/// ends (kernel/signal.c:complete_signal).
#[inline(always)]
pub fn killed() -> bool {
    const SIGKILL: u64 = 1 << 8;
    // sigset_t is an array of words, of which the first has the signals up to 64.
    let pending: u64 = read(current() + u64::from(TASK_PENDING.load()), &SIGPENDING_SIGNAL);
    pending & SIGKILL != 0
}
