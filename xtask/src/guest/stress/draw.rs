//! Draws pseudo-random requests: most are aligned and inside the file, some are misaligned, some at
//! its end.

/// A request to make; `file` is an index, `offset` and `len` are in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request {
    pub(super) file: usize,
    pub(super) write: bool,
    pub(super) offset: i64,
    pub(super) len: usize,
    /// Bytes by which the buffer is misaligned.
    pub(super) skew: usize,
}

/// A pseudo-random generator, reproducible by its seed, and the sizes of the files.
pub(super) struct Draw {
    state: u64,
    sizes: Vec<u64>,
}

impl Draw {
    pub(super) fn new(seed: u64, sizes: Vec<u64>) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, sizes }
    }

    /// Draws a number below `end` (xorshift64*).
    pub(super) fn below(&mut self, end: usize) -> usize {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        ((self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize) % end
    }

    pub(super) fn request(&mut self) -> Request {
        let file = self.below(self.sizes.len());
        self.of(file)
    }

    /// Draws a request to one of these files.
    pub(super) fn request_to(&mut self, files: &[usize]) -> Request {
        let file = files[self.below(files.len())];
        self.of(file)
    }

    fn of(&mut self, file: usize) -> Request {
        /// The bytes of a large device that are used.
        const MOST: u64 = 64 << 20;
        const BLOCK: u64 = 4096;
        let size = self.sizes[file];
        let len = [512, 4096, 4096, 4096, 8192, 16384][self.below(6)];
        let write = self.below(2) == 0;
        // Only whole blocks: a write must not extend the file.
        let room = (size.min(MOST) / BLOCK * BLOCK) as usize / len;
        let offset = (self.below(room) * len) as i64;
        let inside = Request { file, write, offset, len, skew: 0 };
        match self.below(16) {
            0 => Request { offset: offset + 100, len: len - 256, ..inside },
            1 => Request { skew: 1, len: len - 256, ..inside },
            2 => Request { write: false, offset: (size / BLOCK * BLOCK) as i64 - 4096, ..inside },
            3 => Request { write: false, offset: (size / BLOCK * BLOCK) as i64, ..inside },
            4 => Request { write: false, offset: (size / BLOCK * BLOCK + BLOCK) as i64, ..inside },
            _ => inside,
        }
    }
}
