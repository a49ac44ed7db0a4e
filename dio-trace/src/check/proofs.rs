//! Proofs that were made, so that each kind of file of a file system is tried once.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    hash::Hash,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use dio_trace_common::verdict::Verdict;

use crate::{
    check::{
        Access,
        forecast::forecast,
        fresh::{self, Fresh},
        read,
        subject::{Subject, What},
        told::Told,
    },
    system::{
        extents::extent,
        file_attrs::{attributes, inode_flags},
    },
};

/// New files of a kind that were tried in vain before no more are.
const PATIENCE: u32 = 3;
/// Kinds that are kept; those of a file system that shares none are as many as files.
const MAX_KINDS: usize = 1 << 14;

/// What was seen of every kind of access.
pub(super) struct Seen {
    pub(super) read: Told,
    pub(super) overwrite: Told,
    pub(super) extend: Told,
}

impl Seen {
    /// Nothing was done.
    pub(super) fn refrained() -> Self {
        let nothing = || Told::nothing("not tried (--no-probe)");
        Self { read: nothing(), overwrite: nothing(), extend: nothing() }
    }
}

/// The proofs of a run.
#[derive(Default)]
pub(super) struct Proofs {
    reads: HashMap<FileKind, Kept<Told>>,
    fresh: HashMap<FolderKind, Kept<Fresh>>,
    /// Files that were read, and new ones that were made.
    #[cfg(test)]
    pub(super) made: (usize, usize),
}

/// What was told of a kind, first of a file with this path.
struct Kept<T> {
    path: String,
    told: T,
    tries: u32,
}

/// A file system, and whose files answer for each other there.
#[derive(Clone, PartialEq, Eq, Hash)]
struct FileSystem {
    fs: String,
    dev: String,
    source: String,
    options: String,
    /// Set where files do not answer for each other: a FUSE daemon decides for each, and those of an
    /// overlay may lie on different file systems.
    only: Option<PathBuf>,
}

impl FileSystem {
    fn of(subject: &Subject, only: &Path) -> Self {
        let fs = subject.file.fs.as_str();
        let each = fs == "overlay" || fs == "virtiofs" || fs.starts_with("fuse");
        Self {
            fs: fs.to_owned(),
            dev: subject.file.dev.clone(),
            source: subject.source.clone(),
            options: subject.file.options.clone(),
            only: each.then(|| only.to_path_buf()),
        }
    }
}

/// All that a file shows of how it is read.
#[derive(Clone, PartialEq, Eq, Hash)]
struct FileKind {
    home: FileSystem,
    flags: Option<u32>,
    attributes: Option<u64>,
    limits: (Option<(u32, u32)>, Option<u32>),
    extents: Option<u32>,
    /// It takes no blocks: a hole, or inline in its metadata.
    no_blocks: bool,
}

impl FileKind {
    fn of(subject: &Subject) -> Self {
        let attrs = subject.attrs();
        let telling = extent::ENCODED | extent::INLINE | extent::SHARED;
        Self {
            home: FileSystem::of(subject, subject.path()),
            flags: attrs.flags,
            attributes: attrs.attributes,
            limits: (attrs.dio_align, attrs.dio_read_align),
            extents: subject.extents.map(|flags| flags & telling),
            no_blocks: attrs.allocated == Some(0),
        }
    }
}

/// All that a folder hands on to its new files.
#[derive(Clone, PartialEq, Eq, Hash)]
struct FolderKind {
    home: FileSystem,
    flags: Option<u32>,
    attributes: Option<u64>,
}

impl FolderKind {
    /// A folder that does not tell answers for itself.
    fn of(subject: &Subject, folder: &Path) -> Self {
        let mut home = FileSystem::of(subject, folder);
        let open = |folder| {
            let flags = libc::O_DIRECTORY | libc::O_NONBLOCK;
            OpenOptions::new().read(true).custom_flags(flags).open(folder)
        };
        let open: Option<File> = open(folder).ok();
        if open.is_none() {
            home.only = Some(folder.to_path_buf());
        }
        Self {
            home,
            flags: open.as_ref().and_then(inode_flags),
            attributes: open.as_ref().and_then(attributes),
        }
    }
}

impl Proofs {
    /// Makes the requests, or finds those of a file like this one.
    pub(super) fn seen(&mut self, subject: &Subject) -> Seen {
        let Fresh { read, overwrite, extend, .. } = match subject.folder() {
            Some(folder) if subject.writable() => self.fresh(subject, folder),
            Some(_) => Fresh::nothing("read-only"),
            None => Fresh::nothing("a device is not written to"),
        };
        let read =
            if subject.what == What::Directory { read } else { self.read(subject).or_of_new(read) };
        Seen { read, overwrite, extend }
    }

    fn read(&mut self, subject: &Subject) -> Told {
        if subject.size == 0 || subject.is_device() {
            return read::read_itself(subject);
        }
        let kind = FileKind::of(subject);
        if let Some(kept) = self.reads.get(&kind) {
            return kept.told.of_sibling(&kept.path);
        }
        #[cfg(test)]
        (self.made.0 += 1);
        let told = read::read_itself(subject);
        if told.proof().is_some_and(|proof| holds_for_siblings(subject, proof.verdict)) {
            let kept = Kept { path: subject.file.path.clone(), told: told.clone(), tries: 1 };
            keep(&mut self.reads, kind, kept);
        }
        told
    }

    fn fresh(&mut self, subject: &Subject, folder: &Path) -> Fresh {
        let kind = FolderKind::of(subject, folder);
        let tries = match self.fresh.get(&kind) {
            Some(kept) if kept.told.is_proven() => {
                return kept.told.of_sibling(&kept.path).of(subject);
            }
            Some(kept) if kept.tries >= PATIENCE => return kept.told.clone().of(subject),
            Some(kept) => kept.tries,
            None => 0,
        };
        #[cfg(test)]
        (self.made.1 += 1);
        let told = fresh::try_out(subject, folder);
        // Where no file can be made, one may be in another folder.
        if told.was_made() {
            let path = subject.file.path.clone();
            keep(&mut self.fresh, kind, Kept { path, told: told.clone(), tries: tries + 1 });
        }
        told.of(subject)
    }
}

fn keep<K: Eq + Hash, T>(all: &mut HashMap<K, Kept<T>>, kind: K, kept: Kept<T>) {
    if all.len() >= MAX_KINDS {
        all.clear();
    }
    all.insert(kind, kept);
}

/// What nobody expects may have a reason in the one file that its kind does not show.
fn holds_for_siblings(subject: &Subject, verdict: Verdict) -> bool {
    super::is_past_cache(verdict) || forecast(subject, Access::Read).0 == verdict
}
