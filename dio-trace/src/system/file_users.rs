//! The processes that have a file open or mapped, from /proc.

use std::{
    collections::HashSet,
    ffi::OsStr,
    fs::{self, Metadata},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    system::{
        open_files::{flag_words, flags, is_direct, numbers},
        processes,
    },
    util::escape::escape,
};

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

/// What processes have open and mapped, as far as /proc may be read.
pub struct OpenFiles {
    /// Process, descriptor, and the target of its link.
    descriptors: Vec<(u32, String, PathBuf)>,
    /// Process, range of addresses, inode number and path, once for each process and file.
    mappings: Vec<(u32, String, u64, PathBuf)>,
}

impl OpenFiles {
    /// Looks through all processes but this one.
    #[must_use]
    pub fn now() -> Self {
        let (mut descriptors, mut mappings) = (Vec::new(), Vec::new());
        for pid in processes::ids().filter(|pid| *pid != std::process::id()) {
            descriptors.extend(numbers(pid).filter_map(|fd| {
                let target = fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok()?;
                Some((pid, fd, target))
            }));
            let maps = fs::read(format!("/proc/{pid}/maps")).unwrap_or_default();
            let mut seen = HashSet::new();
            for (range, ino, path) in maps.split(|byte| *byte == b'\n').filter_map(mapping) {
                if seen.insert((ino, path.clone())) {
                    mappings.push((pid, range, ino, path));
                }
            }
        }
        Self { descriptors, mappings }
    }

    /// The processes that have this file or block device open or mapped, those without O_DIRECT first.
    ///
    /// Only links with the same file name are followed, so that no other file is touched (its server
    /// may be gone); what a process has open by another hard link is not found.
    #[must_use]
    pub fn users(&self, path: &Path, of: &Metadata) -> Vec<OpenUser> {
        let wanted = Wanted { path, of };
        let open = self.descriptors.iter().filter_map(|(pid, fd, target)| {
            let is = wanted.may_be(target) && wanted.is(Path::new(&format!("/proc/{pid}/fd/{fd}")));
            if is { descriptor(*pid, fd) } else { None }
        });
        let mapped = self.mappings.iter().filter(|(pid, range, ino, target)| {
            *ino == of.ino() && wanted.may_be(target) && wanted.is_mapped(*pid, range, target)
        });
        let mapped = mapped.map(|(pid, ..)| OpenUser {
            pid: *pid,
            comm: comm(*pid),
            fd: None,
            flags: "mmap".to_owned(),
            direct: false,
        });
        let mut users: Vec<OpenUser> = open.chain(mapped).collect();
        users.sort_by_key(|user| (user.direct, user.pid, user.fd));
        users
    }
}

/// A file that is looked for.
struct Wanted<'a> {
    path: &'a Path,
    of: &'a Metadata,
}

impl Wanted<'_> {
    /// True if a path in /proc may be the file's, by its name.
    fn may_be(&self, target: &Path) -> bool {
        if self.of.file_type().is_block_device() {
            return target.starts_with("/dev");
        }
        let name = target.file_name().map_or(&[][..], OsStr::as_bytes);
        let name = name.strip_suffix(b" (deleted)").unwrap_or(name);
        self.path.file_name().is_some_and(|own| own.as_bytes() == name)
    }

    /// True if this leads to the file.
    fn is(&self, link: &Path) -> bool {
        let Ok(other) = fs::metadata(link) else { return false };
        if self.of.file_type().is_block_device() {
            return other.file_type().is_block_device() && other.rdev() == self.of.rdev();
        }
        (other.dev(), other.ino()) == (self.of.dev(), self.of.ino())
    }

    /// True if a mapping at this range is of the file: by its link, or, where links of mappings may
    /// not be read (they need CAP_CHECKPOINT_RESTORE), by its path.
    fn is_mapped(&self, pid: u32, range: &str, target: &Path) -> bool {
        let link = format!("/proc/{pid}/map_files/{range}");
        match fs::symlink_metadata(&link) {
            Ok(_) => self.is(Path::new(&link)),
            Err(_) => target == self.path,
        }
    }
}

fn descriptor(pid: u32, fd: &str) -> Option<OpenUser> {
    let flags = flags(pid, fd)?;
    Some(OpenUser {
        pid,
        comm: comm(pid),
        fd: fd.parse().ok(),
        flags: flag_words(flags),
        direct: is_direct(flags),
    })
}

/// Range, inode number and path of a line of /proc/PID/maps, "range mode offset dev inode path"
/// (proc(5)), if it is of a file.
fn mapping(line: &[u8]) -> Option<(String, u64, PathBuf)> {
    let slash = line.iter().position(|byte| *byte == b'/')?;
    let head = std::str::from_utf8(line.get(..slash)?).ok()?;
    let mut fields = head.split_ascii_whitespace();
    let range = fields.next()?.to_owned();
    let ino = fields.nth(3)?.parse().ok()?;
    Some((range, ino, PathBuf::from(OsStr::from_bytes(&line[slash..]))))
}

fn comm(pid: u32) -> String {
    let name = processes::one(pid).map(|process| process.comm).unwrap_or_default();
    escape(name.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::{fs::File, process::Command};

    use super::*;

    #[test]
    fn open_descriptors_of_another_process_are_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("used.db");
        fs::write(&path, "x").unwrap();
        let input = File::open(&path).unwrap();
        let output = File::options().append(true).open(&path).unwrap();
        let mut child =
            Command::new("sleep").arg("60").stdin(input).stdout(output).spawn().unwrap();
        // A file of the same name elsewhere is another one.
        fs::create_dir(folder.path().join("other")).unwrap();
        let other = folder.path().join("other/used.db");
        fs::write(&other, "").unwrap();
        let open = OpenFiles::now();
        let of = |path: &Path| -> Vec<(u32, Option<u32>, String)> {
            let users = open.users(path, &fs::metadata(path).unwrap()).into_iter();
            users.map(|user| (user.pid, user.fd, user.flags)).collect()
        };
        let (found, none) = (of(&path), of(&other));
        child.kill().unwrap();
        child.wait().unwrap();
        let pid = child.id();
        let wanted =
            [(pid, Some(0), "O_RDONLY".to_owned()), (pid, Some(1), "O_WRONLY|O_APPEND".to_owned())];
        assert_eq!(found, wanted);
        assert_eq!(none, []);
    }

    #[test]
    fn a_line_of_maps_is_read() {
        let line = b"7f0-7f1 r--s 00000000 fe:00 4711    /data/my file (deleted)";
        let path = PathBuf::from("/data/my file (deleted)");
        assert_eq!(mapping(line), Some(("7f0-7f1".to_owned(), 4711, path)));
        assert_eq!(mapping(b"7f0-7f1 rw-p 00000000 00:00 0"), None);
        assert_eq!(mapping(b"7f0-7f1 rw-p 00000000 00:00 0   [stack]"), None);
    }
}
