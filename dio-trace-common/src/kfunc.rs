//! Kernel functions that the probes call.
//!
//! aya cannot link them, and an object that refers to one by name does not load on a kernel without
//! it. So the object calls these numbers, which no helper has, and the loader replaces each call by
//! one of the kernel function's BTF id, or by a no-op if the function is missing or not needed.

/// `bpf_preempt_disable(void)` (kernel/bpf/helpers.c, 6.10)
pub const PREEMPT_DISABLE: usize = 0x7f00_0001;
/// `bpf_preempt_enable(void)`
pub const PREEMPT_ENABLE: usize = 0x7f00_0002;

/// `bpf_rdonly_cast(const void *, u32 btf_id)` (kernel/bpf/helpers.c, 6.2)
pub const RDONLY_CAST: usize = 0x7f00_0003;

/// Numbers and the names of their functions. All functions of a group are linked, or none.
pub type Group = &'static [(usize, &'static str)];
pub const PREEMPTION: Group =
    &[(PREEMPT_DISABLE, "bpf_preempt_disable"), (PREEMPT_ENABLE, "bpf_preempt_enable")];
pub const CAST: Group = &[(RDONLY_CAST, "bpf_rdonly_cast")];

/// A struct whose first member is an 8-byte integer, and that member. Kernel memory is cast to this
/// struct to read an integer of up to 8 bytes.
pub const WORD: (&str, &str) = ("timespec64", "tv_sec");
