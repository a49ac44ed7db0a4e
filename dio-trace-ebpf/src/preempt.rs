//! Keeping the CPU while a probe does its work.
//!
//! BPF runs a program once per CPU at a time: while a task is preempted inside one, every other
//! task of that CPU passes the probe without it (kernel/bpf/trampoline.c:__bpf_prog_enter_recur
//! counts it in `recursion_misses`). fentry and fexit run preemptible. Where the kernel has full or
//! lazy preemption the loader links the calls that switch it off (6.10 on). That leaves the
//! kernel's own instructions around a program, which bystanders run too: so the probes that every
//! read, write and open passes are attached three times on such a kernel. A task is preempted in
//! one of these redundant attachments at most; two at once are rare, three next to impossible.
//!
//! Few threads at a time pass what proves the path of a request (the end of the direct I/O, of a
//! read through the page cache): those probes are attached twice, and the first that runs for a
//! request counts (evidence/mod.rs:is_duplicate).
//!
//! An interrupt is not a preemption: one may come in the midst of a completion's probe and complete
//! another request, which that probe then misses. Nothing is lost where something else reports it
//! too: the completion itself proves the direct path (`seen::DIRECT_ENTERED`), io_uring posts its
//! completion after it. The completion of a libaio request is reported once, so its probe is
//! attached twice: where an interrupt completes a request in the midst of one, the other is free.
//! (A hard interrupt in the midst of a soft one in the midst of a task's would find both busy: its
//! request counts as unmatched.) The first that runs completes the request, the other finds nothing
//! left to do.

use crate::kfunc::{preempt_disable, preempt_enable};

/// Preemption is off as long as this lives. A no-op where the kernel has no such call, or was found
/// not to preempt when the tracer attached.
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
