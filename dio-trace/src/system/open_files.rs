//! Finds open file descriptors of a process in /proc.

use std::{
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::PathBuf,
};

use crate::util::escape::escape;

/// A file descriptor that is open with O_DIRECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectFd {
    pub fd: String,
    /// Escaped path.
    pub path: String,
}

/// The descriptors of a process that are currently open with O_DIRECT, by ascending number.
#[must_use]
pub fn direct_fds(pid: u32) -> Vec<DirectFd> {
    let mut found: Vec<_> = numbers(pid)
        .filter(|fd| {
            is_direct(&fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap_or_default())
        })
        .filter_map(|fd| {
            let path = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
            Some(DirectFd { fd, path: escape(path.as_os_str().as_bytes()) })
        })
        .collect();
    found.sort_by_key(|d| d.fd.parse::<u32>().unwrap_or(u32::MAX));
    found
}

/// Finds a descriptor of the process by inode number. Returns its /proc path, for opening, and the
/// escaped name of its file, for display.
pub(crate) fn find(pid: u32, ino: u64) -> Option<(PathBuf, String)> {
    numbers(pid).find_map(|fd| {
        let link = PathBuf::from(format!("/proc/{pid}/fd/{fd}"));
        (fs::metadata(&link).ok()?.ino() == ino).then_some(())?;
        let name = fs::read_link(&link).ok()?;
        Some((link, escape(name.as_os_str().as_bytes())))
    })
}

fn numbers(pid: u32) -> impl Iterator<Item = String> {
    let dir = fs::read_dir(format!("/proc/{pid}/fd"));
    dir.into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok())
}

/// True if the flags (octal) in /proc/PID/fdinfo/FD contain O_DIRECT. A pipe in packet mode has it,
/// too.
fn is_direct(fdinfo: &str) -> bool {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"));
    flags
        .and_then(|octal| u32::from_str_radix(octal.trim(), 8).ok())
        .is_some_and(|flags| flags & libc::O_DIRECT as u32 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_octal() {
        assert!(is_direct("pos:\t0\nflags:\t0140000\nmnt_id:\t29\n"));
        assert!(!is_direct("pos:\t0\nflags:\t0100002\n"));
        assert!(!is_direct("garbage"));
    }

    #[test]
    fn a_gone_process_has_none() {
        assert_eq!(direct_fds(u32::MAX), []);
        assert_eq!(find(u32::MAX, 1), None);
    }
}
