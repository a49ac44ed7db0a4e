//! What the page cache holds of a file, and what was made dirty in it.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    ptr,
};

use crate::enrich::is_stacked;

/// Pages of the range that are in the page cache; `None` if the kernel does not say it to us.
///
/// Of a file that lies on another one cachestat(2) asks for pages of its own, of which it has none
/// (`file->f_mapping`, mm/filemap.c); a mapping is one of the file below (fs/overlayfs/file.c:ovl_mmap).
pub(super) fn resident(file: &File, offset: u64, len: usize) -> Option<usize> {
    let mapped = mincore(file, offset, len).ok().flatten();
    match cachestat(file, offset, len) {
        Some(own) if mapped.is_some() || !is_stacked(file) => Some(own.max(mapped.unwrap_or(0))),
        _ => mapped,
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

/// mincore(2) on a mapping that is never touched. It says "all" to those who may not know
/// (mm/mincore.c:can_do_mincore).
fn mincore(file: &File, offset: u64, len: usize) -> io::Result<Option<usize>> {
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
    let mut pages = vec![0u8; len.div_ceil(page())];
    // SAFETY: one byte for each page of a mapping that exists.
    let failed = unsafe { libc::mincore(map, len, pages.as_mut_ptr()) } != 0;
    let error = io::Error::last_os_error();
    // SAFETY: the mapping made above, used by nobody else.
    unsafe { libc::munmap(map, len) };
    if failed {
        return Err(error);
    }
    Ok(Some(pages.iter().filter(|page| **page & 1 != 0).count()))
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
/// up (mm/vmstat.c: up to 125 of each CPU are missing).
pub(super) fn dirtied() -> Option<u64> {
    let counters = fs::read_to_string("/proc/vmstat").ok()?;
    counters.lines().find_map(|line| line.strip_prefix("nr_dirtied ")?.trim().parse().ok())
}

/// Bytes of a page.
pub(super) fn page() -> usize {
    // SAFETY: no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Writes a file back and drops its clean pages.
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
        let path = std::env::temp_dir().join(format!("dio-trace-cache-{}", std::process::id()));
        let mut file = File::options().create_new(true).read(true).write(true).open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        file.write_all(&vec![1; 4 * page()]).unwrap();
        assert_eq!(resident(&file, 0, 4 * page()), Some(4));
        assert_eq!(mincore(&file, 0, 2 * page()).unwrap(), Some(2));
        assert!(dirtied().is_some());
    }
}
