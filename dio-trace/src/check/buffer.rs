//! An aligned buffer for direct requests.

/// A buffer aligned to 64 KiB, which meets every device's memory alignment limit.
pub(super) struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    pub(super) fn new(len: usize) -> Self {
        const ALIGN: usize = 64 << 10;
        let memory = vec![0x5a; len + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN);
        Self { memory, start, len }
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.start + self.len]
    }
}
