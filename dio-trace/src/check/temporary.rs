//! A file that is gone once it is closed, whoever ends the process.

use std::{
    fs::{self, File, OpenOptions},
    io, mem,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    ptr,
};

/// A new file without a name, open with O_DIRECT.
pub(super) fn temporary(folder: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let flags = libc::O_TMPFILE | libc::O_EXCL | libc::O_DIRECT; // O_EXCL: it gets no name later
    options.read(true).write(true).mode(0o600).custom_flags(flags);
    options.open(folder).or_else(|error| match error.raw_os_error() {
        // Not every file system has files without a name; EINVAL may mean that or O_DIRECT.
        Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL) => named(folder),
        _ => Err(error),
    })
}

/// One with a name, for as short as can be: no signal but SIGKILL comes in between.
fn named(folder: &Path) -> io::Result<File> {
    let path = folder.join(format!(".dio-trace-check-{}", std::process::id()));
    let _quiet = Quiet::new();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_DIRECT | libc::O_NOFOLLOW)
        .open(&path);
    // A refused O_DIRECT leaves the file behind that it had made (fs/open.c:do_dentry_open).
    let made = file.is_ok() || file.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::EINVAL));
    if made {
        let _ = fs::remove_file(&path);
    }
    file
}

/// Holds signals back from this thread while it lives.
struct Quiet {
    before: libc::sigset_t,
}

impl Quiet {
    fn new() -> Self {
        // SAFETY: all-zero is a value of this plain type, and the calls fill both sets.
        unsafe {
            let (mut all, mut before) = (mem::zeroed(), mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self { before }
        }
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // SAFETY: the set that `new` was given.
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
    fn neither_kind_has_a_name() {
        let folder = tempfile::tempdir().unwrap();
        for made in [temporary(folder.path()), named(folder.path())] {
            // tmpfs takes O_DIRECT from 6.6 on.
            assert!(made.is_ok() || made.unwrap_err().raw_os_error() == Some(libc::EINVAL));
            assert_eq!(entries(folder.path()), 0);
        }
    }

    #[test]
    fn signals_are_held_back_and_come_later() {
        fn blocked() -> bool {
            // SAFETY: as in `Quiet::new`; SIG_BLOCK without a set changes nothing.
            unsafe {
                let mut now = mem::zeroed();
                libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut now);
                libc::sigismember(&raw const now, libc::SIGTERM) == 1
            }
        }
        assert!(!blocked());
        let quiet = Quiet::new();
        assert!(blocked());
        drop(quiet);
        assert!(!blocked());
    }
}
