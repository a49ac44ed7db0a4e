//! Open descriptors of a process, from /proc.

use std::{
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::PathBuf,
};

use crate::util::escape::escape;

/// A descriptor open with O_DIRECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectFd {
    pub fd: String,
    /// Escaped.
    pub path: String,
}

/// The descriptors of a process that are open with O_DIRECT now.
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

/// The descriptor of an inode: its path for opening, and its name for showing.
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

/// True if fdinfo's flags (octal) have O_DIRECT, and the descriptor is no pipe in packet mode.
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
