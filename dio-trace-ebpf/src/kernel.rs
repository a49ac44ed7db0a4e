//! Reading kernel memory: member offsets from BTF, and the two ways to load a member.

use aya_ebpf::{
    EbpfContext, Global,
    cty::c_void,
    helpers::bpf_probe_read_kernel,
    programs::{
        FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
        tracing::{StackIdContext, StackTraceMap},
    },
};

macro_rules! offsets {
    ($($name:ident $struct:literal $member:literal $duty:ident;)*) => {
        $(#[doc = concat!("Byte offset of `", $struct, ".", $member, "`, set by the loader.")]
        #[unsafe(no_mangle)]
        pub static $name: Global<u32> = Global::new(0);)*
    };
}
dio_trace_common::kernel_offsets!(offsets);

/// Loads a member through `bpf_probe_read_kernel`: for any kernel address, at ~20 instructions
/// more than [`Args::load`]. Reads as 0 where the address is bad.
#[inline(always)]
pub fn read<T: Copy + Default>(base: u64, offset: &Global<u32>) -> T {
    let at = (base + u64::from(offset.load())) as *const T;
    // SAFETY: the helper checks the address and fails on a bad one.
    unsafe { bpf_probe_read_kernel(at) }.unwrap_or_default()
}

/// Arguments of a probed function, however the probe is attached.
pub trait Args: EbpfContext {
    /// The `n`th argument as it stands in its register (or stack slot).
    fn arg(&self, n: usize) -> u64;

    /// Loads a member of a struct that [`Args::arg`], or another `load`, returned.
    ///
    /// With fentry and fexit such pointers keep their BTF type and the verifier allows a plain
    /// load (a fault reads as 0). Elsewhere, and once a pointer came out of a map, only
    /// [`read`] will do.
    fn load<T: Copy + Default>(&self, base: u64, offset: &Global<u32>) -> T;

    /// The number of the current stack in a map, or -errno.
    fn stack_id(&self, stacks: &impl StackTraceMap, flags: u32) -> Result<i64, i32>;
}

/// [`Args::stack_id`] of a context that a program gets.
macro_rules! stack_id {
    () => {
        #[inline(always)]
        fn stack_id(&self, stacks: &impl StackTraceMap, flags: u32) -> Result<i64, i32> {
            self.get_stackid(stacks, flags.into())
        }
    };
}

macro_rules! btf_args {
    ($($ctx:ty),+) => {$(
        impl Args for $ctx {
            #[inline(always)]
            fn arg(&self, n: usize) -> u64 {
                <$ctx>::arg(self, n)
            }

            #[inline(always)]
            fn load<T: Copy + Default>(&self, base: u64, offset: &Global<u32>) -> T {
                let at = (base + u64::from(offset.load())) as *const T;
                // SAFETY: a typed pointer; the verifier checks member and size, the exception
                // table makes a fault read as 0. Volatile, lest it be split or merged.
                unsafe { core::ptr::read_volatile(at) }
            }

            stack_id!();
        }
    )+};
}
btf_args!(FEntryContext, FExitContext);

impl Args for ProbeContext {
    #[inline(always)]
    fn arg(&self, n: usize) -> u64 {
        Self::arg(self, n).unwrap_or(0)
    }

    #[inline(always)]
    fn load<T: Copy + Default>(&self, base: u64, offset: &Global<u32>) -> T {
        read(base, offset)
    }

    stack_id!();
}

impl Args for RawTracePointContext {
    #[inline(always)]
    fn arg(&self, n: usize) -> u64 {
        Self::arg(self, n)
    }

    #[inline(always)]
    fn load<T: Copy + Default>(&self, base: u64, offset: &Global<u32>) -> T {
        read(base, offset)
    }

    stack_id!();
}

/// The arguments of a probe whose pointers are no longer typed: they came out of a map, or from
/// another probe.
pub struct ByRead<'a, A>(pub &'a A);

impl<A: EbpfContext> EbpfContext for ByRead<'_, A> {
    fn as_ptr(&self) -> *mut c_void {
        self.0.as_ptr()
    }
}

impl<A: Args> Args for ByRead<'_, A> {
    #[inline(always)]
    fn arg(&self, n: usize) -> u64 {
        self.0.arg(n)
    }

    #[inline(always)]
    fn load<T: Copy + Default>(&self, base: u64, offset: &Global<u32>) -> T {
        read(base, offset)
    }

    #[inline(always)]
    fn stack_id(&self, stacks: &impl StackTraceMap, flags: u32) -> Result<i64, i32> {
        self.0.stack_id(stacks, flags)
    }
}

/// Where the return value of a function with `ARGS` arguments is found.
pub trait Return<const ARGS: usize> {
    /// The return register. An `int` is zero-extended there: cast to i32 first.
    fn ret(&self) -> i64;
}

impl<const ARGS: usize> Return<ARGS> for FExitContext {
    /// The trampoline stores it behind the arguments; reading it there works from 5.10 on,
    /// `bpf_get_func_ret` only from 5.17 (kernel/bpf/btf.c:btf_ctx_access).
    #[inline(always)]
    fn ret(&self) -> i64 {
        Self::arg(self, ARGS)
    }
}

impl<const ARGS: usize> Return<ARGS> for RetProbeContext {
    #[inline(always)]
    fn ret(&self) -> i64 {
        Self::ret(self)
    }
}
