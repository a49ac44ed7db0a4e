//! Why a request came back short, as far as the thread that made it can tell.

use dio_trace_common::{
    abi::{API_SPLICE, REQ_BLOCK_DEVICE, REQ_VECTORED},
    evidence::seen,
};

use crate::{
    evidence::EvidenceRef, in_flight::RequestRef, segment::Segments, task::killed,
    user_memory::read_user,
};

const SECTOR: u64 = 512;
/// Segments of a vector looked through.
const MAX_SEGMENTS: u32 = 16;

/// Looks at the buffer where the count of `done` bytes stopped, and whether the thread is being
/// killed. For a request that completes in its own thread. A function of its own, as
/// [`crate::alignment::explain`] is.
#[inline(never)]
pub fn look(request: RequestRef, done: u64) {
    let evidence = EvidenceRef::of(request);
    // Some buffers are the kernel's: of a pipe, or chosen by io_uring.
    let own = request.api().get() != API_SPLICE && request.user().get() != 0;
    if own && !reachable(request, done) {
        evidence.set_seen(seen::BUFFER_FAULT);
        let stuck = evidence.has_seen(seen::INVALIDATE_FAILED);
        if request.flags().has(REQ_BLOCK_DEVICE) && !stuck && done % SECTOR == 0 {
            evidence.clear_seen(seen::BUFFERED_WRITE);
        }
    }
    if killed() {
        evidence.set_seen(seen::KILLED);
    }
}

/// True if the buffer can be accessed in the block behind `done` bytes. The kernel gives up whole
/// blocks, so that the fault lies within one of them. Had the memory only been paged out, the
/// request would have brought it in.
#[inline(always)]
fn reachable(request: RequestRef, done: u64) -> bool {
    const BLOCK: u64 = 4096;
    let Some((start, left)) = rest(request, done) else { return true };
    let last = if left < BLOCK { left } else { BLOCK } - 1;
    byte_at(start) && byte_at(start + last)
}

/// User address and length of what is left of the segment in which byte `done` lies.
#[inline(always)]
fn rest(request: RequestRef, mut done: u64) -> Option<(u64, u64)> {
    let (flags, segments) = (request.flags().get(), request.nr_segs().get());
    if flags & REQ_VECTORED == 0 {
        return Some((request.user().get() + done, request.len().get() - done));
    }
    let vector = Segments::of(request);
    for i in 0..MAX_SEGMENTS {
        if i >= segments {
            break;
        }
        let Some(iovec) = vector.get(i) else { break };
        if done < iovec.len {
            return Some((iovec.base + done, iovec.len - done));
        }
        done -= iovec.len;
    }
    None
}

#[inline(always)]
fn byte_at(user: u64) -> bool {
    read_user::<u8>(user).is_some()
}
