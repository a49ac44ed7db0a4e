//! Process, path, mount and file facts: what the events alone do not say.

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
    FILE_TRUNCATED, FILE_UNHASHED, FileEvent, FileId, MIXED_DIRTIED, MixerEvent, REQ_BLOCK_DEVICE,
    Request,
};

use crate::{
    model::{BufferedUser, BufferedUsers, FileInfo},
    system::{
        extents,
        file_attrs::Asked,
        mounts::{self, Mount},
        namespaces::{MountQuery, Namespaces},
        open_files,
        stack::Stack,
        symbols::Stacks,
    },
    util::escape::{escape, escape_c},
};
use files::Files;
pub(crate) use inspect::PathInspector;
use names::Names;
pub(crate) use names::thread;

/// Users of one file through the page cache that are named.
const MAX_NAMED: usize = 4;

/// Caches over everything that was asked.
#[derive(Default)]
pub struct Enricher {
    files: Files,
    namespaces: Namespaces,
    extents: extents::RecentExtents,
    names: Names,
    /// If they are asked for.
    stacks: Option<Stacks>,
    /// What it knows was recorded elsewhere: this machine is not asked.
    recorded: bool,
}

impl Enricher {
    /// One that knows what it is told, and asks nothing of this machine.
    #[must_use]
    pub fn recorded() -> Self {
        let (files, names) = (Files::recorded(), Names::recorded());
        Self { files, names, recorded: true, ..Self::default() }
    }

    /// One that looks stacks up, too.
    #[must_use]
    pub fn with_stacks(stacks: Option<Stacks>) -> Self {
        Self { stacks, ..Self::default() }
    }

    /// The program's stack when it made that request, if it was taken.
    pub fn stack(&mut self, request: &Request) -> Option<Arc<Stack>> {
        let number = request.stack.checked_sub(1)?;
        self.stacks.as_mut()?.get(request.tgid, number)
    }

    /// Takes what a recording says of a file; who mixes stays as it is.
    pub fn recall(&mut self, key: FileId, mut info: FileInfo) {
        info.clean();
        if let Some(known) = self.files.get_mut(&key) {
            info.buffered_users = std::mem::take(&mut known.buffered_users);
        }
        self.files.entry(key).insert_entry(info);
    }

    /// Reads the mounts of these processes and of all others, each namespace once: of one that is gone
    /// when its file is told, nobody could ask.
    pub fn look_around(&mut self, first: &[u32]) {
        self.namespaces.look_around(first);
    }

    /// Takes the name of a process from a recording, if it has none yet.
    pub fn name(&mut self, tgid: u32, name: &[u8]) {
        self.names.name(tgid, name);
    }

    /// Takes the title of a process from a recording, in place of an earlier one.
    pub fn entitle(&mut self, tgid: u32, title: &str) {
        self.names.entitle(tgid, title);
    }

    /// Names what stands for more files than are told apart.
    pub fn stand_in(&mut self, key: FileId, name: &str) {
        let file = self.files.entry(key).or_insert_with(|| lost_name(key, None));
        name.clone_into(&mut file.path);
    }

    /// Takes the names of a file; does nothing if it is known.
    pub fn add(&mut self, event: &FileEvent) {
        let key = FileId::from(event);
        self.process(event.tgid, Some((0, &event.comm)));
        if self.files.get(&key).is_some_and(|known| !known.path.starts_with('<')) {
            return;
        }
        let mount = self.mount(event);
        let info = describe(event, mount.as_ref());
        self.files.entry(key).insert_entry(info);
    }

    /// Takes what is known of a file, for tests.
    #[cfg(test)]
    pub(crate) fn know(
        &mut self,
        key: FileId,
        path: &str,
        fs: &str,
        options: &str,
        attrs: crate::system::file_attrs::FileAttrs,
    ) {
        let info = FileInfo {
            path: path.to_owned(),
            fs: fs.to_owned(),
            options: options.to_owned(),
            dev: device(attrs.dev, key.dev),
            attrs,
            below: None,
            buffered_users: BufferedUsers::default(),
            places: Vec::new(),
            traced: (key.ino, key.dev),
        };
        self.files.entry(key).insert_entry(info);
    }

    /// The file of a request or counter. One whose name was lost is looked for among the open
    /// descriptors of `tgid`.
    pub fn file(&mut self, key: FileId, tgid: u32) -> &FileInfo {
        let recorded = self.recorded;
        self.files.entry(key).or_insert_with(|| {
            let found = if recorded { None } else { open_files::find(tgid, key.ino) };
            lost_name(key, found)
        })
    }

    /// OR of the extent flags in a request's range.
    pub fn extent_flags(&mut self, request: &Request) -> Option<u32> {
        if request.flags & REQ_BLOCK_DEVICE != 0 || request.pos < 0 {
            return None;
        }
        let key = FileId::from(request);
        let info = self.files.get(&key)?;
        self.extents.flags(key, (request.pos as u64, request.len), || open(info))
    }

    /// Takes a process that uses a file through the page cache; its name.
    pub fn buffered_user(&mut self, event: &MixerEvent) -> String {
        let mixer = &event.mixer;
        let comm = self.process(mixer.tgid, Some((event.tid, &event.comm)));
        self.file(FileId::from(mixer), mixer.tgid);
        if let Some(file) = self.files.get_mut(&FileId::from(mixer)) {
            let writes = mixer.how == MIXED_DIRTIED;
            let users = if writes {
                &mut file.buffered_users.writers
            } else {
                &mut file.buffered_users.readers
            };
            let user = BufferedUser { pid: mixer.tgid, name: format!("{comm}/{}", mixer.tgid) };
            if users.len() < MAX_NAMED && !users.contains(&user) {
                users.push(user);
            }
        }
        comm
    }

