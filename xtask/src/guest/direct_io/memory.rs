//! Memory for requests, and a file mapping that reports which pages are in the page cache.
use std::{fs::File, io, os::fd::AsRawFd};

use anyhow::{Context, Result, bail};

/// Bytes in a page of this kernel.
pub(crate) fn page_size() -> usize {
    // SAFETY: no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Page-aligned anonymous memory.
pub(crate) struct Buffer {
    start: *mut u8,
    len: usize,
}

impl Buffer {
    pub(crate) fn new(len: usize) -> Result<Self> {
        let len = len.max(1);
        // SAFETY: a new anonymous mapping; populated, so that no request faults it in.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            bail!("no memory for {len} bytes");
        }
        Ok(Self { start: start.cast(), len })
    }

    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: our own mapping of that length, borrowed as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }

    pub(crate) fn at(&mut self, offset: usize) -> *mut u8 {
        self.start.wrapping_add(offset)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: our own mapping; every request into it has ended.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}

/// A file mapping for asking about residency (mincore(2)). Pages are touched only by `touch`.
pub(crate) struct Map {
    start: *mut libc::c_void,
    len: usize,
}

impl Map {
    pub(crate) fn new(file: &File, end: u64) -> Result<Self> {
        let len = end as usize;
        if len == 0 {
            return Ok(Self { start: std::ptr::null_mut(), len });
        }
        let map = |how| {
            // SAFETY: a new mapping of a file that is not truncated while it lives.
            unsafe {
                libc::mmap(std::ptr::null_mut(), len, libc::PROT_READ, how, file.as_raw_fd(), 0)
            }
        };
        let mut start = map(libc::MAP_SHARED);
        if start == libc::MAP_FAILED {
            start = map(libc::MAP_PRIVATE); // 9p without a cache has no shared mappings
        }
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error()).context("cannot map the file");
        }
        // SAFETY: our own mapping. No read-ahead by faults: only the pages that the case names may
        // be cached.
        unsafe { libc::madvise(start, len, libc::MADV_RANDOM) };
        Ok(Self { start, len })
    }

    /// The pages of the file that a range touches, as page numbers.
    pub(crate) fn pages(&self, offset: i64, len: usize) -> std::ops::Range<usize> {
        let last = (offset as usize + len).min(self.len);
        let first = offset as usize / page_size();
        first..last.div_ceil(page_size()).max(first)
    }

    pub(crate) fn resident(&self, offset: i64, len: usize) -> Result<u64> {
        let pages = self.pages(offset, len);
        if pages.is_empty() {
            return Ok(0);
        }
        let mut there = vec![0_u8; pages.len()];
        // SAFETY: within our mapping, and one byte of room per page.
        let asked = unsafe {
            libc::mincore(
                self.start.wrapping_byte_add(pages.start * page_size()),
                pages.len() * page_size(),
                there.as_mut_ptr(),
            )
        };
        if asked < 0 {
            return Err(io::Error::last_os_error()).context("mincore");
        }
        Ok(there.iter().filter(|page| **page & 1 != 0).count() as u64)
    }

    pub(crate) fn touch(&self, offset: usize, len: usize) {
        for page in self.pages(offset as i64, len) {
            // SAFETY: within our mapping, below the end of the file.
            unsafe { self.start.cast::<u8>().wrapping_add(page * page_size()).read_volatile() };
        }
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        if self.len != 0 {
            // SAFETY: our own mapping.
            unsafe { libc::munmap(self.start, self.len) };
        }
    }
}
