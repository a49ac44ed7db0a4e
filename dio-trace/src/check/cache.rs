//! Counts the cached pages of a file range with cachestat(2) and mincore(2), and the pages that the
//! whole system dirties with /proc/vmstat.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    ptr,
};

use crate::{
    kernel::page_size,
    system::file_system::{is_stacked, may_lie_elsewhere},
};

/// Number of pages of the range that are in the page cache; `None` if the kernel does not report it
/// to this process.
pub(super) fn resident(file: &File, offset: u64, len: usize) -> Option<usize> {
    Lookout::over(file, offset, len)?.pages()
}

/// A range of a file whose cached pages can be counted, repeatedly and from any thread.
///
/// cachestat(2) queries the file's own mapping, which has no pages if the file is stacked on a
/// lower file (`file->f_mapping`, mm/filemap.c). mincore(2) queries the mapping that mmap
/// establishes, which is the lower file's (fs/overlayfs/file.c:ovl_mmap). Where both may have
/// pages, the greater count is used.
pub(super) struct Lookout<'a> {
    file: &'a File,
    offset: u64,
    len: usize,
    by_cachestat: bool,
    map: Option<Mapping>,
}

impl<'a> Lookout<'a> {
    /// `None` if the kernel does not report which pages of this file are cached.
    pub(super) fn over(file: &'a File, offset: u64, len: usize) -> Option<Self> {
        let by_cachestat = cachestat(file, offset, len).is_some();
        let map = if by_cachestat && !may_lie_elsewhere(file) {
            None
        } else {
            Mapping::new(file, offset, len).ok().flatten()
        };
        let knows = map.is_some() || (by_cachestat && !is_stacked(file));
        knows.then_some(Self { file, offset, len, by_cachestat, map })
    }

    /// Number of pages that are cached now; `None` if a query fails.
    pub(super) fn pages(&self) -> Option<usize> {
        let mapped = self.map.as_ref().map(|map| map.resident().ok());
        let own = self.by_cachestat.then(|| cachestat(self.file, self.offset, self.len));
        // If one query starts to fail, the other query's count may be too low.
        match (own, mapped) {
            (Some(own), Some(mapped)) => Some(own?.max(mapped?)),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => None,
        }
    }
}

/// Calls cachestat(2), which exists since 6.5 and has the same number on all architectures.
fn cachestat(file: &File, offset: u64, len: usize) -> Option<usize> {
    const SYS_CACHESTAT: libc::c_long = 451;
    let range = [offset, len as u64];
    // nr_cache, nr_dirty, nr_writeback, nr_evicted, nr_recently_evicted
    let mut counts = [0u64; 5];
    // SAFETY: the kernel reads two and writes five 64-bit words.
    let failed = unsafe {
        libc::syscall(SYS_CACHESTAT, file.as_raw_fd(), range.as_ptr(), counts.as_mut_ptr(), 0)
    } != 0;
    (!failed).then_some(counts[0] as usize)
}

/// A mapping of a file whose memory is never accessed. mmap(2) updates the file's access time
/// unless the file was opened with O_NOATIME.
struct Mapping {
    address: usize,
    len: usize,
}

impl Mapping {
    /// `None` if this process lacks permission: mincore(2) then reports every page as resident
    /// (mm/mincore.c:can_do_mincore).
    fn new(file: &File, offset: u64, len: usize) -> io::Result<Option<Self>> {
        if !may_ask(file)? {
            return Ok(None);
        }
        // SAFETY: makes a new mapping and replaces none; the kernel checks the arguments.
        let map = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if map == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Some(Self { address: map.addr(), len }))
    }

    /// Number of mapped pages that are in the page cache, by mincore(2).
    fn resident(&self) -> io::Result<usize> {
        let mut pages = vec![0u8; self.len.div_ceil(page())];
        let map = ptr::without_provenance_mut(self.address);
        // SAFETY: `pages` has one byte per page of the mapping, which exists as long as `self`.
        let failed = unsafe { libc::mincore(map, self.len, pages.as_mut_ptr()) } != 0;
        if failed {
            return Err(io::Error::last_os_error());
        }
        Ok(pages.iter().filter(|page| **page & 1 != 0).count())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: unmaps the mapping that `new` made, to which there are no references.
        unsafe { libc::munmap(ptr::without_provenance_mut(self.address), self.len) };
    }
}

/// Whether mincore(2) answers this process: root, the file's owner, or a user with write
/// permission.
fn may_ask(file: &File) -> io::Result<bool> {
    // SAFETY: no preconditions, cannot fail.
    let me = unsafe { libc::geteuid() };
    let own = format!("/proc/self/fd/{}\0", file.as_raw_fd());
    // SAFETY: passes a NUL-terminated path.
    let writes = || unsafe { libc::access(own.as_ptr().cast(), libc::W_OK) } == 0;
    Ok(me == 0 || file.metadata()?.uid() == me || writes())
}

/// Number of pages dirtied in the page cache since boot, system-wide. Each CPU may hold back up to
/// [`HELD_BACK`] pages that are not yet in this sum (mm/vmstat.c).
pub(super) fn dirtied() -> Option<u64> {
    let counters = fs::read_to_string("/proc/vmstat").ok()?;
    counters.lines().find_map(|line| line.strip_prefix("nr_dirtied ")?.trim().parse().ok())
}

/// The most that a CPU holds back of a vmstat counter (mm/vmstat.c:calculate_normal_threshold).
pub(super) const HELD_BACK: u64 = 125;

/// Bytes in a page.
pub(super) fn page() -> usize {
    page_size() as usize
}

/// Writes back a file that this process created, and drops its clean pages.
pub(super) fn drop_pages(file: &File) -> io::Result<()> {
    file.sync_all()?;
    // SAFETY: passes an open descriptor and no pointers.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn pages_are_counted() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![1; 4 * page()]).unwrap();
        assert_eq!(resident(&file, 0, 4 * page()), Some(4));
        let map = Mapping::new(&file, 0, 2 * page()).unwrap().unwrap();
        assert_eq!(map.resident().unwrap(), 2);
        assert!(dirtied().is_some());
    }
}
