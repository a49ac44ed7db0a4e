//! Classifies file systems by type: network and FUSE clients, and file systems that store their
//! data in files of another one (overlayfs).

use std::{fs::File, mem::MaybeUninit, os::fd::AsRawFd as _};

use dio_trace_common::verdict::magic;

/// The `super_block.s_magic` of a client file system, by its type name; `None` for other types.
/// statfs(2) cannot be used, because a client may return the server's type
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

/// True if the file may be on overlayfs, where the page cache belongs to the file of a lower file
/// system.
pub(crate) fn is_stacked(file: &File) -> bool {
    statfs(file).is_none_or(|about| about.f_type as u32 == libc::OVERLAYFS_SUPER_MAGIC as u32)
}

/// True if the file's cached pages may belong to another file: on overlayfs, and on FUSE, which can
/// forward reads to a backing file of its daemon (fs/fuse/passthrough.c).
pub(crate) fn may_lie_elsewhere(file: &File) -> bool {
    let fuse = |about: &libc::statfs| about.f_type as u32 == magic::FUSE;
    is_stacked(file) || statfs(file).as_ref().is_none_or(fuse)
}

/// statfs(2) of the file's file system; `None` if the call fails.
pub(crate) fn statfs(file: &File) -> Option<libc::statfs> {
    let mut about = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the kernel fills one statfs.
    let failed = unsafe { libc::fstatfs(file.as_raw_fd(), about.as_mut_ptr()) } != 0;
    // SAFETY: all-zero is a value of this plain struct, and the kernel fills it.
    (!failed).then(|| unsafe { about.assume_init() })
}
