//! The extents of a file (FS_IOC_FIEMAP), without writing anything back.

use std::{fs::File, os::fd::AsRawFd as _};

/// extent flags of FS_IOC_FIEMAP (include/uapi/linux/fiemap.h).
pub mod extent {
    pub const ENCODED: u32 = 0x8;
    pub const INLINE: u32 = 0x200;
    pub const SHARED: u32 = 0x2000;
}

/// OR of the flags of all extents that meet the range; `None` if the file system does not say.
pub fn extent_flags(file: &File, start: u64, len: u64) -> Option<u32> {
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
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut map) };
    // ntfs3 answers 1 for "that was the last extent" (fs/ntfs3/frecord.c:ni_fiemap).
    let failed = answer < 0;
    let mapped = (map.mapped_extents as usize).min(EXTENTS);
    (!failed).then(|| map.extents[..mapped].iter().fold(0, |flags, e| flags | e.flags))
}
