//! Pseudo-random numbers for synthetic requests, the same in each run.

/// A pseudo-random number generator with a fixed seed (xorshift64*).
pub struct Draw(u64);

impl Draw {
    pub const fn new() -> Self {
        Self(88_172_645_463_325_252)
    }

    pub const fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % n
    }
}
