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
        .filter(|fd| flags(pid, fd).is_some_and(is_direct))
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

/// The numbers of the descriptors of a process.
pub(crate) fn numbers(pid: u32) -> impl Iterator<Item = String> {
    let dir = fs::read_dir(format!("/proc/{pid}/fd"));
    dir.into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok())
}

/// True if the flags of a descriptor contain O_DIRECT. A pipe in packet mode has it, too.
pub(crate) const fn is_direct(flags: u32) -> bool {
    flags & libc::O_DIRECT as u32 != 0
}

/// The flags of a descriptor.
pub(crate) fn flags(pid: u32, fd: &str) -> Option<u32> {
    flags_of(&fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?)
}

/// The flags in /proc/PID/fdinfo/FD, which has them in octal.
fn flags_of(fdinfo: &str) -> Option<u32> {
    let flags = fdinfo.lines().find_map(|line| line.strip_prefix("flags:"))?;
    u32::from_str_radix(flags.trim(), 8).ok()
}

/// The flags of an open file as open(2) names them, as far as they bear on I/O.
#[must_use]
pub fn flag_words(flags: u32) -> String {
    let has = |flag: libc::c_int| flags & flag as u32 == flag as u32;
    let access = match flags as libc::c_int & libc::O_ACCMODE {
        libc::O_RDONLY => "O_RDONLY",
        libc::O_WRONLY => "O_WRONLY",
        _ => "O_RDWR",
    };
    let mut words = vec![access];
    let rest = [(libc::O_DIRECT, "O_DIRECT"), (libc::O_APPEND, "O_APPEND")];
    words.extend(rest.iter().filter(|(flag, _)| has(*flag)).map(|(_, word)| *word));
    if has(libc::O_SYNC) {
        words.push("O_SYNC");
    } else if has(libc::O_DSYNC) {
        words.push("O_DSYNC");
    }
    words.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_octal() {
        let direct = |fdinfo| flags_of(fdinfo).is_some_and(is_direct);
        assert!(direct("pos:\t0\nflags:\t0140000\nmnt_id:\t29\n"));
        assert!(!direct("pos:\t0\nflags:\t0100002\n"));
        assert!(!direct("garbage"));
    }

    #[test]
    fn flags_have_the_names_of_open() {
        let flags = (libc::O_RDWR | libc::O_DIRECT | libc::O_DSYNC) as u32;
        assert_eq!(flag_words(flags), "O_RDWR|O_DIRECT|O_DSYNC");
        assert_eq!(flag_words(libc::O_SYNC as u32), "O_RDONLY|O_SYNC");
        assert_eq!(flags_of("pos:\t0\nflags:\t0100001\n"), Some(0o100_001));
    }

    #[test]
    fn a_gone_process_has_none() {
        assert_eq!(direct_fds(u32::MAX), []);
        assert_eq!(find(u32::MAX, 1), None);
    }
}