    /// The name of a process; `seen` are a thread of it and its name.
    pub fn process(&mut self, tgid: u32, seen: Option<(u32, &[u8; 16])>) -> String {
        self.names.process(tgid, seen)
    }

    /// What a process calls itself, if that says more than its name.
    pub fn title(&mut self, tgid: u32) -> Option<String> {
        self.names.title(tgid)
    }

    /// The mount that a file is on.
    fn mount(&mut self, event: &FileEvent) -> Option<Mount> {
        if self.recorded {
            return None;
        }
        // A block device has its own number, not that of the file system that its node is in.
        let itself = escape_c(&event.fs_name) == "bdev";
        let dev = (!itself).then_some(event.dev);
        self.namespaces.mount(MountQuery { tgid: event.tgid, id: event.mnt_id, dev })
    }
}

/// The bytes of the path, from the names (leaf first) and the mount.
fn join(names: &[u8], mount: Option<&Mount>) -> Vec<u8> {
    let mut path = mount.map_or_else(|| b"<mount?>".to_vec(), |m| m.point.clone());
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
    let path = join(&event.names[..len], mount);
    let mut shown = escape(&path);
    if event.flags & FILE_TRUNCATED != 0 {
        shown.insert(0, '…');
    }
    if event.flags & FILE_UNHASHED != 0 {
        shown.push_str(" (deleted)");
    }
    // Another mount namespace has other paths: go through the process's own root.
    let local = Path::new(OsStr::from_bytes(&path));
    let foreign = Path::new("/proc").join(event.tgid.to_string()).join("root");
    let foreign = foreign.join(local.strip_prefix("/").unwrap_or(local));
    let places = vec![foreign, local.to_path_buf()];
    let below = mount.filter(|m| m.fs == "overlay").and_then(below_overlay);
    let source = below.as_ref().or(mount).map(|m| m.source.as_str());
    let fs = escape_c(&event.fs_name);
    let traced = (event.ino, event.dev);
    let attrs = find(&places, traced, &fs).map(|file| file.attrs(source)).unwrap_or_default();
    FileInfo {
        path: shown,
        fs,
        options: mount.map(|m| m.options.clone()).unwrap_or_default(),
        dev: device(attrs.dev, event.dev),
        attrs,
        below: below.map(|m| (m.fs, m.options)),
        buffered_users: BufferedUsers::default(),
        places,
        traced,
    }
}

/// Opens a file for its extents, for a moment.
fn open(info: &FileInfo) -> Option<File> {
    find(&info.places, info.traced, &info.fs)?.open()
}

/// The first of these places that has the file; nothing of it stays open once it is dropped.
fn find(places: &[PathBuf], traced: (u64, u32), fs: &str) -> Option<Asked> {
    places.iter().find_map(|place| Asked::find(place, traced, fs).ok())
}

/// The mount that an overlay writes to, or reads from if it has no upper layer. Its options name
/// paths of whoever mounted it, in a container's case the tracer's own namespace. From inside of one
/// they lead nowhere.
fn below_overlay(overlay: &Mount) -> Option<Mount> {
    let layer = |name: &str| overlay.options.split(',').find_map(|o| o.strip_prefix(name));
    let lower = || layer("lowerdir=").and_then(|layers| layers.split(':').next());
    let path = Path::new(layer("upperdir=").or_else(lower)?);
    let gone = std::fs::symlink_metadata(path).is_err_and(|e| e.kind() == ErrorKind::NotFound);
    let mounts = mounts::of_process(std::process::id());
    let below = mounts::of_path(&mounts, path).filter(|_| !gone)?;
    (below.options != overlay.options).then(|| below.clone())
}

/// What is shown of a file whose name never arrived.
fn lost_name(key: FileId, found: Option<(PathBuf, String)>) -> FileInfo {
    let attrs = found
        .as_ref()
        .and_then(|(real, _)| Some(Asked::find(real, (key.ino, key.dev), "").ok()?.attrs(None)))
        .unwrap_or_default();
    let (places, path) = found.map_or_else(
        || (Vec::new(), format!("<inode {}>", key.ino)),
        |(real, shown)| (vec![real], shown),
    );
    FileInfo {
        path,
        fs: String::new(),
        options: String::new(),
        dev: device(attrs.dev, key.dev),
        attrs,
        below: None,
        buffered_users: BufferedUsers::default(),
        places,
        traced: (key.ino, key.dev),
    }
}

/// stat's device where it is known, else the kernel's `dev_t`.
fn device(stat: Option<(u32, u32)>, kernel: u32) -> String {
    let (major, minor) = stat.unwrap_or((kernel >> 20, kernel & 0xf_ffff));
    format!("{major}:{minor}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::mounts::tests::mount;

    #[test]
    fn names_are_joined_from_the_root() {
        assert_eq!(join(b"f\0dir\0", Some(&mount("/mnt/t"))), b"/mnt/t/dir/f");
        assert_eq!(join(b"f\0", Some(&mount("/"))), b"/f");
        assert_eq!(join(b"", Some(&mount("/"))), b"/");
        assert_eq!(join(b"f\0", None), b"<mount?>/f");
    }

    #[test]
    fn a_lost_name_is_said_to_be_lost() {
        let mut enricher = Enricher::default();
        let key = FileId { inode: 1, ino: u64::MAX, dev: 8 << 20 | 1, generation: 0 };
        let info = enricher.file(key, u32::MAX);
        assert_eq!(
            (info.path.as_str(), info.dev.as_str()),
            ("<inode 18446744073709551615>", "8:1")
        );
    }
}
