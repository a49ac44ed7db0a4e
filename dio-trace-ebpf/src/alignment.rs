//! The alignment that the program offered, to explain an EINVAL or a fallback.

use dio_trace_common::{
    abi::{REQ_VECTORED, Request},
    evidence::seen,
};

use crate::user_memory::{Iovec, read_user_into};

const EINVAL: i64 = -22;

/// True if the alignment of the buffers may be the reason: the request was refused, or the file
/// system served a vector through the cache and did not try another way.
#[inline(always)]
pub unsafe fn wants_explaining(request: *const Request, ret: i64) -> bool {
    // SAFETY: per the caller, a request of a map.
    unsafe {
        let untried = || (*request).evidence.seen & seen::DIRECT_TRIED == 0;
        ret == EINVAL || (ret > 0 && (*request).flags & REQ_VECTORED != 0 && untried())
    }
}

/// Collects the alignment that the caller offered: of the buffer, or of up to [`MAX_SEGMENTS`]
/// iovecs in user memory.
#[inline(always)]
pub unsafe fn explain(request: *mut Request) {
    const MAX_SEGMENTS: u32 = 16;
    // SAFETY: per the caller; user memory is read through the checking helper.
    unsafe {
        let evidence = &raw mut (*request).evidence;
        if (*request).flags & REQ_VECTORED == 0 {
            (*evidence).addr_bits = (*request).user as u32;
            (*evidence).len_bits = (*request).len as u32;
            (*evidence).segments = 1;
            return;
        }
        for i in 0..MAX_SEGMENTS {
            if i >= (*request).nr_segs {
                break;
            }
            let mut iovec = Iovec { base: 0, len: 0 };
            let at = (*request).user + u64::from(i) * 16;
            if !read_user_into(at, &mut iovec) {
                break;
            }
            (*evidence).addr_bits |= iovec.base as u32;
            (*evidence).len_bits |= iovec.len as u32;
            (*evidence).segments += 1;
        }
    }
}
