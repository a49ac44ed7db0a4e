//! The processes that have a file open or mapped, from /proc.

use std::{
    ffi::OsStr,
    fs::{self, Metadata},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
};

use serde::Serialize;

use crate::{
    system::{
        open_files::{flag_words, flags_of, numbers},
        processes,
    },
    util::escape::escape,
};

/// Most users that are listed.
const MAX_USERS: usize = 64;

/// A process that has a file open or mapped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OpenUser {
    pub pid: u32,
    pub comm: String,
    /// The descriptor; `None` for a mapping.
    pub fd: Option<u32>,
    /// The descriptor's flags as open(2) names them; of a mapping `mmap`.
    pub flags: String,
    /// True if the descriptor is open with O_DIRECT.
    pub direct: bool,
}

/// The processes that have this file or block device open or mapped, as far as /proc may be read. A
/// file is also compared by its name, so that no descriptor on another file system is touched (a
/// server may be gone); one that a process has open by another hard link is not found.
#[must_use]
pub fn users(path: &Path, of: &Metadata) -> Vec<OpenUser> {
    let wanted = Wanted { name: path.file_name(), of };
    let found = processes::ids().flat_map(|pid| wanted.by(pid));
    found.take(MAX_USERS).collect()
}

/// A file that is looked for.
struct Wanted<'a> {
    name: Option<&'a OsStr>,
    of: &'a Metadata,
}

impl Wanted<'_> {
    /// What a process has of it.
    fn by(&self, pid: u32) -> Vec<OpenUser> {
        let mut users: Vec<OpenUser> =
            numbers(pid).filter_map(|fd| self.descriptor(pid, &fd)).collect();
        users.sort_by_key(|user| user.fd);
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        if maps.lines().any(|line| self.is_mapped(line)) {
            let flags = "mmap".to_owned();
            users.push(OpenUser { pid, comm: comm(pid), fd: None, flags, direct: false });
        }
        users
    }

    fn descriptor(&self, pid: u32, fd: &str) -> Option<OpenUser> {
        let link = format!("/proc/{pid}/fd/{fd}");
        let target = fs::read_link(&link).ok()?;
        if !self.may_be(&target) || !self.is(&fs::metadata(&link).ok()?) {
            return None;
        }
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
        let flags = flags_of(&info)?;
        Some(OpenUser {
            pid,
            comm: comm(pid),
            fd: fd.parse().ok(),
            flags: flag_words(flags),
            direct: flags & libc::O_DIRECT as u32 != 0,
        })
    }

    /// True if the target of a link in /proc/PID/fd may be the file, by its name.
    fn may_be(&self, target: &Path) -> bool {
        if self.of.file_type().is_block_device() {
            return target.starts_with("/dev");
        }
        let name = target.file_name().map_or(&[][..], OsStr::as_bytes);
        let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
        self.name.is_some_and(|own| own.as_bytes() == name)
    }

    fn is(&self, other: &Metadata) -> bool {
        if self.of.file_type().is_block_device() {
            return other.file_type().is_block_device() && other.rdev() == self.of.rdev();
        }
        (other.dev(), other.ino()) == (self.of.dev(), self.of.ino())
    }

    /// True if a line of /proc/PID/maps is a mapping of the file: "range mode offset dev inode path"
    /// (proc(5)). The device there is the superblock's, and not compared.
    fn is_mapped(&self, line: &str) -> bool {
        let mut fields = line.split_ascii_whitespace().skip(4);
        let ino = fields.next().and_then(|ino| ino.parse::<u64>().ok());
        let path = line.split_once('/').map(|(_, path)| Path::new(path));
        ino == Some(self.of.ino()) && path.is_some_and(|path| self.may_be(path))
    }
}

fn comm(pid: u32) -> String {
    let name = processes::one(pid).map(|process| process.comm).unwrap_or_default();
    escape(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use super::*;

    #[test]
    fn open_descriptors_and_mappings_of_this_process_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("used.db");
        let mut file = File::options().create_new(true).append(true).open(&path).unwrap();
        file.write_all(&[0; 4096]).unwrap();
        let reader = File::open(&path).unwrap();
        let mine = |path: &Path| -> Vec<(Option<u32>, String)> {
            let found = users(path, &fs::metadata(path).unwrap());
            let own = found.into_iter().filter(|user| user.pid == std::process::id());
            own.map(|user| (user.fd, user.flags)).collect()
        };
        let flags: Vec<String> = mine(&path).into_iter().map(|(_, flags)| flags).collect();
        assert_eq!(flags, ["O_WRONLY|O_APPEND", "O_RDONLY"]);
        // A file of the same name elsewhere is another one.
        fs::create_dir(folder.path().join("other")).unwrap();
        let other = folder.path().join("other/used.db");
        fs::write(&other, "").unwrap();
        assert_eq!(mine(&other), []);
        drop(reader);
        assert_eq!(mine(&path).len(), 1);
    }

    #[test]
    fn a_line_of_maps_is_compared_by_inode_and_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("my file");
        fs::write(&path, "x").unwrap();
        let of = fs::metadata(&path).unwrap();
        let wanted = Wanted { name: path.file_name(), of: &of };
        let line = |ino: u64, path: &str| format!("7f0-7f1 r--s 0 fe:00 {ino}    {path}");
        assert!(wanted.is_mapped(&line(of.ino(), "/data/my file")));
        assert!(wanted.is_mapped(&line(of.ino(), "/data/my file (deleted)")));
        assert!(!wanted.is_mapped(&line(of.ino() + 1, "/data/my file")));
        assert!(!wanted.is_mapped(&line(of.ino(), "/data/file")));
        assert!(!wanted.is_mapped("7f0-7f1 rw-p 0 00:00 0 "));
    }
}
