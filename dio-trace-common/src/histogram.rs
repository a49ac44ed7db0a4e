//! The latency histogram: powers of two, counted by the probes and read by user space.

/// Number of buckets. Bucket n holds [2^n, 2^(n+1)) ns; the first also holds 0, and the last all
/// that is longer.
pub const BUCKETS: usize = 36;

/// How often each latency occurred.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram(pub [u32; BUCKETS]);

impl Histogram {
    pub const EMPTY: Self = Self([0; BUCKETS]);

    /// Counts one latency in ns.
    #[inline]
    pub fn count(&mut self, ns: u64) {
        let n = &mut self.0[bucket(ns)];
        *n = n.saturating_add(1);
    }

    /// Adds another histogram. Sums saturate, because a recording may contain any number.
    pub fn merge(&mut self, other: &Self) {
        for (sum, n) in self.0.iter_mut().zip(other.0) {
            *sum = sum.saturating_add(n);
        }
    }

    /// What was added since `before`. Numbers are 32 bits in the probes, and wrap.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        let mut added = *self;
        for (n, before) in added.0.iter_mut().zip(before.0) {
            *n = n.wrapping_sub(before);
        }
        added
    }

    /// Upper bound in ns of the bucket that the percentile falls into; 0 if all are empty.
    #[must_use]
    pub fn percentile(&self, percent: u64) -> u64 {
        let all: u64 = self.0.iter().map(|n| u64::from(*n)).sum();
        let rank = (all * percent).div_ceil(100);
        let mut below = 0;
        for (bit, count) in self.0.iter().enumerate() {
            below += u64::from(*count);
            if below >= rank && rank > 0 {
                return 1 << (bit + 1);
            }
        }
        0
    }
}

/// Positions of the highest bits of bytes.
static HIGHEST: [u8; 256] = {
    let mut table = [0; 256];
    let mut n = 2;
    while n < 256 {
        table[n] = table[n / 2] + 1;
        n += 1;
    }
    table
};

/// The bucket of a latency in ns: the position of its highest bit (0 for 0), at most the last. By a
/// table, because BPF has no such instruction and the compiler's expansion of `leading_zeros` is
/// longer.
///
/// In no branch may the verifier's bounds say that the result exceeds the last bucket: the verifier
/// of 6.1 then follows a branch that cannot be taken, and loses the pointer that is added to.
#[must_use]
#[inline(always)]
pub fn bucket(mut ns: u64) -> usize {
    let mut bit = 0;
    if ns >= 1 << 32 {
        ns >>= 32;
        bit = 32;
        if ns > 255 {
            ns = 255;
        }
    } else {
        if ns >= 1 << 16 {
            ns >>= 16;
            bit = 16;
        }
        if ns >= 1 << 8 {
            ns >>= 8;
            bit += 8;
        }
    }
    bit += usize::from(HIGHEST[ns as usize & 255]);
    if bit < BUCKETS { bit } else { BUCKETS - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bucket_is_the_highest_bit() {
        for bit in 0..64 {
            let low = 1u64 << bit;
            for ns in [low, low | low >> 1, low | (low - 1)] {
                assert_eq!(bucket(ns), bit.min(BUCKETS - 1), "{ns}");
            }
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn what_was_added_is_exact_if_a_number_wrapped() {
        let of = |n| {
            let mut histogram = Histogram::EMPTY;
            histogram.0[3] = n;
            histogram
        };
        assert_eq!(of(1).since(&of(u32::MAX)), of(2));
        let mut sum = of(u32::MAX);
        sum.merge(&of(2));
        assert_eq!(sum, of(u32::MAX));
    }

    #[test]
    fn a_percentile_is_the_upper_bound_of_its_bucket() {
        let mut histogram = Histogram::EMPTY;
        assert_eq!(histogram.percentile(50), 0);
        for ns in [1_000, 1_000, 1_000, 1_000_000] {
            histogram.count(ns);
        }
        assert_eq!((histogram.percentile(50), histogram.percentile(99)), (1 << 10, 1 << 20));
    }
}
