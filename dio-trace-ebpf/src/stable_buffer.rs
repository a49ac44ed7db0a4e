//! Whether the user's buffer changed while a write was in flight, if `--verify-stable` asks for it.
//!
//! A sum of the buffer is taken at issue and again at completion, both in the thread that made the
//! request: only there can its memory be read. A completion in an interrupt, as most of libaio and
//! io_uring are, runs on top of any process: those writes are not compared. Neither are vectors of
//! io_uring: it has copied the array of the vector, which the program may reuse while a worker
//! makes the request.

use dio_trace_common::{
    abi::{API_IO_URING, OP_WRITE, REQ_VECTORED, Stat},
    evidence::seen,
};

use crate::{
    config::VERIFY_STABLE, evidence::EvidenceRef, in_flight::RequestRef, maps::count,
    segment::Segments, user_memory::read_user_into,
};

/// Bytes of one sample, and how many are taken: a buffer of up to their product is read as a whole.
const SAMPLE: u64 = 64;
const SAMPLES: u64 = 64;

/// One sample.
type Words = [u64; SAMPLE as usize / 8];

/// A write was issued by the current thread.
#[inline(always)]
pub fn issued(request: RequestRef) {
    if VERIFY_STABLE.load() == 0 {
        return;
    }
    let sum = if request.op().get() == OP_WRITE { sum(request) } else { 0 };
    request.checksum().set(sum);
}

/// A write has completed in the thread that issued it.
#[inline(always)]
pub fn completed(request: RequestRef) {
    if request.checksum().get() == 0 {
        return;
    }
    let now = sum(request);
    if now == 0 {
        return;
    }
    count(Stat::BuffersCompared);
    if now != request.checksum().get() {
        EvidenceRef::of(request).set_seen(seen::BUFFER_CHANGED);
    }
}

/// Sum of samples that lie evenly in the buffer, or in the first part of a vector; 0 if it could
/// not be read.
#[inline(never)]
fn sum(request: RequestRef) -> u64 {
    let (mut at, mut len) = (request.user().get(), request.len().get());
    if request.flags().has(REQ_VECTORED) {
        if request.api().get() == API_IO_URING {
            return 0;
        }
        let Some(first) = Segments::of(request).get(0) else { return 0 };
        (at, len) = (first.base, first.len);
    }
    if at == 0 || len < SAMPLE {
        return 0; // of a pipe, or too short for O_DIRECT
    }
    let step = if len <= SAMPLE * SAMPLES { SAMPLE } else { len / SAMPLES & !7 };
    let mut sum = 1u64;
    let mut words: Words = [0; SAMPLE as usize / 8];
    for n in 0..SAMPLES {
        let mut from = n * step;
        if from + SAMPLE > len {
            break;
        }
        if n == SAMPLES - 1 {
            from = len - SAMPLE; // the end
        }
        if !read_user_into(at + from, &mut words) {
            return 0;
        }
        for word in words {
            sum = sum.rotate_left(5) ^ word;
            sum = sum.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
    }
    sum | 1
}
