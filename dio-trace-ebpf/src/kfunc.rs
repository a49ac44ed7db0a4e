//! Calls of kernel functions: of numbers that are no helper's, which the loader replaces
//! (`dio_trace_common::kfunc`).

use dio_trace_common::kfunc::{PREEMPT_DISABLE, PREEMPT_ENABLE, RDONLY_CAST};

#[inline(always)]
pub fn preempt_disable() {
    // SAFETY: compiles to one call instruction with this number, which the loader replaces before
    // the kernel sees it; the function takes and returns nothing.
    unsafe { core::mem::transmute::<usize, unsafe extern "C" fn()>(PREEMPT_DISABLE)() }
}

#[inline(always)]
pub fn preempt_enable() {
    // SAFETY: as above.
    unsafe { core::mem::transmute::<usize, unsafe extern "C" fn()>(PREEMPT_ENABLE)() }
}

/// `at` as a pointer to that type. The verifier makes it a move.
#[inline(always)]
pub fn rdonly_cast<T>(at: u64, btf_id: u32) -> *const T {
    // SAFETY: as above; the function takes these two and reads nothing.
    unsafe {
        core::mem::transmute::<usize, unsafe extern "C" fn(u64, u32) -> *const T>(RDONLY_CAST)(
            at, btf_id,
        )
    }
}
