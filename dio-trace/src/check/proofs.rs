//! Remembers the results of trials, so that each kind of file on a file system is tried only once.
//! Files are of one kind if everything visible that decides how they are read or written is equal.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    hash::Hash,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use dio_trace_common::verdict::Verdict;

use crate::{
    check::{
        Access,
        forecast::forecast,
        new_file::{self, NewFileTrials},
        read,
        subject::{Subject, What},
        trial::Trial,
    },
    system::{
        extents::extent,
        file_attrs::{attributes, inode_flags},
    },
};

/// Trials per kind of directory that may prove nothing before no more are made.
const PATIENCE: u32 = 3;
/// Maximum number of remembered kinds. On file systems where files do not share results, each file
/// is a kind of its own.
const MAX_KINDS: usize = 1 << 14;

/// The results for every kind of access.
pub(super) struct Seen {
    pub(super) read: Trial,
    pub(super) overwrite: Trial,
    pub(super) extend: Trial,
}

impl Seen {
    /// The results if no trials are to be made.
    pub(super) fn refrained() -> Self {
        let nothing = || Trial::nothing("not tried (--no-probe)");
        Self { read: nothing(), overwrite: nothing(), extend: nothing() }
    }
}

/// The results of all trials of one run.
#[derive(Default)]
pub(super) struct Proofs {
    reads: HashMap<FileKind, Kept<Trial>>,
    new_file: HashMap<FolderKind, Kept<NewFileTrials>>,
    /// Numbers of files that were read and of temporary files that were made.
    #[cfg(test)]
    pub(super) made: (usize, usize),
}

/// The remembered result of a kind.
struct Kept<T> {
    /// The path for which the trial was made.
    path: Arc<str>,
    result: T,
    tries: u32,
}

/// A file system, or one file or directory of a file system whose files do not share results.
#[derive(Clone, PartialEq, Eq, Hash)]
struct FileSystem {
    fs: Arc<str>,
    dev: Arc<str>,
    source: String,
    options: String,
    /// Set where files do not share results: a FUSE daemon decides for each file, and the files of
    /// an overlay may be on different lower file systems.
    only: Option<PathBuf>,
}

impl FileSystem {
    fn of(subject: &Subject, only: &Path) -> Self {
        let fs = &subject.file.fs;
        let each = matches!(&**fs, "overlay" | "virtiofs") || fs.starts_with("fuse");
        Self {
            fs: fs.clone(),
            dev: subject.file.dev.clone(),
            source: subject.source.clone(),
            options: subject.file.options.clone(),
            only: each.then(|| only.to_path_buf()),
        }
    }
}

/// Everything visible of a file that may decide how the kernel reads it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct FileKind {
    home: FileSystem,
    flags: Option<u32>,
    attributes: Option<u64>,
    limits: (Option<(u32, u32)>, Option<u32>),
    extents: Option<u32>,
    /// The file has no allocated blocks: it is a hole, or its data is inline in its metadata.
    no_blocks: bool,
}

impl FileKind {
    fn of(subject: &Subject) -> Self {
        let attrs = subject.attrs();
        let relevant = extent::ENCODED | extent::INLINE | extent::SHARED;
        Self {
            home: FileSystem::of(subject, subject.path()),
            flags: attrs.flags,
            attributes: attrs.attributes,
            limits: (attrs.dio_align, attrs.dio_read_align),
            extents: subject.extents.map(|flags| flags & relevant),
            no_blocks: attrs.allocated == Some(0),
        }
    }
}

/// Everything visible that new files inherit from a directory.
#[derive(Clone, PartialEq, Eq, Hash)]
struct FolderKind {
    home: FileSystem,
    flags: Option<u32>,
    attributes: Option<u64>,
}

impl FolderKind {
    /// A directory that cannot be opened is a kind of its own, because its flags are unknown.
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
    /// Makes the trials for the subject, or reuses the results of its kind.
    pub(super) fn seen(&mut self, subject: &Subject) -> Seen {
        let NewFileTrials { read, overwrite, extend, .. } = match subject.folder() {
            Some(folder) if subject.writable() => self.new_file(subject, folder),
            Some(_) => NewFileTrials::nothing("read-only"),
            None => NewFileTrials::nothing("a device is not written to"),
        };
        let read =
            if subject.what == What::Directory { read } else { self.read(subject).or_of_new(read) };
        Seen { read, overwrite, extend }
    }

    fn read(&mut self, subject: &Subject) -> Trial {
        if subject.size == 0 || subject.is_device() {
            return read::read_itself(subject);
        }
        let kind = FileKind::of(subject);
        if let Some(kept) = self.reads.get(&kind) {
            return kept.result.of_sibling(&kept.path);
        }
        #[cfg(test)]
        (self.made.0 += 1);
        let result = read::read_itself(subject);
        if result.proof().is_some_and(|proof| holds_for_siblings(subject, proof.verdict)) {
            let kept = Kept { path: subject.file.path.clone(), result: result.clone(), tries: 1 };
            keep(&mut self.reads, kind, kept);
        }
        result
    }

    fn new_file(&mut self, subject: &Subject, folder: &Path) -> NewFileTrials {
        let kind = FolderKind::of(subject, folder);
        let tries = match self.new_file.get(&kind) {
            Some(kept) if kept.result.is_proven() => {
                return kept.result.of_sibling(&kept.path).of(subject);
            }
            Some(kept) if kept.tries >= PATIENCE => return kept.result.clone().of(subject),
            Some(kept) => kept.tries,
            None => 0,
        };
        #[cfg(test)]
        (self.made.1 += 1);
        let result = new_file::try_out(subject, folder);
        // If no file could be made here, one may still be made in another directory of this kind.
        if result.was_made() {
            let path = subject.file.path.clone();
            keep(&mut self.new_file, kind, Kept { path, result: result.clone(), tries: tries + 1 });
        }
        result.of(subject)
    }
}

fn keep<K: Eq + Hash, T>(all: &mut HashMap<K, Kept<T>>, kind: K, kept: Kept<T>) {
    if all.len() >= MAX_KINDS {
        all.clear();
    }
    all.insert(kind, kept);
}

/// Whether a verdict may be reused for other files of this kind. A verdict through the page cache
/// that was not forecast may have a reason in this one file that its kind does not show.
fn holds_for_siblings(subject: &Subject, verdict: Verdict) -> bool {
    super::is_past_cache(verdict) || forecast(subject, Access::Read).0 == verdict
}
