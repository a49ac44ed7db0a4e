//! A segment of a request's vector.

use dio_trace_common::abi::REQ_COMPAT;

use crate::{
    in_flight::RequestRef,
    user_memory::{CompatIovec, Iovec, read_user_into},
};

/// The `n`th segment of a request's vector. Without a branch for 32-bit programs: the verifier would
/// walk each loop over segments in twice as many ways.
#[inline(always)]
pub fn segment(request: RequestRef, n: u32) -> Option<Iovec> {
    const WORD: u64 = size_of::<u64>() as u64;
    let compat = u64::from(request.flags().has(REQ_COMPAT));
    let size = size_of::<Iovec>() as u64 - compat * size_of::<CompatIovec>() as u64;
    let at = request.user().get() + u64::from(n) * size;
    // Of a 32-bit program the first word has both, and is read twice.
    let (mut first, mut second) = (0u64, 0u64);
    let failed =
        !read_user_into(at, &mut first) | !read_user_into(at + WORD - compat * WORD, &mut second);
    if failed {
        return None;
    }
    let narrow = 0u64.wrapping_sub(compat);
    Some(Iovec {
        base: first & (narrow >> 32 | !narrow),
        len: first >> 32 & narrow | second & !narrow,
    })
}
