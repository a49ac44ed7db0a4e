//! Attributes of a file that bear on direct I/O: alignment limits, inode flags, statx attributes
//! and the device below. They are read without writing to the file, once per file.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::Path,
};

use dio_trace_common::verdict::magic;
use serde::{Deserialize, Serialize};

use crate::system::{
    btrfs::{self, Profile},
    device::{self, Device},
    file_system::{client_magic, statfs},
    statx::{self, Statx},
};

/// Inode flags of FS_IOC_GETFLAGS (include/uapi/linux/fs.h, fs/ext4/ext4.h).
pub mod flag {
    pub const COMPRESSED: u32 = 0x4;
    pub const ENCRYPTED: u32 = 0x800;
    pub const JOURNAL_DATA: u32 = 0x4000;
    pub const EXTENTS: u32 = 0x8_0000;
    pub const VERITY: u32 = 0x10_0000;
    pub const NOCOW: u32 = 0x80_0000;
    pub const INLINE_DATA: u32 = 0x1000_0000;
}

/// Bits of `stx_attributes` of statx(2).
pub mod attribute {
    pub const COMPRESSED: u64 = libc::STATX_ATTR_COMPRESSED as u64;
    pub const ENCRYPTED: u64 = libc::STATX_ATTR_ENCRYPTED as u64;
    pub const VERITY: u64 = libc::STATX_ATTR_VERITY as u64;
    pub const DAX: u64 = libc::STATX_ATTR_DAX as u64;
}

/// Attributes of a file; a field is `None` if the kernel or the file system does not report it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FileAttrs {
    /// (major, minor) of st_dev, or of st_rdev for a block device.
    pub dev: Option<(u32, u32)>,
    /// Inode flags, see [`flag`].
    pub flags: Option<u32>,
    /// See [`attribute`]; an attribute that the file system does not support is 0.
    pub attributes: Option<u64>,
    /// statx STATX_DIOALIGN: memory and offset alignment in bytes; 0 = no direct I/O.
    pub dio_align: Option<(u32, u32)>,
    /// statx STATX_DIO_READ_ALIGN (6.14): offset alignment of reads in bytes.
    pub dio_read_align: Option<u32>,
    /// statfs f_bsize: the file system's block size in bytes.
    pub block: Option<u32>,
    /// st_blocks: space allocated for the file's data, in units of 512 bytes.
    pub allocated: Option<u64>,
    /// The device that the file system is mounted from; default if there is none.
    pub device: Device,
    /// statx STATX_WRITE_ATOMIC (6.11); `None` if the file takes no atomic writes.
    pub atomic: Option<AtomicLimits>,
    /// The file had no name any more when it was looked up: what is set here is known of its mount.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// The data profiles of a btrfs, two during a conversion; empty on other file systems.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profiles: Vec<Profile>,
}

/// What a file takes as an atomic write (RWF_ATOMIC).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct AtomicLimits {
    /// Least and greatest length in bytes.
    pub min: u32,
    pub max: u32,
    /// Most segments of a vector.
    pub segments: u32,
}

impl FileAttrs {
    /// Whether the file supports direct I/O according to statx; `None` if statx does not report it.
    #[must_use]
    pub fn takes_direct(&self) -> Option<bool> {
        self.dio_align.map(|(memory, offset)| memory != 0 && offset != 0)
    }

    /// The file system's block size in bytes, or 4096 if it is unknown.
    #[must_use]
    pub fn block_size(&self) -> u32 {
        self.block.filter(|block| *block != 0).unwrap_or(4096)
    }
}

/// A file held open while its attributes are read. It must be dropped soon: an open file prevents
/// unmounting, and keeps the space of a deleted file allocated.
pub(crate) struct Asked {
    /// An O_PATH descriptor: neither the file system, nor a device's driver, nor a server is
    /// involved in opening it.
    named: File,
    about: Metadata,
    /// The file is on a server, which would be involved in an open.
    remote: bool,
}

