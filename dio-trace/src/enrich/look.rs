//! A file that is looked at by its path, not met in a trace.

use std::{
    fs::File,
    mem::MaybeUninit,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
};

use dio_trace_common::verdict::magic;

use super::{FileInfo, Mixers, below_overlay, device, facts};
use crate::{
    escape::{self, escape},
    mounts::{self, Mount},
};

/// What is known of it.
pub(crate) struct Looked {
    pub(crate) file: FileInfo,
    /// What its file system is mounted from; of a device its own name.
    pub(crate) source: String,
    /// Mounted read-only, as a mount or as a file system.
    pub(crate) read_only: bool,
    /// `super_block.s_magic`
    pub(crate) magic: u32,
}

/// Looks at an open file; `path` is absolute. `None` if its mount cannot be found.
pub(crate) fn look(path: &Path, file: &File) -> Option<Looked> {
    let about = file.metadata().ok()?;
    let magic = facts::statfs(file)?.f_type as u32;
    if about.file_type().is_block_device() {
        let facts = facts::ask(file, None, None);
        let info = info(path, &about, facts, ("bdev", ""), None);
        let source = info.path.clone();
        let read_only = is_read_only_device(&info.dev);
        return Some(Looked { file: info, source, read_only, magic });
    }
    let mount = mount(path, file)?;
    let below = (mount.fs == "overlay").then(|| below_overlay(&mount)).flatten();
    let source = below.as_ref().unwrap_or(&mount).source.clone();
    let facts = facts::ask(file, Some(file), Some(&source));
    let below = below.map(|m| (m.fs, m.options));
    let info = info(path, &about, facts, (&mount.fs, &mount.options), below);
    let read_only = is_read_only(file);
    let magic = client_magic(&mount.fs).unwrap_or(magic);
    let source = escape(mount.source.as_bytes());
    Some(Looked { file: info, source, read_only, magic })
}

/// What the kernel has in `super_block.s_magic`: statfs(2) of a client may tell the server's type
/// (fs/9p/vfs_super.c:v9fs_statfs).
pub(crate) fn client_magic(fs: &str) -> Option<u32> {
    Some(match fs {
        "9p" => magic::V9FS,
        "nfs" | "nfs4" => magic::NFS,
        "ceph" => magic::CEPH,
        "cifs" => magic::CIFS,
        "smb3" => magic::SMB2,
        _ if fs.starts_with("fuse") || fs == "virtiofs" => magic::FUSE,
        _ => return None,
    })
}

/// True of a file that may lie on another one, in whose page cache its data is.
pub(crate) fn is_stacked(file: &File) -> bool {
    facts::statfs(file).is_none_or(|about| about.f_type == libc::OVERLAYFS_SUPER_MAGIC)
}

/// As a mount or as a file system (statvfs(3) tells both).
fn is_read_only(file: &File) -> bool {
    let mut about = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: fills one statvfs.
    let failed = unsafe { libc::fstatvfs(file.as_raw_fd(), about.as_mut_ptr()) } != 0;
    // SAFETY: all-zero is a value of this plain struct.
    !failed && unsafe { about.assume_init() }.f_flag & libc::ST_RDONLY != 0
}

/// As `blockdev --setro` makes one, or a medium.
fn is_read_only_device(dev: &str) -> bool {
    std::fs::read_to_string(format!("/sys/dev/block/{dev}/ro")).is_ok_and(|ro| ro.trim() == "1")
}

/// The mount by its id (5.8), else by the path.
fn mount(path: &Path, file: &File) -> Option<Mount> {
    let mut mounts = mounts::of_process(std::process::id());
    let id = facts::statx(file)
        .filter(|answer| answer.stx_mask & libc::STATX_MNT_ID != 0)
        .and_then(|answer| i32::try_from(answer.stx_mnt_id).ok());
    id.and_then(|id| mounts.remove(&id)).or_else(|| mounts::of_path(&mounts, path).cloned())
}

fn info(
    path: &Path,
    about: &std::fs::Metadata,
    facts: facts::Facts,
    (fs, options): (&str, &str),
    below: Option<(String, String)>,
) -> FileInfo {
    FileInfo {
        path: escape::path(path),
        fs: escape(fs.as_bytes()),
        options: escape(options.as_bytes()),
        dev: device(facts.dev, 0),
        facts,
        below,
        mixers: Mixers::default(),
        places: vec![path.to_path_buf()],
        traced: (about.ino(), 0),
    }
}
