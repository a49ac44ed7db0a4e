//! [`Step`]: the shape of a read with which a program tries out an alignment.

use dio_trace_common::abi::{API_READ, OP_READ, REQ_VECTORED, Request};

/// The longest read of a probe, in bytes.
const MAX_LEN: u64 = 64 << 10;
/// A buffer at a multiple of this is aligned for every device.
const PAGE: u64 = 4096;

/// A read at offset 0 whose length is a power of two, into a buffer that is aligned to a page or
/// off it by a step.
///
/// QEMU (block/file-posix.c:raw_probe_alignment) first reads 1, 512, 1024, 2048 and 4096 bytes into
/// an aligned buffer, until one is not EINVAL. It then reads one length into buffers that begin 1,
/// 512, 1024, 2048 and 4096 bytes past an aligned address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// Bytes.
    pub(super) len: u64,
    /// Bytes between the buffer and the page boundary before it: 0, 1, 512, 1024 or 2048.
    pub(super) off: u64,
}

impl Step {
    /// The step that a request is, whether it worked or not; `None` if it has another shape.
    pub(super) const fn of(request: &Request) -> Option<Self> {
        let is_plain = request.op == OP_READ
            && request.api == API_READ
            && request.flags & REQ_VECTORED == 0
            && request.pos == 0;
        let (len, off) = (request.len, request.user % PAGE);
        let fits =
            len.is_power_of_two() && len <= MAX_LEN && matches!(off, 0 | 1 | 512 | 1024 | 2048);
        if is_plain && fits { Some(Self { len, off }) } else { None }
    }

    /// True if a probe may begin so: with a length, or with the smallest misalignment of a buffer.
    pub(super) const fn begins(self) -> bool {
        self.off == 0 || self.is_opening()
    }

    /// True if a probe may go on so after `last`: the length grows, or the first misaligned buffer
    /// comes, or the buffer's alignment grows while the length stays.
    pub(super) const fn follows(self, last: Self) -> bool {
        match (last.off, self.off) {
            (0, 0) => self.len > last.len,
            (0, 1) => self.len >= last.len,
            (0, _) => false,
            (before, off) => self.len == last.len && (off > before || off == 0),
        }
    }

    /// True for QEMU's first length, and for its first buffer, with which it begins where the file
    /// system or the device says the length. No disk serves one byte, and no allocator gives a buffer
    /// one byte past a page: a program that reads so is trying.
    pub(super) const fn is_opening(self) -> bool {
        match self.off {
            0 => self.len == 1,
            off => off == 1 && self.len >= 512,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fixtures;

    const fn step(len: u64, off: u64) -> Step {
        Step { len, off }
    }

    #[test]
    fn lengths_are_powers_of_two_and_buffers_off_by_a_step() {
        let of = |len, user| Step::of(&Request { pos: 0, len, user, ..fixtures::request() });
        assert_eq!(of(1, 0x1000), Some(step(1, 0)));
        assert_eq!(of(65_536, 0x7200), Some(step(65_536, 512)));
        for (len, user) in [(0, 0x1000), (1000, 0x1000), (131_072, 0x1000), (512, 0x1010)] {
            assert_eq!(of(len, user), None, "{len} at {user:#x}");
        }
        for request in [
            fixtures::request(), // not at offset 0
            Request { pos: 0, op: dio_trace_common::abi::OP_WRITE, ..fixtures::request() },
            Request { pos: 0, flags: REQ_VECTORED, ..fixtures::request() },
            Request { pos: 0, api: dio_trace_common::abi::API_SPLICE, ..fixtures::request() },
        ] {
            assert_eq!(Step::of(&request), None);
        }
    }

    #[test]
    fn a_probe_grows() {
        for (last, next) in [
            (step(1, 0), step(512, 0)),
            (step(512, 0), step(4096, 0)),
            (step(4096, 0), step(4096, 1)),
            (step(1, 0), step(65_536, 1)),
            (step(4096, 1), step(4096, 512)),
            (step(4096, 2048), step(4096, 0)),
        ] {
            assert!(next.follows(last), "{last:?} {next:?}");
        }
        for (last, next) in [
            (step(512, 0), step(512, 0)),
            (step(512, 0), step(1, 0)),
            (step(512, 0), step(4096, 512)),
            (step(4096, 512), step(4096, 1)),
            (step(4096, 1), step(8192, 512)),
        ] {
            assert!(!next.follows(last), "{last:?} {next:?}");
        }
        assert!(step(4096, 1).begins() && !step(4096, 512).begins() && !step(256, 1).begins());
    }
}
