//! statx(2), with the fields that bear on direct I/O.
//!
//! The system call is made without the C library: musl before 1.2.5 has no statx, and the libc
//! crate's struct for musl lacks the newest fields.

use std::{
    ffi::{CStr, CString, c_int},
    fs::File,
    mem::{MaybeUninit, offset_of},
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::Path,
};

/// STATX_MNT_ID (include/uapi/linux/stat.h, since 5.8).
pub(crate) const MNT_ID: u32 = 0x1000;
/// STATX_DIOALIGN (since 6.1).
pub(crate) const DIOALIGN: u32 = 0x2000;
/// STATX_WRITE_ATOMIC (since 6.11).
pub(crate) const WRITE_ATOMIC: u32 = 0x1_0000;
/// STATX_DIO_READ_ALIGN (since 6.14).
pub(crate) const DIO_READ_ALIGN: u32 = 0x2_0000;

/// `struct statx` (include/uapi/linux/stat.h, 6.16), of which only the named fields are used.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Statx {
    /// The `STATX_` bits of what the kernel reports.
    pub(crate) mask: u32,
    _blksize: u32,
    /// `STATX_ATTR_` bits.
    pub(crate) attributes: u64,
    _owner_mode: [u32; 4],
    _ino_size_blocks_attributes_mask: [u64; 4],
    _times: [[u64; 2]; 4],
    _devices: [u32; 4],
    pub(crate) mnt_id: u64,
    /// Alignment of buffers for direct I/O in bytes; 0: not supported on this file.
    pub(crate) dio_mem_align: u32,
    /// Alignment of offsets and lengths for direct I/O in bytes.
    pub(crate) dio_offset_align: u32,
    _subvol: u64,
    /// Atomic writes: the smallest and the largest length in bytes, and the most segments.
    pub(crate) atomic_write_unit_min: u32,
    pub(crate) atomic_write_unit_max: u32,
    pub(crate) atomic_write_segments_max: u32,
    /// Alignment of offsets and lengths of direct reads in bytes.
    pub(crate) dio_read_offset_align: u32,
    _spare: [u64; 9],
}

const _: () = assert!(
    size_of::<Statx>() == 0x100
        && offset_of!(Statx, mnt_id) == 0x90
        && offset_of!(Statx, atomic_write_unit_min) == 0xa8
        && offset_of!(Statx, dio_read_offset_align) == 0xb4
);

/// statx of an open file, which may be an O_PATH descriptor; `None` if the call fails.
pub(crate) fn of_file(file: &File) -> Option<Statx> {
    ask(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}

/// statx of the file at `path`, without opening it and without asking its server.
pub(crate) fn of_path(path: &Path) -> Option<Statx> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    ask(libc::AT_FDCWD, &path, libc::AT_STATX_DONT_SYNC)
}

fn ask(folder: c_int, path: &CStr, flags: c_int) -> Option<Statx> {
    let wanted = DIOALIGN | DIO_READ_ALIGN | MNT_ID | WRITE_ATOMIC;
    let mut about = MaybeUninit::<Statx>::zeroed();
    // SAFETY: a path with its NUL; the kernel fills one struct statx.
    let failed = unsafe {
        libc::syscall(libc::SYS_statx, folder, path.as_ptr(), flags, wanted, about.as_mut_ptr())
    } != 0;
    // SAFETY: all-zero is a value of this plain struct, and the kernel fills it.
    (!failed).then(|| unsafe { about.assume_init() })
}
