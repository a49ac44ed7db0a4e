//! What the type of a file system means for a file on it.

use std::{fs::File, mem::MaybeUninit, os::fd::AsRawFd as _};

use dio_trace_common::verdict::magic;

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
    statfs(file).is_none_or(|about| about.f_type == libc::OVERLAYFS_SUPER_MAGIC)
}

/// True of a file whose pages may be another one's, as far as its file system allows for that: FUSE
/// hands reads on to a file of its daemon (fs/fuse/passthrough.c).
pub(crate) fn may_lie_elsewhere(file: &File) -> bool {
    let fuse = |about: &libc::statfs| about.f_type == libc::FUSE_SUPER_MAGIC;
    is_stacked(file) || statfs(file).as_ref().is_none_or(fuse)
}

/// What its file system says of itself.
pub(crate) fn statfs(file: &File) -> Option<libc::statfs> {
    let mut about = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: the kernel fills one statfs.
    let failed = unsafe { libc::fstatfs(file.as_raw_fd(), about.as_mut_ptr()) } != 0;
    // SAFETY: all-zero is a value of this plain struct, and the kernel fills it.
    (!failed).then(|| unsafe { about.assume_init() })
}
