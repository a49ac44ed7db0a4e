//! The file of a recording, with room kept behind it for its end.
//!
//! On a full disk the block that says so needs room itself. So the file system is asked for more
//! than each block takes: what is kept lies behind the file's end, and its last block goes there.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsRawFd as _,
};

/// Bytes kept: for the last totals, and the end behind them.
pub(super) const RESERVE: u64 = 64 << 10;
/// What the totals leave of it.
pub(super) const FOR_END: u64 = 4 << 10;

/// A file that is only appended to.
pub(super) struct Reserved {
    file: File,
    len: u64,
    keep: u64,
    /// False where the file system cannot (FAT, NFS before 4.2).
    reserves: bool,
}

impl Reserved {
    /// Of an empty file.
    pub(super) const fn new(file: File) -> Self {
        Self { file, len: 0, keep: RESERVE, reserves: true }
    }

    /// From now on so many bytes are kept.
    pub(super) fn keep(&mut self, bytes: u64) {
        self.keep = bytes;
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Ends the file there. Where nothing is behind it, what is kept stays.
    pub(super) fn cut(&mut self, len: u64) -> io::Result<()> {
        if len < self.len {
            self.file.set_len(len)?;
            self.len = len;
        }
        Ok(())
    }

    /// Hands what is kept back to the file system.
    pub(super) fn release(&self) {
        let _ = self.file.set_len(self.len);
    }

    /// Makes sure of room for so many bytes and for what is kept, or fails before any are written.
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

/// Asks for blocks behind the end of a file, which stays where it is.
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

/// RLIMIT_FSIZE: the kernel does not ask for it where the size stays, and a write past it would be
/// a signal first.
fn largest() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: fills the struct that it is given; a failure leaves it as it is.
    unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    limit.rlim_cur
}

/// A limit that is set while it writes is an error (EFBIG) in this thread, and not its end.
pub(super) fn block_signal() {
    // SAFETY: an all-zero sigset_t is valid, and sigemptyset initialises it; the mask is of this
    // thread alone, which executes no other program.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGXFSZ);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// Why no more could be written, as `report` says it: "it ended because …".
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
