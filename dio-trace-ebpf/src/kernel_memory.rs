//! Reading kernel memory: member offsets from BTF, and the two ways to load a member.

use core::{hint::black_box, mem::MaybeUninit};

use aya_ebpf::{
    EbpfContext, Global,
    cty::c_void,
    helpers::generated::bpf_probe_read_kernel,
    programs::{
        FEntryContext, FExitContext, ProbeContext, RawTracePointContext, RetProbeContext,
        tracing::{StackIdContext, StackTraceMap},
    },
};

use crate::kfunc::rdonly_cast;

macro_rules! offsets {
    ($($name:ident $struct:literal $member:literal $duty:ident;)*) => {
        $(#[doc = concat!("Byte offset of `", $struct, ".", $member, "`, set by the loader.")]
        #[unsafe(no_mangle)]
        pub static $name: Global<u32> = Global::new(0);)*
    };
}
dio_trace_common::kernel_offsets!(offsets);

/// Bit number of `PG_head`, from the enum `pageflags` in BTF.
#[unsafe(no_mangle)]
pub static PG_HEAD: Global<u32> = Global::new(0);

/// BTF id of the type `kfunc::WORD`, or 0 where the kernel cannot cast.
#[unsafe(no_mangle)]
pub static WORD_TYPE: Global<u32> = Global::new(0);

/// True if memory can be read by a cast, see [`by_cast`].
#[inline(always)]
pub fn can_cast() -> bool {
    WORD_TYPE.load() != 0
}

/// Loads a member from any kernel address. Reads as 0 where the address is bad.
#[inline(always)]
pub fn read<T: Copy + Default>(base: u64, offset: &Global<u32>) -> T {
    by_helper(base + u64::from(offset.load()))
}

/// [`read`] by a cast where the kernel can: for what most requests go through. Each use is a
/// condition for the verifier, and many of them make it keep too many states to find equal ones.
#[inline(always)]
pub fn read_fast<T: Copy + Default>(base: u64, offset: &Global<u32>) -> T {
    read_at(base + u64::from(offset.load()))
}

/// [`read_fast`] without a member.
#[inline(always)]
pub fn read_at<T: Copy + Default>(at: u64) -> T {
    if can_cast() { by_cast(at) } else { by_helper(at) }
}

/// [`read`] without a member.
#[inline(always)]
pub fn by_helper<T: Copy + Default>(at: u64) -> T {
    let mut to = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the address, and writes all bytes: zeros where it is bad
    // (kernel/trace/bpf_trace.c:bpf_probe_read_kernel_common). T is made of integers. Its result is
    // not looked at: the verifier would walk what follows once more for a failure.
    unsafe {
        bpf_probe_read_kernel(to.as_mut_ptr().cast(), size_of::<T>() as u32, at as *const _);
        to.assume_init()
    }
}

/// A plain load (6.2 on), which takes about 50 instructions less than the helper. The verifier
/// takes a load of a number's first bytes as well as of all (kernel/bpf/btf.c:btf_struct_walk).
#[inline(always)]
fn by_cast<T: Copy + Default>(at: u64) -> T {
    if !matches!(size_of::<T>(), 1 | 2 | 4 | 8) || size_of::<T>() != align_of::<T>() {
        return by_helper(at); // no number
    }
    // SAFETY: the verifier checks type and size of the load; the exception table makes a fault read
    // as 0. Volatile, for an unaligned one would be split: the address may be one, which the
    // kernels that this is for do not mind.
    unsafe { core::ptr::read_volatile(rdonly_cast::<T>(at, WORD_TYPE.load())) }
}

/// Its own address, from the first time on that one is needed.
#[unsafe(no_mangle)]
static mut ANCHOR: u64 = 0;

/// A typed pointer as a number, which it takes to look something up by arithmetic. The verifier
/// allows none with such a pointer but the difference to another pointer
/// (kernel/bpf/verifier.c:adjust_reg_min_max_vals): here to [`ANCHOR`], whose address is added again
/// as the number that lies there.
#[inline(always)]
fn number_of(pointer: u64) -> u64 {
    let anchor = &raw mut ANCHOR;
    // SAFETY: a word of a map. Whoever writes it writes the same.
    unsafe {
        if anchor.read_volatile() == 0 {
            anchor.write_volatile(anchor as u64);
        }
        black_box(pointer.wrapping_sub(anchor as u64)).wrapping_add(anchor.read_volatile())
    }
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

    /// An argument, or what `load` returned, as a number to calculate with.
    fn number(&self, pointer: u64) -> u64;

    /// The number of the current stack in a map, or -errno.
    fn stack_id(&self, stacks: &impl StackTraceMap, flags: u32) -> Result<i64, i32>;
}

/// [`Args::number`] where pointers have no types.
macro_rules! plain_number {
    () => {
        #[inline(always)]
        fn number(&self, pointer: u64) -> u64 {
            pointer
        }
    };
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
                // table makes a fault read as 0. Volatile: otherwise it may be split or merged.
                unsafe { core::ptr::read_volatile(at) }
            }

            #[inline(always)]
            fn number(&self, pointer: u64) -> u64 {
                number_of(pointer)
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

    plain_number!();
    stack_id!();
}

impl Args for RawTracePointContext {
    #[inline(always)]
    fn arg(&self, n: usize) -> u64 {
        Self::arg(self, n)
    }

    #[inline(always)]
    fn load<T: Copy + Default>(&self, base: u64, offset: &Global<u32>) -> T {
        read_fast(base, offset)
    }

    plain_number!();
    stack_id!();
}

/// The arguments of a kprobe on a kernel that can cast. One choice in a program, not one for each
/// load.
pub struct ByCast<'a>(pub &'a ProbeContext);

impl EbpfContext for ByCast<'_> {
    fn as_ptr(&self) -> *mut c_void {
        self.0.as_ptr()
    }
}

impl Args for ByCast<'_> {
    #[inline(always)]
    fn arg(&self, n: usize) -> u64 {
        Args::arg(self.0, n)
    }

    #[inline(always)]
    fn load<T: Copy + Default>(&self, base: u64, offset: &Global<u32>) -> T {
        by_cast(base + u64::from(offset.load()))
    }

    plain_number!();

    #[inline(always)]
    fn stack_id(&self, stacks: &impl StackTraceMap, flags: u32) -> Result<i64, i32> {
        self.0.stack_id(stacks, flags)
    }
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
    fn number(&self, pointer: u64) -> u64 {
        self.0.number(pointer)
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
