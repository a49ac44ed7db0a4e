//! Kernel functions that the probes call.
//!
//! aya cannot link them, and an object that names one would not load where it is missing. The
//! object calls these numbers, which no helper has, and the loader replaces each call: by the
//! kernel function's BTF id where there is one and it is of use, else by nothing.

/// `bpf_preempt_disable(void)` (kernel/bpf/helpers.c, 6.10)
pub const PREEMPT_DISABLE: usize = 0x7f00_0001;
/// `bpf_preempt_enable(void)`
pub const PREEMPT_ENABLE: usize = 0x7f00_0002;

/// `bpf_rdonly_cast(const void *, u32 btf_id)` (kernel/bpf/helpers.c, 6.2)
pub const RDONLY_CAST: usize = 0x7f00_0003;

/// Numbers with the functions they stand for, which come and go together.
pub type Group = &'static [(usize, &'static str)];
pub const PREEMPTION: Group =
    &[(PREEMPT_DISABLE, "bpf_preempt_disable"), (PREEMPT_ENABLE, "bpf_preempt_enable")];
pub const CAST: Group = &[(RDONLY_CAST, "bpf_rdonly_cast")];

/// A struct that begins with a number of 8 bytes, and that member: memory is read as such a one, or
/// as a part of it.
pub const WORD: (&str, &str) = ("timespec64", "tv_sec");
