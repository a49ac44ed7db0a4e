//! What a file says of itself: limits, flags, extents. Asked without writing, once per file.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

/// inode flags of FS_IOC_GETFLAGS (include/uapi/linux/fs.h, fs/ext4/ext4.h).
pub mod flag {
    pub const COMPRESSED: u32 = 0x4;
    pub const JOURNAL_DATA: u32 = 0x4000;
    pub const NOCOW: u32 = 0x80_0000;
    pub const INLINE_DATA: u32 = 0x1000_0000;
}

/// extent flags of FS_IOC_FIEMAP (include/uapi/linux/fiemap.h).
pub mod extent {
    pub const ENCODED: u32 = 0x8;
    pub const INLINE: u32 = 0x200;
}

/// What an open file could tell; `None` where it or the kernel does not say.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// st_dev, or the device itself for a block device: (major, minor).
    pub dev: Option<(u32, u32)>,
    pub flags: Option<u32>,
    /// statx STATX_DIOALIGN: memory and offset alignment in bytes; 0 = no direct I/O.
    pub dio_align: Option<(u32, u32)>,
    /// Logical block size of the device below, in bytes.
    pub logical_block: Option<u32>,
    /// Memory alignment the device's DMA asks for, in bytes.
    pub dma_align: Option<u32>,
    /// st_blksize: the file system's block size, in bytes.
    pub block: Option<u32>,
}

/// Opens `path` for asking, if it still is the inode that was traced.
///
/// # Errors
/// If it is gone, another file, or neither a regular file nor a block device.
pub(super) fn open(path: &Path, ino: u64) -> io::Result<File> {
    let about = fs::metadata(path)?;
    let kind = about.file_type();
    if about.ino() != ino || !(kind.is_file() || kind.is_block_device()) {
        return Err(io::Error::other("another file has that name now"));
    }
    let try_open = |flags| OpenOptions::new().read(true).custom_flags(flags).open(path);
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let file = try_open(flags | libc::O_NOATIME).or_else(|_| try_open(flags))?;
    if file.metadata()?.ino() == ino {
        Ok(file)
    } else {
        Err(io::Error::other("another file has that name now"))
    }
}

/// Asks an open file.
pub(super) fn ask(file: &File) -> Facts {
    let Ok(about) = file.metadata() else { return Facts::default() };
    let device = about.file_type().is_block_device();
    let number = if device { about.rdev() } else { about.dev() };
    let dev = (libc::major(number), libc::minor(number));
    let queue = |name: &str| queue_limit(dev, name);
    Facts {
        dev: Some(dev),
        flags: if device { None } else { inode_flags(file) },
        dio_align: dio_align(file),
        logical_block: queue("logical_block_size"),
        dma_align: queue("dma_alignment").map(|mask| mask + 1),
        block: u32::try_from(about.blksize()).ok(),
    }
}

/// A limit of the request queue below a device or one of its partitions.
fn queue_limit((major, minor): (u32, u32), name: &str) -> Option<u32> {
    let base = format!("/sys/dev/block/{major}:{minor}");
    ["queue", "../queue"]
        .iter()
        .find_map(|dir| fs::read_to_string(format!("{base}/{dir}/{name}")).ok())
        .and_then(|text| text.trim().parse().ok())
}

fn inode_flags(file: &File) -> Option<u32> {
    let mut flags: libc::c_long = 0;
    // SAFETY: the kernel writes at most one long.
    let failed =
        unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) } != 0;
    (!failed).then_some(flags as u32)
}

fn dio_align(file: &File) -> Option<(u32, u32)> {
    // SAFETY: all-zero is a value of this plain struct, and the kernel fills it.
    let mut about: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: an empty path with AT_EMPTY_PATH names the descriptor itself.
    let failed = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            &raw mut about,
        )
    } != 0;
    let known = !failed && about.stx_mask & libc::STATX_DIOALIGN != 0;
    known.then_some((about.stx_dio_mem_align, about.stx_dio_offset_align))
}

/// OR of the flags of all extents that meet the range; `None` if the file system does not say.
pub(super) fn extent_flags(file: &File, start: u64, len: u64) -> Option<u32> {
    const EXTENTS: usize = 32;
    const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Extent {
        logical: u64,
        physical: u64,
        length: u64,
        reserved64: [u64; 2],
        flags: u32,
        reserved: [u32; 3],
    }
    #[repr(C)]
    struct Fiemap {
        start: u64,
        length: u64,
        flags: u32,
        mapped_extents: u32,
        extent_count: u32,
        reserved: u32,
        extents: [Extent; EXTENTS],
    }
    let mut map = Fiemap {
        start,
        length: len,
        flags: 0, // not FIEMAP_FLAG_SYNC: asking must not write anything back
        mapped_extents: 0,
        extent_count: EXTENTS as u32,
        reserved: 0,
        extents: [Extent::default(); EXTENTS],
    };
    // SAFETY: the kernel writes the header and at most `extent_count` extents.
    let failed = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut map) } != 0;
    let mapped = (map.mapped_extents as usize).min(EXTENTS);
    (!failed).then(|| map.extents[..mapped].iter().fold(0, |flags, e| flags | e.flags))
}
