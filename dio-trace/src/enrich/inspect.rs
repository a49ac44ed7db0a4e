//! Describes a file that is given by its path, not seen in a trace (`check`).

use std::{
    collections::HashMap,
    fs::File,
    mem::MaybeUninit,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    enrich::{below_overlay, device as number},
    model::{BufferedUsers, FileInfo},
    system::{
        device::{self, Device},
        file_attrs,
        file_system::{client_magic, statfs},
        mounts::{self, Mount, Mounts},
        statx,
    },
    util::escape::{self, escape},
};

/// How long cached mounts and devices are used.
const FRESH: Duration = Duration::from_secs(1);

/// The description of an inspected file.
pub(crate) struct Inspected {
    pub(crate) file: FileInfo,
    /// What the file system is mounted from; for a block device, its path.
    pub(crate) source: String,
    /// The mount or the file system is read-only, or the device is.
    pub(crate) read_only: bool,
    /// Reading does not update the access time: the mount is read-only or noatime.
    pub(crate) keeps_atime: bool,
    /// `super_block.s_magic`
    pub(crate) magic: u32,
}

/// Inspects files one by one. Most are on the same mounts and devices, so mounts and device
/// attributes are cached for a second.
pub(crate) struct PathInspector {
    asked: Instant,
    mounts: Mounts,
    devices: HashMap<(u32, u32), Device>,
}

impl PathInspector {
    pub(crate) fn new() -> Self {
        let mounts = mounts::of_process(std::process::id());
        Self { asked: Instant::now(), mounts, devices: HashMap::new() }
    }

    /// Inspects an open file; `path` is absolute. `None` if its mount cannot be found.
    pub(crate) fn look(&mut self, path: &Path, file: &File) -> Option<Inspected> {
        if self.asked.elapsed() > FRESH {
            *self = Self::new();
        }
        look(self, path, file)
    }

    fn attrs(&mut self, file: &File, source: Option<&str>) -> file_attrs::FileAttrs {
        let ask =
            |number| self.devices.entry(number).or_insert_with(|| device::ask(number)).clone();
        file_attrs::ask_through(file, Some(file), source, ask)
    }

    /// Finds the mount by the id from statx (since 5.8), else by the path.
    fn mount(&mut self, path: &Path, file: &File) -> Option<Mount> {
        let id = statx::of_file(file)
            .filter(|answer| answer.mask & statx::MNT_ID != 0)
            .and_then(|answer| i32::try_from(answer.mnt_id).ok());
        if id.is_some_and(|id| !self.mounts.contains_key(&id)) {
            *self = Self::new();
        }
        let by_id = id.and_then(|id| self.mounts.get(&id));
        by_id.or_else(|| mounts::of_path(&self.mounts, path)).cloned()
    }
}

fn look(inspector: &mut PathInspector, path: &Path, file: &File) -> Option<Inspected> {
    let about = file.metadata().ok()?;
    let magic = statfs(file)?.f_type as u32;
    if about.file_type().is_block_device() {
        let attrs = inspector.attrs(file, None);
        let info = info(path, &about, attrs, ("bdev", ""), None);
        let source = info.path.to_string();
        let read_only = is_read_only_device(&info.dev);
        let keeps_atime = mount_flags(file) & (libc::ST_RDONLY | libc::ST_NOATIME) != 0;
        return Some(Inspected { file: info, source, read_only, keeps_atime, magic });
    }
    let mount = inspector.mount(path, file)?;
    let below = (mount.fs == "overlay").then(|| below_overlay(&mount)).flatten();
    let source = below.as_ref().unwrap_or(&mount).source.clone();
    let attrs = inspector.attrs(file, Some(&source));
    let below = below.map(|m| (m.fs, m.options));
    let info = info(path, &about, attrs, (&mount.fs, &mount.options), below);
    let flags = mount_flags(file);
    let read_only = flags & libc::ST_RDONLY != 0;
    let keeps_atime = read_only || flags & libc::ST_NOATIME != 0;
    let magic = client_magic(&mount.fs).unwrap_or(magic);
    let source = escape(mount.source.as_bytes());
    Some(Inspected { file: info, source, read_only, keeps_atime, magic })
}

/// Flags of the mount and of the file system from statvfs(3), which returns both; 0 if it fails.
fn mount_flags(file: &File) -> libc::c_ulong {
    let mut about = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: fills one statvfs.
    let failed = unsafe { libc::fstatvfs(file.as_raw_fd(), about.as_mut_ptr()) } != 0;
    // SAFETY: all-zero is a value of this plain struct.
    if failed { 0 } else { unsafe { about.assume_init() }.f_flag }
}

/// True if the block device is read-only, by `blockdev --setro` or because its medium is.
fn is_read_only_device(dev: &str) -> bool {
    std::fs::read_to_string(format!("/sys/dev/block/{dev}/ro")).is_ok_and(|ro| ro.trim() == "1")
}

fn info(
    path: &Path,
    about: &std::fs::Metadata,
    attrs: file_attrs::FileAttrs,
    (fs, options): (&str, &str),
    below: Option<(String, String)>,
) -> FileInfo {
    FileInfo {
        path: escape::path(path).into(),
        fs: escape(fs.as_bytes()).into(),
        options: escape(options.as_bytes()),
        dev: number(attrs.dev, 0).into(),
        attrs,
        below,
        volume: None,
        buffered_users: BufferedUsers::default(),
        named: true,
        places: vec![path.to_path_buf()],
        traced: (about.ino(), 0),
    }
}
