//! Reading the memory of the current process.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_user;

/// struct iovec (include/uapi/linux/uio.h)
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Iovec {
    pub base: u64,
    pub len: u64,
}

/// struct compat_iovec (include/linux/compat.h): that of a 32-bit program.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct CompatIovec {
    pub base: u32,
    pub len: u32,
}

/// A segment of a vector, as a program has it in memory.
pub trait Segment: Copy {
    fn bytes(&self) -> u64;
}

impl Segment for Iovec {
    #[inline(always)]
    fn bytes(&self) -> u64 {
        self.len
    }
}

impl Segment for CompatIovec {
    #[inline(always)]
    fn bytes(&self) -> u64 {
        u64::from(self.len)
    }
}

/// Reads user memory into `to`; false if the address is bad, and then `to` is zeroed.
#[inline(always)]
pub fn read_user_into<T: Copy>(at: u64, to: &mut T) -> bool {
    // SAFETY: as many bytes of our own; the helper checks the user address. T is made of integers.
    let failed = unsafe {
        bpf_probe_read_user(core::ptr::from_mut(to).cast(), size_of::<T>() as u32, at as *const _)
    };
    failed == 0
}

/// Reads user memory, into memory that is not zeroed first: the compiler's `memset` goes byte by
/// byte.
#[inline(always)]
pub fn read_user<T: Copy>(at: u64) -> Option<T> {
    let mut to = MaybeUninit::<T>::uninit();
    // SAFETY: the helper checks the address and writes all bytes, or zeroes them and fails.
    let failed = unsafe {
        bpf_probe_read_user(to.as_mut_ptr().cast(), size_of::<T>() as u32, at as *const _)
    } != 0;
    if failed {
        return None;
    }
    // SAFETY: written by the helper; T is made of integers.
    Some(unsafe { to.assume_init() })
}

/// Reads up to two words of user memory; those beyond `size` bytes are 0. The verifier refuses a
/// size that has no room. Volatile: otherwise the compiler calls its byte-by-byte `memset`.
#[inline(always)]
pub fn read_user_up_to(at: u64, size: u64) -> Option<[u64; 2]> {
    let mut to = MaybeUninit::<[u64; 2]>::uninit();
    let words = to.as_mut_ptr().cast::<u64>();
    // SAFETY: room for two words, both written; the helper checks the user address.
    unsafe {
        words.write_volatile(0);
        words.add(1).write_volatile(0);
        let failed = bpf_probe_read_user(words.cast(), size as u32, at as *const _);
        (failed == 0).then(|| to.assume_init())
    }
}
