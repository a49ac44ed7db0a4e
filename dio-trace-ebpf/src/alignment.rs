//! The alignment that the program offered, to explain an EINVAL or a fallback.

use dio_trace_common::{abi::REQ_VECTORED, evidence::seen};

use crate::{evidence::EvidenceRef, in_flight::RequestRef, segment::Segments};

const EINVAL: i64 = -22;

/// True if the alignment of the buffers may be the reason: the request was refused, or the file
/// system served a vector through the cache and did not try another way.
#[inline(always)]
pub fn wants_explaining(request: RequestRef, ret: i64) -> bool {
    let untried = || !EvidenceRef::of(request).has_seen(seen::DIRECT_TRIED);
    ret == EINVAL || (ret > 0 && request.flags().has(REQ_VECTORED) && untried())
}

/// Collects the alignment that the caller offered: of the buffer, or of up to [`MAX_SEGMENTS`]
/// iovecs in user memory. A function of its own: rarely called, and inlined it takes registers from
/// all that [`crate::request::finish::finish`] does.
#[inline(never)]
pub fn explain(request: RequestRef) {
    const MAX_SEGMENTS: u32 = 16;
    let evidence = EvidenceRef::of(request);
    if !request.flags().has(REQ_VECTORED) {
        evidence.only_segment(request);
        return;
    }
    let vector = Segments::of(request);
    for i in 0..MAX_SEGMENTS {
        if i >= request.nr_segs().get() {
            break;
        }
        let Some(iovec) = vector.get(i) else { break };
        evidence.add_segment(&iovec);
    }
}