impl Asked {
    /// Opens the file at `path` if it still has the inode number and device (kernel `dev_t`) that
    /// were traced. `fs` is the file system's type, "" if unknown.
    ///
    /// # Errors
    /// If the file is gone, another file, or neither a regular file nor a block device.
    pub(crate) fn find(path: &Path, (ino, dev): (u64, u32), fs: &str) -> io::Result<Self> {
        let named = open_path(path)?;
        let about = named.metadata()?;
        let kind = about.file_type();
        let same = about.ino() == ino && may_be_on(&about, dev);
        if !same || !(kind.is_file() || kind.is_block_device()) {
            return Err(io::Error::other("another file has that name now"));
        }
        let own = || statfs(&named).is_some_and(|about| magic::is_client(about.f_type as u32));
        let remote = client_magic(fs).is_some() || own();
        Ok(Self { named, about, remote })
    }

    /// Reads the file's attributes. `source` is what its file system is mounted from.
    pub(crate) fn attrs(&self, source: Option<&str>) -> FileAttrs {
        ask(&self.named, self.open().as_ref(), source)
    }

    /// Opens the file for queries that O_PATH does not allow (ioctl). Nothing is read, so the
    /// access time does not change. `None` for a device, whose driver would act on the open; for a
    /// file on a server; and for a file without a name, whose space the close would free.
    pub(crate) fn open(&self) -> Option<File> {
        if !self.about.is_file() || self.about.nlink() == 0 || self.remote {
            return None;
        }
        let itself = format!("/proc/self/fd/{}", self.named.as_raw_fd());
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
        OpenOptions::new().read(true).custom_flags(flags).open(itself).ok()
    }
}

/// Opens a path without involving the file system, a device's driver or a server.
fn open_path(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path)
}

/// False if the device shows that this is another file with the same inode number, as in another
/// mount namespace. Anonymous devices (major 0) prove nothing: btrfs and overlayfs report other
/// numbers to user space than the kernel has.
fn may_be_on(about: &Metadata, dev: u32) -> bool {
    let itself = about.file_type().is_block_device();
    let (major, minor) = numbers(if itself { about.rdev() } else { about.dev() });
    let (kernel_major, kernel_minor) = (dev >> 20, dev & 0xf_ffff);
    major == 0 || kernel_major == 0 || (major, minor) == (kernel_major, kernel_minor)
}

/// Reads the attributes of `file`, which may be an O_PATH descriptor; `open`, if given, is a full
/// descriptor for the ioctls. `source` is what the file system is mounted from: btrfs reports its
/// own anonymous device numbers, which sysfs does not know.
pub(crate) fn ask(file: &File, open: Option<&File>, source: Option<&str>) -> FileAttrs {
    ask_through(file, open, source, device::ask)
}

/// Like [`ask`], but `device` supplies the attributes of a device by its number.
pub(crate) fn ask_through(
    file: &File,
    open: Option<&File>,
    source: Option<&str>,
    device: impl FnOnce((u32, u32)) -> Device,
) -> FileAttrs {
    let Ok(about) = file.metadata() else { return FileAttrs::default() };
    let itself = about.file_type().is_block_device();
    let dev = numbers(if itself { about.rdev() } else { about.dev() });
    let below = if dev.0 == 0 { source.and_then(device_number) } else { Some(dev) };
    let statx = statx::of_file(file);
    let reported = |mask| statx.filter(|answer| answer.mask & mask != 0);
    FileAttrs {
        dev: Some(dev),
        flags: open.filter(|_| !itself).and_then(inode_flags),
        attributes: statx.map(|answer| answer.attributes),
        dio_align: reported(statx::DIOALIGN)
            .map(|answer| (answer.dio_mem_align, answer.dio_offset_align)),
        dio_read_align: reported(statx::DIO_READ_ALIGN).map(|answer| answer.dio_read_offset_align),
        atomic: reported(statx::WRITE_ATOMIC).and_then(atomic_limits),
        gone: false,
        block: if itself { None } else { block_size(file) },
        allocated: (!itself).then(|| about.blocks()),
        device: below.map(device).unwrap_or_default(),
        profiles: below.filter(|_| is_btrfs(file)).map(btrfs::data_profiles).unwrap_or_default(),
    }
}

