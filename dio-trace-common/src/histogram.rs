//! The latency histogram, counted by the probes and read by user space: four buckets per power of
//! two, so that a bucket's upper bound exceeds what it holds by a quarter at most.

/// The width of the first buckets, in ns.
const NARROWEST: u64 = 64;
/// Buckets of each octave. The first octave is [0, 256) ns, each further one twice as long as all
/// before it: [256, 512), [512, 1024) …
const PER_OCTAVE: usize = 4;
const OCTAVES: usize = 29;

/// Number of buckets. The last also holds all that is longer than 2^36 ns (68 s).
pub const BUCKETS: usize = OCTAVES * PER_OCTAVE;

/// Number of powers of two that [`Histogram::powers_of_two`] tells apart.
pub const POWERS: usize = OCTAVES + FIRST_POWER;
/// log2 of half the first octave: its requests are those of this power of two.
const FIRST_POWER: usize = 7;

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
        self.permille(percent * 10)
    }

    /// [`Self::percentile`] in steps of a tenth: 999 is p99.9, and 1000 the maximum.
    #[must_use]
    pub fn permille(&self, permille: u64) -> u64 {
        let all: u64 = self.0.iter().map(|n| u64::from(*n)).sum();
        let rank = (all * permille).div_ceil(1_000);
        let mut below = 0;
        let at = self.0.iter().position(|n| {
            below += u64::from(*n);
            below >= rank && rank > 0
        });
        at.map_or(0, upper_bound)
    }

    /// Requests by power of two: element n holds [2^n, 2^(n+1)) ns, and element 7 also all below.
    #[must_use]
    pub fn powers_of_two(&self) -> [u32; POWERS] {
        let mut powers = [0u32; POWERS];
        for (power, octave) in powers[FIRST_POWER..].iter_mut().zip(self.0.chunks(PER_OCTAVE)) {
            *power = octave.iter().fold(0, |sum, n| sum.saturating_add(*n));
        }
        powers
    }

    /// The histogram of requests by power of two of ns. Each counts in the bucket with the same
    /// upper bound, or in the first one.
    #[must_use]
    pub fn from_powers_of_two(powers: impl IntoIterator<Item = (usize, u32)>) -> Self {
        let mut of = Self::EMPTY;
        for (power, requests) in powers {
            let longest = 1u64.checked_shl(power as u32 + 1).unwrap_or(u64::MAX) - 1;
            let n = &mut of.0[bucket(longest)];
            *n = n.saturating_add(requests);
        }
        of
    }
}

/// Upper bound of a bucket in ns, which it does not hold.
#[must_use]
pub const fn upper_bound(bucket: usize) -> u64 {
    let (octave, part) = (bucket / PER_OCTAVE, (bucket % PER_OCTAVE) as u64);
    if octave == 0 {
        return (part + 1) * NARROWEST;
    }
    ((PER_OCTAVE as u64 + part + 1) * NARROWEST) << (octave - 1)
}

/// The octave of a number of 256 ns, if it is a byte: 0, or 1 and the position of its highest bit.
static OCTAVE: [u8; 256] = {
    let mut table = [0; 256];
    let mut n = 1;
    while n < 256 {
        table[n] = table[n / 2] + 1;
        n += 1;
    }
    table
};

/// The bucket of a latency in ns. By a table, because BPF has no instruction for the highest bit and
/// the compiler's expansion of `leading_zeros` is longer.
///
/// In no branch may the verifier's bounds say that the result exceeds the last bucket: the verifier
/// of 6.1 then follows a branch that cannot be taken, and loses the pointer that is added to.
#[must_use]
#[inline(always)]
pub fn bucket(ns: u64) -> usize {
    const LONGEST: u64 = (1 << 36) - 1;
    let ns = if ns > LONGEST { LONGEST } else { ns };
    let mut units = ns / (NARROWEST * PER_OCTAVE as u64);
    let mut octave = 0;
    if units >= 1 << 16 {
        units >>= 16;
        octave = 16;
    }
    if units >= 1 << 8 {
        units >>= 8;
        octave += 8;
    }
    octave += usize::from(OCTAVE[units as usize & 255]);
    let widths = if octave == 0 { 0 } else { octave - 1 };
    let part = (ns / NARROWEST).wrapping_shr(widths as u32) as usize % PER_OCTAVE;
    let bucket = octave * PER_OCTAVE + part;
    if bucket < BUCKETS { bucket } else { BUCKETS - 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_latency_lies_within_the_bounds_of_its_bucket() {
        let mut from = 0;
        for at in 0..BUCKETS {
            let to = upper_bound(at);
            for ns in [from, from + 1, to - 1] {
                assert_eq!(bucket(ns), at, "{ns}");
            }
            assert!(at < 4 || to * 4 <= from * 5, "{from} to {to}");
            from = to;
        }
        assert_eq!(from, 1 << 36);
        for longer in [1 << 36, 1 << 40, u64::MAX] {
            assert_eq!(bucket(longer), BUCKETS - 1);
        }
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

    #[test]
    fn the_slowest_of_a_thousand_is_above_p99_9() {
        let mut latency = Histogram::EMPTY;
        (latency.0[40], latency.0[44]) = (999, 1);
        let [usual, slowest] = [40, 44].map(upper_bound);
        assert_eq!((latency.permille(999), latency.permille(1_000)), (usual, slowest));
        latency.0[44] = 2;
        assert_eq!(latency.permille(999), slowest);
    }

    #[test]
    fn powers_of_two_keep_every_request_and_its_upper_bound() {
        let mut latency = Histogram::EMPTY;
        let all = [0, 100, 255, 256, 511, 512, 1 << 20, (1 << 36) - 1, u64::MAX];
        all.iter().for_each(|ns| latency.count(*ns));
        let powers = latency.powers_of_two();
        assert_eq!((powers[7], powers[8], powers[9], powers[20], powers[35]), (3, 2, 1, 1, 2));
        assert_eq!(powers.iter().sum::<u32>(), all.len() as u32);
        let back = Histogram::from_powers_of_two(powers.into_iter().enumerate());
        assert_eq!(back.powers_of_two(), powers);
        for power in 5..36 {
            let one = Histogram::from_powers_of_two([(power, 1)]);
            assert_eq!(one.percentile(50), 1 << (power + 1), "{power}");
        }
        assert_eq!(Histogram::from_powers_of_two([(255, 1)]).0[BUCKETS - 1], 1);
    }
}
