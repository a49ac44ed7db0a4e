//! The subject of a check: a path, and everything that is known of it without making a request.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use dio_trace_common::verdict::magic;
use serde::Serialize;

use crate::{
    cause::{Limits, limits_of},
    check::{Access, trial::Home},
    enrich::PathInspector,
    model::FileInfo,
    system::file_attrs::{FileAttrs, attribute, flag},
    system::{extents::extent_flags, file_system::client_magic},
    util::escape,
};

/// The kind of a checked path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum What {
    File,
    Directory,
    Device,
}

impl What {
    /// The word for it in every output.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Device => "device",
        }
    }
}

/// A checked path and its attributes.
pub(super) struct Subject {
    pub(super) what: What,
    pub(super) file: FileInfo,
    /// The source of the mount, as in /proc/PID/mountinfo.
    pub(super) source: String,
    /// Size in bytes; 0 for a directory.
    pub(super) size: u64,
    /// `super_block.s_magic`
    pub(super) magic: u32,
    /// OR of the flags of all extents (FIEMAP); `None` if not known, or not a file.
    pub(super) extents: Option<u32>,
    read_only: bool,
    /// The mount does not update access times.
    keeps_atime: bool,
    path: PathBuf,
}

/// The result of opening the subject for a trial.
pub(super) enum Opened {
    File(File),
    /// This user may read the file, but not without updating its access time.
    WouldRenewAtime,
    Failed(std::io::Error),
}

impl Subject {
    /// Opens a path and collects its attributes; no data is read.
    ///
    /// # Errors
    /// If the path cannot be opened, is neither a file, a directory nor a block device, or is a
    /// device without a medium.
    pub(super) fn open(path: &Path, looker: &mut PathInspector) -> Result<Self> {
        let shown = || escape::path(path);
        let real = path.canonicalize().with_context(|| format!("cannot look at {}", shown()))?;
        let kind = fs::metadata(&real).with_context(|| format!("cannot look at {}", shown()))?;
        let kind = kind.file_type();
        let what = if kind.is_file() {
            What::File
        } else if kind.is_dir() {
            What::Directory
        } else if kind.is_block_device() {
            What::Device
        } else {
            bail!("{} is neither a file, a directory nor a block device", shown());
        };
        let file = open(&real).with_context(|| {
            format!("cannot open {} for reading: run as its owner or as root", shown())
        })?;
        let size = size(&file, what).with_context(|| format!("cannot ask {}", shown()))?;
        if what == What::Device && size == 0 {
            bail!("{} has no bytes: nothing is attached to it, or no medium is in it", shown());
        }
        let mut looked = looker
            .look(&real, &file)
            .with_context(|| format!("cannot find the mount of {}", shown()))?;
        if let (What::Directory, Some(flags)) = (what, &mut looked.file.attrs.flags) {
            // A directory's own entries may be inline; that does not affect the files in it.
            *flags &= !flag::INLINE_DATA;
        }
        let extents = || extent_flags(&file, 0, size.max(1));
        Ok(Self {
            what,
            extents: (what == What::File).then(extents).flatten(),
            file: looked.file,
            source: looked.source,
            read_only: looked.read_only,
            keeps_atime: looked.keeps_atime,
            magic: looked.magic,
            size,
            path: real,
        })
    }

    /// Why the file needs a larger multiple than the sector of its device. xfs says so of files
    /// that it copies on write (fs/xfs/xfs_iops.c:xfs_report_dioalign, 6.14).
    pub(super) fn limits_why(&self, limits: &Limits) -> Option<String> {
        let sector = self.attrs().device.logical_block?;
        let larger = limits.offset > sector && self.file.deciding().0 == "xfs";
        larger.then(|| {
            format!(
                "the device takes {sector}; this file is written in whole blocks, because it shares \
                 extents (reflink) or xfs always copies it on write"
            )
        })
    }