fn atomic_limits(answer: Statx) -> Option<AtomicLimits> {
    let (min, max) = (answer.atomic_write_unit_min, answer.atomic_write_unit_max);
    let segments = answer.atomic_write_segments_max;
    (max != 0).then_some(AtomicLimits { min, max, segments })
}

/// What is known of a file without a name, by the mount point of its file system; the default if
/// another file system is mounted there. `dev` is the traced file's (kernel `dev_t`).
pub(crate) fn of_gone(point: &Path, dev: u32, source: Option<&str>) -> FileAttrs {
    let is_its = |root: &File| root.metadata().is_ok_and(|about| may_be_on(&about, dev));
    let Some(root) = open_path(point).ok().filter(is_its) else { return FileAttrs::default() };
    let FileAttrs { dev, block, device, profiles, .. } = ask(&root, None, source);
    FileAttrs { dev, block, device, profiles, gone: true, ..FileAttrs::default() }
}

fn is_btrfs(file: &File) -> bool {
    statfs(file).is_some_and(|about| about.f_type as u32 == libc::BTRFS_SUPER_MAGIC as u32)
}

fn numbers(dev: libc::dev_t) -> (u32, u32) {
    (libc::major(dev), libc::minor(dev))
}

/// The (major, minor) number of the block device at this path.
fn device_number(source: &str) -> Option<(u32, u32)> {
    let about = fs::metadata(source).ok().filter(|about| about.file_type().is_block_device())?;
    Some(numbers(about.rdev()))
}

/// The inode flags of FS_IOC_GETFLAGS, see [`flag`]; `None` if the file system does not support
/// them.
pub fn inode_flags(file: &File) -> Option<u32> {
    let mut flags: libc::c_long = 0;
    // SAFETY: the kernel writes at most one long.
    let failed =
        unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETFLAGS, &raw mut flags) } != 0;
    (!failed).then_some(flags as u32)
}

/// The file's `stx_attributes`, see [`attribute`]; `None` if statx(2) fails.
pub fn attributes(file: &File) -> Option<u64> {
    statx::of_file(file).map(|answer| answer.attributes)
}

fn block_size(file: &File) -> Option<u32> {
    u32::try_from(statfs(file)?.f_bsize).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_tells_and_another_inode_is_not_asked() {
        let path = std::env::current_exe().unwrap();
        let about = fs::metadata(&path).unwrap();
        let (major, minor) = numbers(about.dev());
        let (ino, dev) = (about.ino(), major << 20 | minor);
        let attrs = Asked::find(&path, (ino, dev), "").unwrap().attrs(None);
        assert!(attrs.dev.is_some() && attrs.attributes.is_some());
        assert!(attrs.block.is_some_and(|block| block.is_power_of_two()));
        assert!(Asked::find(&path, (ino + 1, dev), "").is_err());
        assert_eq!(Asked::find(&path, (ino, 9 << 20 | 7), "").is_err(), major != 0);
        assert_eq!(device_number("/dev/null"), None);
    }

    #[test]
    fn neither_a_deleted_file_nor_one_of_a_server_is_opened() {
        let path = std::env::temp_dir().join(format!("dio-trace-asked-{}", std::process::id()));
        let kept = File::create(&path).unwrap();
        let ino = kept.metadata().unwrap().ino();
        assert!(Asked::find(&path, (ino, 0), "fuse").unwrap().open().is_none());
        let local = Asked::find(&path, (ino, 0), "").unwrap();
        assert_eq!(local.open().is_none(), local.remote);
        fs::remove_file(&path).unwrap();
        assert!(Asked::find(&path, (ino, 0), "").is_err());
        let link = format!("/proc/self/fd/{}", kept.as_raw_fd());
        let deleted = Asked::find(Path::new(&link), (ino, 0), "").unwrap();
        assert!(deleted.open().is_none() && deleted.attrs(None).dev.is_some());
    }
}
