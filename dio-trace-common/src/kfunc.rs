//! Kernel functions that the probes call.
//!
//! aya cannot link them, and an object that names one would not load where it is missing. The
//! object calls these numbers, which no helper has, and the loader replaces each call: by the
//! kernel function's BTF id where there is one, else by nothing.

/// `bpf_preempt_disable(void)` (kernel/bpf/helpers.c, 6.10)
pub const PREEMPT_DISABLE: usize = 0x7f00_0001;
/// `bpf_preempt_enable(void)`
pub const PREEMPT_ENABLE: usize = 0x7f00_0002;

/// Every number with the function it stands for. They come and go together.
pub const ALL: &[(usize, &str)] =
    &[(PREEMPT_DISABLE, "bpf_preempt_disable"), (PREEMPT_ENABLE, "bpf_preempt_enable")];