    pub(super) const fn attrs(&self) -> &FileAttrs {
        &self.file.attrs
    }

    pub(super) fn is_device(&self) -> bool {
        self.what == What::Device
    }

    pub(super) fn is_dax(&self) -> bool {
        self.attrs().attributes.is_some_and(|bits| bits & attribute::DAX != 0)
    }

    /// True if the page cache is the storage: of the lower file system if this one is stacked.
    pub(super) fn is_memory(&self) -> bool {
        !self.is_device() && (self.magic == magic::TMPFS || self.file.deciding().0 == "tmpfs")
    }

    /// True if a server or a daemon has the data: of the lower file system if this one is stacked.
    pub(super) fn is_client(&self) -> bool {
        !self.is_device() && client_magic(self.file.deciding().0).is_some()
    }

    /// True if writes are possible here.
    pub(super) const fn writable(&self) -> bool {
        !self.read_only
    }

    /// Alignment limits for a direct request, in bytes; all 0 if the file does not support direct
    /// I/O, `None` if unknown.
    pub(super) fn limits(&self, access: Access) -> Option<Limits> {
        if self.attrs().takes_direct() == Some(false) {
            return Some(Limits { memory: 0, offset: 0, source: "statx STATX_DIOALIGN" });
        }
        let fs = self.file.deciding().0;
        let limits = limits_of(self.attrs(), fs, access != Access::Read)?;
        // These file systems accept a smaller alignment too, but serve it through the page cache.
        let block = self.attrs().block_size();
        if matches!(fs, "btrfs" | "f2fs") && limits.offset < block {
            return Some(Limits { memory: block, offset: block, source: "its block" });
        }
        Some(limits)
    }

    /// A request size in bytes that meets every limit: at least the block size, the alignment limit
    /// and 4096, and at most 64 KiB.
    pub(super) fn unit(&self) -> usize {
        const PAGE: u32 = 4096;
        const MOST: u32 = 64 << 10;
        let limit = self.limits(Access::Overwrite).map_or(PAGE, |limits| limits.offset);
        // Some file systems report a preferred transfer size instead of the block size.
        let block = self.attrs().block.filter(|block| *block <= MOST).unwrap_or(PAGE);
        limit.max(block).max(PAGE).next_power_of_two().min(MOST) as usize
    }

    /// Opens the path again with O_DIRECT. Reading and mapping this descriptor do not update the
    /// file's access time.
    pub(super) fn open_direct(&self) -> Opened {
        let with = |flags| {
            let flags = flags | libc::O_DIRECT | libc::O_NONBLOCK;
            OpenOptions::new().read(true).custom_flags(flags).open(&self.path)
        };
        let opened = match with(libc::O_NOATIME) {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                if !self.keeps_atime {
                    return Opened::WouldRenewAtime;
                }
                with(0)
            }
            opened => opened,
        };
        opened.map_or_else(Opened::Failed, Opened::File)
    }

    /// The absolute path, with symbolic links resolved.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the data is stored.
    pub(super) fn home(&self) -> Home {
        Home { dax: self.is_dax(), client: self.is_client(), memory: self.is_memory() }
    }

    /// The directory for a temporary file; `None` for a device.
    pub(super) fn folder(&self) -> Option<&Path> {
        match self.what {
            What::File => self.path.parent(),
            What::Directory => Some(&self.path),
            What::Device => None,
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let with = |flags| OpenOptions::new().read(true).custom_flags(flags).open(path);
    with(flags | libc::O_NOATIME).or_else(|_| with(flags))
}

/// Size in bytes. stat(2) reports 0 for a device, so its end is found by seeking.
fn size(file: &File, what: What) -> std::io::Result<u64> {
    use std::io::{Seek as _, SeekFrom};
    match what {
        What::Directory => Ok(0),
        What::File => Ok(file.metadata()?.len()),
        What::Device => (&*file).seek(SeekFrom::End(0)),
    }
}
