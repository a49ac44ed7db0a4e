//! The segments of a request's vector.

use core::hint::black_box;

use dio_trace_common::abi::REQ_COMPAT;

use crate::{
    in_flight::RequestRef,
    user_memory::{CompatIovec, Iovec, read_user_up_to},
};

/// The segments of a vector, in user memory.
pub struct Segments {
    user: u64,
    /// Bytes of each.
    size: u64,
    /// All bits of a 32-bit program's, else none.
    narrow: u64,
}

impl Segments {
    /// Those of a request. How a segment looks is found out here, not for each of them: the
    /// verifier would walk each step of a loop in twice as many ways.
    #[inline(always)]
    pub fn of(request: RequestRef) -> Self {
        const SAVED: u64 = (size_of::<Iovec>() - size_of::<CompatIovec>()) as u64;
        const { assert!(SAVED.is_power_of_two() && REQ_COMPAT.is_power_of_two()) };
        let compat = u64::from(request.flags().get() & REQ_COMPAT) / u64::from(REQ_COMPAT);
        Self {
            user: request.user().get(),
            size: size_of::<Iovec>() as u64 - compat * SAVED,
            narrow: black_box(0u64.wrapping_sub(compat)),
        }
    }

    /// The `n`th, or `None` if it cannot be read.
    #[inline(always)]
    pub fn get(&self, n: u32) -> Option<Iovec> {
        let at = self.user + u64::from(n) * self.size;
        // Of a 32-bit program the first word has both.
        let [first, second] = read_user_up_to(at, self.size)?;
        Some(Iovec {
            base: first & (self.narrow >> 32 | !self.narrow),
            len: first >> 32 & self.narrow | second & !self.narrow,
        })
    }
}
