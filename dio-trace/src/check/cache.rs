//! What the page cache holds of a file.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    ptr,
};

use crate::system::file_system::{is_stacked, may_lie_elsewhere};

/// Pages of the range that are in the page cache; `None` if the kernel does not say it to us.
pub(super) fn resident(file: &File, offset: u64, len: usize) -> Option<usize> {
    Lookout::over(file, offset, len)?.pages()
}

/// A range of a file whose cached pages can be counted, repeatedly and from any thread.
///
/// cachestat(2) asks the file's own mapping, in which a file that lies on another one has no pages
/// (`file->f_mapping`, mm/filemap.c); mincore(2) asks the mapping that mmap gives, which is that of
/// the file below (fs/overlayfs/file.c:ovl_mmap). Where both may know, the greater count is taken.
pub(super) struct Lookout<'a> {
    file: &'a File,
    offset: u64,
    len: usize,
    by_cachestat: bool,
    map: Option<Mapping>,
}

impl<'a> Lookout<'a> {
    /// `None` if the kernel does not say what is cached of this file.
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

    /// Pages that are cached now.
    pub(super) fn pages(&self) -> Option<usize> {
        let mapped = self.map.as_ref().map(|map| map.resident().ok());
        let own = self.by_cachestat.then(|| cachestat(self.file, self.offset, self.len));
        // A way that no longer answers makes the other one incomplete.
        match (own, mapped) {
            (Some(own), Some(mapped)) => Some(own?.max(mapped?)),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => None,
        }
    }
}

/// cachestat(2), since 6.5; its number is the same everywhere.
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

/// A mapping of a file that is never touched. To make one renews the file's access time unless it
/// was opened with O_NOATIME.
struct Mapping {
    address: usize,
    len: usize,
}

impl Mapping {
    /// `None` if this process may not know: mincore(2) then says "all" (mm/mincore.c:can_do_mincore).
    fn new(file: &File, offset: u64, len: usize) -> io::Result<Option<Self>> {
        if !may_ask(file)? {
            return Ok(None);
        }
        // SAFETY: a new mapping, nothing is replaced; the kernel checks the rest.
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

    /// Pages of it in the page cache, by mincore(2).
    fn resident(&self) -> io::Result<usize> {
        let mut pages = vec![0u8; self.len.div_ceil(page())];
        let map = ptr::without_provenance_mut(self.address);
        // SAFETY: one byte for each page of a mapping that exists as long as `self`.
        let failed = unsafe { libc::mincore(map, self.len, pages.as_mut_ptr()) } != 0;
        if failed {
            return Err(io::Error::last_os_error());
        }
        Ok(pages.iter().filter(|page| **page & 1 != 0).count())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that `new` made, used by nobody else.
        unsafe { libc::munmap(ptr::without_provenance_mut(self.address), self.len) };
    }
}

/// Owners, root, and those who may write.
fn may_ask(file: &File) -> io::Result<bool> {
    // SAFETY: no preconditions, cannot fail.
    let me = unsafe { libc::geteuid() };
    let own = format!("/proc/self/fd/{}\0", file.as_raw_fd());
    // SAFETY: a NUL-terminated path.
    let writes = || unsafe { libc::access(own.as_ptr().cast(), libc::W_OK) } == 0;
    Ok(me == 0 || file.metadata()?.uid() == me || writes())
}

/// Pages made dirty in the page cache since boot, by anybody, as far as the CPUs have added them
/// up: up to [`HELD_BACK`] of each are missing (mm/vmstat.c).
pub(super) fn dirtied() -> Option<u64> {
    let counters = fs::read_to_string("/proc/vmstat").ok()?;
    counters.lines().find_map(|line| line.strip_prefix("nr_dirtied ")?.trim().parse().ok())
}

/// What a CPU keeps of a counter for itself at most (mm/vmstat.c:calculate_normal_threshold).
pub(super) const HELD_BACK: u64 = 125;

/// Bytes of a page.
pub(super) fn page() -> usize {
    // SAFETY: no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Writes a file of our own back and drops its clean pages.
pub(super) fn drop_pages(file: &File) -> io::Result<()> {
    file.sync_all()?;
    // SAFETY: advice on a descriptor of our own.
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
