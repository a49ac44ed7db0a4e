//! statx(2), with the fields that bear on direct I/O.

use std::{
    ffi::{CStr, CString, c_int},
    fs::File,
    mem::MaybeUninit,
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::Path,
};

/// STATX_WRITE_ATOMIC (include/uapi/linux/stat.h, since 6.11).
pub(crate) const WRITE_ATOMIC: u32 = 0x1_0000;

/// statx of an open file, which may be an O_PATH descriptor; `None` if the call fails.
pub(crate) fn of_file(file: &File) -> Option<libc::statx> {
    ask(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}

/// statx of the file at `path`, without opening it and without asking its server.
pub(crate) fn of_path(path: &Path) -> Option<libc::statx> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    ask(libc::AT_FDCWD, &path, libc::AT_STATX_DONT_SYNC)
}

fn ask(folder: c_int, path: &CStr, flags: c_int) -> Option<libc::statx> {
    let wanted =
        libc::STATX_DIOALIGN | libc::STATX_DIO_READ_ALIGN | libc::STATX_MNT_ID | WRITE_ATOMIC;
    let mut about = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: a path with its NUL; the kernel fills one statx.
    let failed =
        unsafe { libc::statx(folder, path.as_ptr(), flags, wanted, about.as_mut_ptr()) } != 0;
    // SAFETY: all-zero is a value of this plain struct, and the kernel fills it.
    (!failed).then(|| unsafe { about.assume_init() })
}
