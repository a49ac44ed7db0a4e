//! Helpers that make, open and inspect the scenarios' files.
use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::Path,
};

use anyhow::{Context, Result};

/// Opens a file with O_DIRECT for reading.
pub(crate) fn open_direct(path: &Path) -> Result<File> {
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path);
    file.with_context(|| format!("cannot open {}", path.display()))
}

/// Writes a file's pages back and drops them from the page cache (fadvise(2), DONTNEED).
pub(crate) fn drop_pages(file: &File) -> io::Result<()> {
    file.sync_all()?;
    // SAFETY: no memory is involved.
    match unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// Pages of a file's range that are dirty or being written back (cachestat(2), since Linux 6.5);
/// `None` where the kernel lacks the call.
pub(crate) fn unwritten(file: &File, offset: i64, len: usize) -> Option<u64> {
    /// The system call's number on x86-64 and arm64, which the libc crate lacks.
    const CACHESTAT: libc::c_long = 451;
    let range = [offset as u64, len as u64];
    // Cached, dirty, being written back, evicted, recently evicted.
    let mut pages = [0_u64; 5];
    // SAFETY: both structs are arrays of u64 of these lengths (include/uapi/linux/mman.h).
    let status = unsafe {
        libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), pages.as_mut_ptr(), 0)
    };
    (status == 0).then(|| pages[1] + pages[2])
}

/// Makes a file of `len` bytes that is on disk and has no cached pages, which would be a finding of
/// the first direct write.
pub(crate) fn fill(path: &Path, len: usize) -> Result<()> {
    let make = || {
        fs::write(path, vec![b'.'; len])?;
        drop_pages(&File::open(path)?)
    };
    make().with_context(|| format!("cannot make {}", path.display()))
}
