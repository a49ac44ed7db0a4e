//! Adds to events what they do not contain: process names, paths, mounts, file attributes, extents
//! and symbolized stacks.

mod files;
pub(crate) mod inspect;
mod names;

use std::{
    ffi::OsStr,
    fs::File,
    io::ErrorKind,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use dio_trace_common::abi::{
    BufferedUseEvent, FILE_TRUNCATED, FILE_UNHASHED, FILE_WITHOUT_MOUNT, FileEvent, FileId,
    MIXED_DIRTIED, Op, REQ_BLOCK_DEVICE, REQ_VECTORED, Request, Task,
};

use crate::{
    model::{BufferedUser, BufferedUsers, FileInfo},
    system::{
        container::Container,
        extents,
        file_attrs::{Asked, FileAttrs, of_gone},
        mappings::{Memory, Need, RecentMemory},
        mounts::{self, Mount},
        namespaces::{MountQuery, Namespaces},
        open_files,
        stack::Stack,
        symbols::Stacks,
        volume,
    },
    util::escape::{escape, escape_c},
};
use files::Files;
pub(crate) use inspect::PathInspector;
use names::Names;
pub(crate) use names::{ShownNames, thread};

/// Most readers, and most writers, of one file through the page cache that are named.
const MAX_NAMED: usize = 4;

/// Looks up and caches everything that reports add to events.
#[derive(Default)]
pub struct Enricher {
    files: Files,
    namespaces: Namespaces,
    extents: extents::RecentExtents,
    memory: RecentMemory,
    names: Names,
    /// `None` if stacks are not captured.
    stacks: Option<Stacks>,
    /// The data comes from a recording, so nothing is looked up on this machine.
    recorded: bool,
}

impl Enricher {
    /// Creates an enricher for a recording. It uses only recorded data and looks up nothing on this
    /// machine.
    #[must_use]
    pub fn recorded() -> Self {
        let (files, names) = (Files::recorded(), Names::recorded());
        Self { files, names, recorded: true, ..Self::default() }
    }

    /// Creates an enricher for live tracing that also resolves stacks, if `stacks` is given.
    #[must_use]
    pub fn with_stacks(stacks: Option<Stacks>) -> Self {
        Self { stacks, ..Self::default() }
    }

    /// The program's stack when it issued the request, if it was captured.
    pub fn stack(&mut self, request: &Request) -> Option<Arc<Stack>> {
        let number = request.stack.checked_sub(1)?;
        self.stacks.as_mut()?.get(request.task.tgid, number)
    }

    /// Adds a file from a recording. Its known buffered users are kept.
    pub fn recall(&mut self, key: FileId, mut info: FileInfo) {
        info.clean();
        if let Some(known) = self.files.get_mut(&key) {
            info.buffered_users = std::mem::take(&mut known.buffered_users);
        }
        self.files.entry(key).insert_entry(info);
    }

    /// Reads the mount tables of the processes in `first` and of all others, each namespace once.
    /// Done early, because the table of a process that has exited when its file is reported is
    /// lost.
    pub fn look_around(&mut self, first: &[u32]) {
        self.namespaces.look_around(first);
    }

    /// Sets the name of a process from a recording, if it has none yet.
    pub fn name(&mut self, tgid: u32, name: &[u8]) {
        self.names.name(tgid, name);
    }

    /// Sets the title of a process from a recording; it replaces an earlier one.
    pub fn entitle(&mut self, tgid: u32, title: &str) {
        self.names.entitle(tgid, title);
    }

    /// Names the placeholder for all files that are not listed individually.
    pub fn stand_in(&mut self, key: FileId, name: &str) {
        let file = self.files.entry(key).or_insert_with(|| lost_name(key, None));
        file.path = name.into();
    }

    /// Adds a file from its event. Does nothing if its path is known already.
    pub fn add(&mut self, event: &FileEvent) {
        let key = event.file;
        self.process(event.task.tgid, Some((0, &event.task.comm)));
        if self.files.get(&key).is_some_and(|known| known.named) {
            return;
        }
        let mount = self.mount(event);
        let mut info = describe(event, mount.as_ref());
        // Only containers have volumes.
        let id = self.names.container(event.task.tgid).and_then(|container| container.id.as_ref());
        if let (Some(mount), Some(_)) = (&mount, id) {
            info.volume = volume::of_mount(mount, || self.namespaces.host()).map(Arc::from);
        }
        self.files.entry(key).insert_entry(info);
    }

    /// The path of a file, if it is known.
    #[must_use]
    pub fn path(&self, key: FileId) -> Option<&str> {
        self.files.get(&key).filter(|file| file.named).map(|file| &*file.path)
    }

    /// The path in a file's event, without anything else of the file; `None` if its mount is not
    /// known.
    pub fn path_of(&mut self, event: &FileEvent) -> Option<String> {
        let len = (event.names_len as usize).min(event.names.len());
        let names = &event.names[..len];
        if event.flags & FILE_WITHOUT_MOUNT != 0 {
            let path = join(names, Some(b"/"));
            if event.flags & FILE_TRUNCATED != 0 {
                return Some(format!("…{}", escape(&path)));
            }
            let path = self.namespaces.path(event.task.tgid, event.file.dev, &path)?;
            return Some(escape(&path));
        }
        let mount = self.mount(event)?;
        Some(escape(&join(names, Some(&mount.point))))
    }

    /// Adds a file with the given attributes, for tests.
    #[cfg(test)]
    pub(crate) fn know(
        &mut self,
        key: FileId,
        path: &str,
        fs: &str,
        options: &str,
        attrs: FileAttrs,
    ) {
        let info = FileInfo {
            path: path.into(),
            fs: fs.into(),
            options: options.to_owned(),
            dev: device(attrs.dev, key.dev).into(),
            attrs,
            below: None,
            volume: None,
            buffered_users: BufferedUsers::default(),
            named: true,
            places: Vec::new(),
            traced: (key.ino, key.dev),
        };
        self.files.entry(key).insert_entry(info);
    }

    /// The file of a request or counter. If its name was lost, the open descriptors of the process
    /// `tgid` are searched for it.
    pub fn file(&mut self, key: FileId, tgid: u32) -> &FileInfo {
        let recorded = self.recorded;
        self.files.entry(key).or_insert_with(|| {
            let found = if recorded { None } else { open_files::find(tgid, key.ino) };
            lost_name(key, found)
        })
    }

    /// OR of the extent flags in a request's range; `None` if unknown.
    pub fn extent_flags(&mut self, request: &Request) -> Option<u32> {
        if request.flags & REQ_BLOCK_DEVICE != 0 || request.pos < 0 {
            return None;
        }
        let key = request.file;
        let info = self.files.get(&key)?;
        self.extents.flags(key, (request.pos as u64, request.len), || open(info))
    }

    /// How the buffer of a request that ended with EFAULT is mapped now; `None` for other requests
    /// and if it is unknown. Of a vector only the address of the vector itself is known.
    pub fn memory(&mut self, request: &Request) -> Option<Memory> {
        let single = request.flags & REQ_VECTORED == 0 && request.user != 0;
        if request.ret != -i64::from(libc::EFAULT) || !single {
            return None;
        }
        let need = match request.op() {
            Op::Read => Need::Writable,
            Op::Write => Need::Readable,
        };
        self.memory.look(request.task.tgid, request.user, request.len, need)
    }

    /// Adds a process that uses a file through the page cache. Returns the name of the process.
    pub fn buffered_user(&mut self, event: &BufferedUseEvent) -> Arc<str> {
        let buffered_use = &event.buffered_use;
        let comm = self.process(buffered_use.tgid, Some((event.task.tid, &event.task.comm)));
        self.file(buffered_use.file, buffered_use.tgid);
        if let Some(file) = self.files.get_mut(&buffered_use.file) {
            let writes = buffered_use.how == MIXED_DIRTIED;
            let users = if writes {
                &mut file.buffered_users.writers
            } else {
                &mut file.buffered_users.readers
            };
            let user = BufferedUser {
                pid: buffered_use.tgid,
                name: format!("{comm}/{}", buffered_use.tgid),
            };
            if users.len() < MAX_NAMED && !users.contains(&user) {
                users.push(user);
            }
        }
        comm
    }

    /// The name of a process; `seen` is the id and the name of one of its threads.
    pub fn process(&mut self, tgid: u32, seen: Option<(u32, &[u8; 16])>) -> Arc<str> {
        self.names.process(tgid, seen)
    }

    /// The title that a process shows in its command line, if it differs from the name.
    pub fn title(&mut self, tgid: u32) -> Option<Arc<str>> {
        self.names.title(tgid)
    }

    /// The container of a process, as it was when the process was first seen; `None` if it is not
    /// known.
    pub fn container(&mut self, tgid: u32) -> Option<&Container> {
        self.names.container(tgid)
    }

    /// The container of the processes in a cgroup, which is given by its path.
    pub fn container_of(&mut self, cgroup: &str) -> Option<Container> {
        self.names.container_of(cgroup)
    }

    /// The names of a request's process that the request shows.
    pub(crate) fn shown_names(&mut self, task: &Task) -> ShownNames {
        self.names.shown(task.tgid, (task.tid, &task.comm))
    }

    /// Sets the container of a process from a recording.
    pub fn contain(&mut self, tgid: u32, container: Container) {
        self.names.contain(tgid, container);
    }

    /// The mount that a file is on.
    fn mount(&mut self, event: &FileEvent) -> Option<Mount> {
        if self.recorded {
            return None;
        }
        // The event has the number of the block device itself, not of the file system of its node.
        let itself = escape_c(&event.fs_name) == "bdev";
        let dev = (!itself).then_some(event.file.dev);
        self.namespaces.mount(MountQuery { tgid: event.task.tgid, id: event.mnt_id, dev })
    }
}

/// Joins the names of path components (leaf first) and the mount point to a path.
fn join(names: &[u8], point: Option<&[u8]>) -> Vec<u8> {
    let mut path = point.unwrap_or(b"<mount?>").to_vec();
    if path == b"/" {
        path.clear();
    }
    let names: Vec<&[u8]> = names.split(|&b| b == 0).filter(|name| !name.is_empty()).collect();
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() { b"/".to_vec() } else { path }
}

fn describe(event: &FileEvent, mount: Option<&Mount>) -> FileInfo {
    let len = (event.names_len as usize).min(event.names.len());
    let path = join(&event.names[..len], mount.map(|mount| &*mount.point));
    let mut shown = escape(&path);
    if event.flags & FILE_TRUNCATED != 0 {
        shown.insert(0, '…');
    }
    if event.flags & FILE_UNHASHED != 0 {
        shown.push_str(" (deleted)");
    }
    // The process may be in another mount namespace: go through its root directory.
    let local = Path::new(OsStr::from_bytes(&path));
    let places = vec![in_root_of(event.task.tgid, local), local.to_path_buf()];
    let below = mount.filter(|m| m.fs == "overlay").and_then(below_overlay);
    let source = below.as_ref().or(mount).map(|m| m.source.as_str());
    let fs = escape_c(&event.fs_name);
    let traced = (event.file.ino, event.file.dev);
    let itself = fs == "bdev";
    let gone = || {
        let mount = mount.filter(|_| !itself);
        mount.map(|mount| of_gone_file(event, mount, source)).unwrap_or_default()
    };
    let attrs = find(&places, traced, &fs).map_or_else(gone, |file| file.attrs(source));
    FileInfo {
        path: shown.into(),
        fs: fs.into(),
        options: mount.map(|m| m.options.clone()).unwrap_or_default(),
        dev: device(attrs.dev, event.file.dev).into(),
        attrs,
        below: below.map(|m| (m.fs, m.options)),
        volume: None,
        buffered_users: BufferedUsers::default(),
        named: mount.is_some(),
        places,
        traced,
    }
}

/// A path as the process `tgid` sees it, through its root directory.
fn in_root_of(tgid: u32, path: &Path) -> PathBuf {
    let root = Path::new("/proc").join(tgid.to_string()).join("root");
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The attributes of a file that no longer has a name. Its process may be gone too: then the mount
/// point is looked up in this mount namespace.
fn of_gone_file(event: &FileEvent, mount: &Mount, source: Option<&str>) -> FileAttrs {
    let point = Path::new(OsStr::from_bytes(&mount.point));
    let foreign = in_root_of(event.task.tgid, point);
    let place = if foreign.exists() { &foreign } else { point };
    of_gone(place, event.file.dev, source)
}

/// Opens a file to query its extents.
fn open(info: &FileInfo) -> Option<File> {
    find(&info.places, info.traced, &info.fs)?.open()
}

/// Opens the file at the first of `places` that has it. Dropping the result closes it.
fn find(places: &[PathBuf], traced: (u64, u32), fs: &str) -> Option<Asked> {
    places.iter().find_map(|place| Asked::find(place, traced, fs).ok())
}

/// The mount of the file system that holds the layers of an overlay: of its upper layer, or of its
/// first lower layer if it has none. The overlay's options contain paths in the mount namespace of
/// the process that mounted it. For containers that is usually the tracer's namespace; inside a
/// container the paths do not exist.
fn below_overlay(overlay: &Mount) -> Option<Mount> {
    let layer = |name: &str| overlay.options.split(',').find_map(|o| o.strip_prefix(name));
    let lower = || layer("lowerdir=").and_then(|layers| layers.split(':').next());
    let path = Path::new(layer("upperdir=").or_else(lower)?);
    let gone = std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == ErrorKind::NotFound);
    let mounts = mounts::of_process(std::process::id());
    let below = mounts::of_path(&mounts, path).filter(|_| !gone)?;
    (below.options != overlay.options).then(|| below.clone())
}

/// The description of a file whose name was lost; `found` is its path if a descriptor was found.
fn lost_name(key: FileId, found: Option<(PathBuf, String)>) -> FileInfo {
    let attrs = found
        .as_ref()
        .and_then(|(real, _)| Some(Asked::find(real, (key.ino, key.dev), "").ok()?.attrs(None)))
        .unwrap_or_default();
    let named = found.is_some();
    let (places, path) = found.map_or_else(
        || (Vec::new(), format!("<inode {}>", key.ino)),
        |(real, shown)| (vec![real], shown),
    );
    FileInfo {
        path: path.into(),
        fs: Arc::default(),
        options: String::new(),
        dev: device(attrs.dev, key.dev).into(),
        attrs,
        below: None,
        volume: None,
        buffered_users: BufferedUsers::default(),
        named,
        places,
        traced: (key.ino, key.dev),
    }
}

/// Formats the device number from stat(2) if known, else the kernel's `dev_t`, as "major:minor".
fn device(stat: Option<(u32, u32)>, kernel: u32) -> String {
    let (major, minor) = stat.unwrap_or((kernel >> 20, kernel & 0xf_ffff));
    format!("{major}:{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_joined_from_the_root() {
        assert_eq!(join(b"f\0dir\0", Some(b"/mnt/t")), b"/mnt/t/dir/f");
        assert_eq!(join(b"f\0", Some(b"/")), b"/f");
        assert_eq!(join(b"", Some(b"/")), b"/");
        assert_eq!(join(b"f\0", None), b"<mount?>/f");
    }

    #[test]
    fn a_lost_name_is_said_to_be_lost() {
        let mut enricher = Enricher::default();
        let key = FileId { inode: 1, ino: u64::MAX, dev: 8 << 20 | 1, generation: 0 };
        let info = enricher.file(key, u32::MAX);
        assert_eq!((&*info.path, &*info.dev), ("<inode 18446744073709551615>", "8:1"));
        assert!(!info.named);
    }
}
