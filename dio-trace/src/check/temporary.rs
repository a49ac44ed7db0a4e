//! A temporary file without a name: the kernel frees it when it is closed, even if the process is
//! killed.

use std::{
    fs::{self, File, OpenOptions},
    io, mem,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    ptr,
};

/// Creates a file without a name in `folder`, open with O_DIRECT.
pub(super) fn temporary(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = libc::O_TMPFILE | libc::O_EXCL | libc::O_DIRECT; // O_EXCL: cannot be linked later
    options.read(true).write(true).mode(0o600).custom_flags(flags);
    options.open(folder).or_else(|error| match error.raw_os_error() {
        // Not every file system supports O_TMPFILE. EINVAL may reject either that or O_DIRECT.
        Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL) => named(folder),
        _ => Err(error),
    })
}

/// Creates a file with a name and removes the name at once. Signals are blocked meanwhile, so that
/// only SIGKILL can leave the name behind.
fn named(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!(".dio-trace-check-{}", std::process::id()));
    let _blocked = BlockedSignals::new();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_DIRECT | libc::O_NOFOLLOW)
        .open(&path);
    // If the open rejects O_DIRECT, the file was created all the same (fs/open.c:do_dentry_open).
    let made = file.is_ok() || file.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EINVAL));
    if made {
        let _ = fs::remove_file(&path);
    }
    file
}

/// Blocks all signals in this thread until it is dropped.
struct BlockedSignals {
    before: libc::sigset_t,
}

impl BlockedSignals {
    fn new() -> Self {
        // SAFETY: all-zero is a valid sigset_t, and the calls fill both sets.
        unsafe {
            let (mut all, mut before) = (mem::zeroed(), mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self { before }
        }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        // SAFETY: restores the mask that `new` saved.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn temporary_files_leave_no_name() {
        let folder = tempfile::tempdir().unwrap();
        for made in [temporary(folder.path()), named(folder.path())] {
            // tmpfs accepts O_DIRECT since 6.6.
            assert!(made.is_ok() || made.unwrap_err().raw_os_error() == Some(libc::EINVAL));
            assert_eq!(entries(folder.path()), 0);
        }
    }

    #[test]
    fn signals_are_blocked_until_drop() {
        fn blocked() -> bool {
            // SAFETY: as in `BlockedSignals::new`; SIG_BLOCK without a set changes nothing.
            unsafe {
                let mut now = mem::zeroed();
                libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut now);
                libc::sigismember(&raw const now, libc::SIGTERM) == 1
            }
        }
        assert!(!blocked());
        let guard = BlockedSignals::new();
        assert!(blocked());
        drop(guard);
        assert!(!blocked());
    }
}
