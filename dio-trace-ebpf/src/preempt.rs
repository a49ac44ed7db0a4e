//! Keeping the CPU while a probe does its work.
//!
//! BPF runs a program once per CPU at a time: while a task is preempted inside one, every other
//! task of that CPU passes the probe unseen (kernel/bpf/trampoline.c:__bpf_prog_enter_recur counts
//! it in `recursion_misses`). fentry and fexit run preemptible. Where the kernel has full or lazy
//! preemption the loader links the calls that switch it off (6.10 on). That leaves the kernel's
//! own instructions around a program, which bystanders run too: so the probes that every read,
//! write and open passes are there three times on such a kernel. A task is preempted in one of them
//! at most, and two at once are rare, three next to impossible.
//!
//! What proves the path of a request (the end of the direct I/O, of a read through the page cache)
//! few threads pass at a time: those probes are there twice, and of a request the first that runs
//! counts (evidence.rs:again).
//!
//! An interrupt is no preemption: one may come in the midst of a completion's probe and complete
//! another request, unseen by that probe. Nothing is lost where something else tells the same: the
//! completion itself proves the direct path (`seen::DIRECT_ENTERED`), io_uring posts its completion
//! after it. The end of a libaio request is told once, so its probe is there three times: a CPU has
//! three levels (task, soft interrupt, hard interrupt), each of them in one program at a time, and
//! one copy is free. The first that runs ends the request, the others find nothing left to do.

use crate::kfunc::{preempt_disable, preempt_enable};

/// Preemption is off as long as this lives; a no-op where the kernel has no such call, or was found not to
/// preempt when the tracer attached.
pub struct PreemptGuard(());

impl PreemptGuard {
    /// After the cheap tests that send bystanders away, before any work.
    #[inline(always)]
    pub fn new() -> Self {
        preempt_disable();
        Self(())
    }
}

impl Drop for PreemptGuard {
    #[inline(always)]
    fn drop(&mut self) {
        preempt_enable();
    }
}
