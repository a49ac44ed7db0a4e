//! The file of a recording, with space reserved for its end.
//!
//! When the disk is full, the block that records this needs space, too. So with each block,
//! fallocate(2) reserves additional space beyond the end of the file, and the last block is written
//! there.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsRawFd as _,
};

/// Bytes reserved for the last totals and the end.
pub(super) const RESERVE: u64 = 64 << 10;
/// Bytes of the reserve that the totals must leave for the end.
pub(super) const FOR_END: u64 = 4 << 10;

/// A file that is only appended to, with space reserved beyond its end.
pub(super) struct Reserved {
    file: File,
    /// Length of the file in bytes.
    len: u64,
    /// Bytes to reserve beyond the end.
    keep: u64,
    /// False if the file system does not support it (FAT, NFS before 4.2).
    reserves: bool,
}

impl Reserved {
    /// Wraps an empty file.
    pub(super) const fn new(file: File) -> Self {
        Self { file, len: 0, keep: RESERVE, reserves: true }
    }

    /// Sets the number of bytes to reserve from now on.
    pub(super) fn keep(&mut self, bytes: u64) {
        self.keep = bytes;
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Truncates the file to `len`. If it is not longer, the reserved space is kept.
    pub(super) fn cut(&mut self, len: u64) -> io::Result<()> {
        if len < self.len {
            self.file.set_len(len)?;
            self.len = len;
        }
        Ok(())
    }

    /// Returns the reserved space to the file system.
    pub(super) fn release(&self) {
        let _ = self.file.set_len(self.len);
    }

    /// Reserves space for `bytes` more bytes and for the reserve, or fails before anything is
    /// written.
    fn room(&mut self, bytes: u64) -> io::Result<()> {
        let wanted = bytes.saturating_add(self.keep);
        if self.len.saturating_add(wanted) > largest() {
            return Err(io::Error::from_raw_os_error(libc::EFBIG));
        }
        while self.reserves {
            match reserve(&self.file, self.len, wanted) {
                Ok(()) => break,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG | libc::EIO) => {
                        return Err(error);
                    }
                    _ => self.reserves = false,
                },
            }
        }
        Ok(())
    }
}

impl Write for Reserved {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.room(bytes.len() as u64)?;
        let written = self.file.write(bytes)?;
        self.len += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Allocates blocks beyond the end of a file without changing its size.
fn reserve(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    let number =
        |n: u64| libc::off_t::try_from(n).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG));
    let (from, bytes) = (number(from)?, number(bytes)?);
    // SAFETY: plain system call on a descriptor that is open.
    match unsafe { libc::fallocate(file.as_raw_fd(), libc::FALLOC_FL_KEEP_SIZE, from, bytes) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The limit RLIMIT_FSIZE. It is checked here because fallocate(2) does not check it if the file
/// size stays the same, and a write beyond it raises SIGXFSZ.
fn largest() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: fills the struct that it is given; a failure leaves the struct unchanged.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    limit.rlim_cur
}

/// Blocks SIGXFSZ in this thread, so that a limit that is set during recording is an error (EFBIG)
/// and does not end the process.
pub(super) fn block_signal() {
    // SAFETY: an all-zero sigset_t is valid, and sigemptyset initialises it. Only the mask of this
    // thread changes, and the thread executes no other program.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGXFSZ);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Why writing failed, in the words of `report`: "it ended because …".
pub(super) fn reason(error: &anyhow::Error) -> String {
    let code = error.chain().find_map(|e| e.downcast_ref::<io::Error>()?.raw_os_error());
    match code {
        Some(libc::ENOSPC) => "the disk was full (ENOSPC)".to_owned(),
        Some(libc::EDQUOT) => "the disk quota was used up (EDQUOT)".to_owned(),
        Some(libc::EFBIG) => {
            "the file may not grow further (EFBIG: `ulimit -f`, or a limit of its file system)"
                .to_owned()
        }
        Some(libc::EIO) => "the disk failed (EIO)".to_owned(),
        _ => format!("writing failed: {error:#}"),
    }
}
