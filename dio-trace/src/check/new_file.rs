//! Trials on a temporary file in the path's directory: extending writes, overwrites and reads. The
//! file has no name while it is used.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use crate::{
    check::{
        buffer::Aligned,
        cache::{HELD_BACK, Lookout, dirtied, drop_pages, page, resident},
        read::Read,
        subject::{Subject, What},
        temporary::temporary,
        trial::{Home, Trial, Whose},
        watch::{MOST, Watched, looks_are_apart, watch},
    },
    system::{
        extents::extent,
        file_attrs::{attribute, attributes, flag, inode_flags},
    },
    util::errno,
};

/// Size of a write in bytes.
const CHUNK: usize = 64 << 10;

/// The results of the trials on one temporary file.
#[derive(Clone, Debug)]
pub(super) struct NewFileTrials {
    pub(super) read: Trial,
    pub(super) overwrite: Trial,
    pub(super) extend: Trial,
    /// The kind of the temporary file; `None` if no file could be made.
    kind: Option<Kind>,
}

/// The visible attributes that decide how the kernel reads and writes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    flags: Option<u32>,
    attributes: Option<u64>,
}

impl Kind {
    fn new(flags: Option<u32>, attributes: Option<u64>) -> Self {
        const FLAGS: u32 = flag::COMPRESSED
            | flag::ENCRYPTED
            | flag::JOURNAL_DATA
            | flag::VERITY
            | flag::NOCOW
            | flag::INLINE_DATA
            | flag::EXTENTS;
        const ATTRIBUTES: u64 =
            attribute::COMPRESSED | attribute::ENCRYPTED | attribute::VERITY | attribute::DAX;
        Self {
            flags: flags.map(|flags| flags & FLAGS),
            attributes: attributes.map(|bits| bits & ATTRIBUTES),
        }
    }

    fn of_subject(subject: &Subject) -> Self {
        Self::new(subject.attrs().flags, subject.attrs().attributes)
    }
}

impl NewFileTrials {
    /// No trial proved anything, for the reason `why`.
    pub(super) fn nothing(why: &str) -> Self {
        let nothing = || Trial::nothing(why);
        Self { read: nothing(), overwrite: nothing(), extend: nothing(), kind: None }
    }

    fn every(result: &Trial) -> Self {
        let [read, overwrite, extend] = [result; 3].map(Clone::clone);
        Self { read, overwrite, extend, kind: None }
    }

    /// True if both kinds of writes to new files of this directory have a proven verdict.
    pub(super) fn is_proven(&self) -> bool {
        self.extend.proof().is_some() && self.overwrite.proof().is_some()
    }

    /// False if no file could be made; one may still be made in another directory of the same kind.
    pub(super) fn was_made(&self) -> bool {
        self.kind.is_some() || self.is_proven()
    }

    /// The results that also hold for the subject.
    pub(super) fn of(self, subject: &Subject) -> Self {
        let Some(kind) = self.kind else { return self };
        if subject.what != What::Directory && kind != Kind::of_subject(subject) {
            return Self::nothing("a new temporary file has other attributes than this file");
        }
        // Compressed or inline data in this file does not affect writes to new blocks.
        if subject.extents.is_none_or(|e| e & (extent::ENCODED | extent::INLINE) == 0) {
            return self;
        }
        let extend = self.extend;
        let why = "this file has compressed or inline data, a new temporary file has none";
        Self { extend, ..Self::nothing(why) }
    }

    /// Marks the results as those of another file of the same kind.
    pub(super) fn of_sibling(&self, path: &str) -> Self {
        let mark = |result: &Trial| result.of_sibling(path);
        let [read, overwrite, extend] = [&self.read, &self.overwrite, &self.extend].map(mark);
        Self { read, overwrite, extend, kind: self.kind }
    }
}

/// Makes a temporary file in the directory, extends it, overwrites it and reads it.
pub(super) fn try_out(subject: &Subject, folder: &Path) -> NewFileTrials {
    let file = match temporary(folder) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let what = "open of a new file with O_DIRECT";
            return NewFileTrials::every(&Trial::error(&error, what, true, Whose::New));
        }
        Err(error) => {
            let name = errno::name(i64::from(error.raw_os_error().unwrap_or(0)));
            return NewFileTrials::nothing(&format!("no file can be made in its folder: {name}"));
        }
    };
    let attributes = attributes(&file);
    let dax = attributes.is_some_and(|bits| bits & attribute::DAX != 0);
    let home = Home { dax, ..subject.home() };
    let new = New { file: &file, home, unit: subject.unit() };
    // The inode flags are read below, when the file has data: the first write may clear some.
    let (extend, size) = new.extend();
    let written = |trial: &dyn Fn() -> Trial| match drop_pages(&file) {
        Ok(()) => trial(),
        Err(_) => Trial::nothing("the new file could not be written back"),
    };
    let overwrite = written(&|| new.overwrite(size));
    let read = written(&|| new.read(size));
    NewFileTrials { read, overwrite, extend, kind: Some(Kind::new(inode_flags(&file), attributes)) }
}

/// A temporary file, which no other process uses.
struct New<'a> {
    file: &'a File,
    home: Home,
    unit: usize,
}

impl New<'_> {
    /// Appends to the file; returns the result and the file's new size in bytes.
    fn extend(&self) -> (Trial, u64) {
        let result = self.write("to new blocks", |n| (n * CHUNK) as u64);
        (result, self.file.metadata().map_or(0, |about| about.len()))
    }

    /// Overwrites the file's chunks except the first: [`watch`] ignores the first write of a file.
    fn overwrite(&self, size: u64) -> Trial {
        match (size as usize / CHUNK).checked_sub(1) {
            None | Some(0) => Trial::nothing("the new file could not be written"),
            Some(others) => {
                self.write("over existing blocks", |n| ((1 + n % others) * CHUNK) as u64)
            }
        }
    }

    fn read(&self, size: u64) -> Trial {
        let whole = (size as usize).min(MOST * CHUNK);
        if whole > 0 && resident(self.file, 0, whole) != Some(0) {
            return Trial::nothing("the new file's pages stay in the page cache");
        }
        let Self { file, home, unit } = *self;
        Read { file, size, unit, home, of: Whose::New }.read()
    }

    /// Writes while a second thread observes the page cache. If the thread could not observe at the
    /// right moments, a system-wide count of dirtied pages that did not rise still proves that the
    /// writes dirtied none.
    fn write(&self, how: &str, at: impl Fn(usize) -> u64) -> Trial {
        let range = (CHUNK as u64, (MOST - 1) * CHUNK);
        let Some(lookout) = Lookout::over(self.file, range.0, range.1) else {
            return Trial::nothing(
                "the kernel does not say what is cached of a new temporary file",
            );
        };
        // Pages left by earlier writes would be attributed to these.
        if !self.home.memory && lookout.pages() != Some(0) {
            return Trial::nothing("the new file's pages stay in the page cache");
        }
        let mut buffer = Aligned::new(CHUNK);
        let before = dirtied();
        let watched = watch(&lookout, |n| self.write_at(buffer.bytes(), at(n), how));
        let after = dirtied();
        let watched = match watched {
            Ok(watched) => watched,
            Err(failed) => return failed,
        };
        let rose = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        match lookout.pages() {
            Some(left) => self.judge(how, watched, left, rose),
            None => {
                Trial::nothing("the kernel does not say what is cached of a new temporary file")
            }
        }
    }

    fn write_at(&self, bytes: &[u8], at: u64, how: &str) -> Result<(), Trial> {
        let what = format!("a write {how} of a new temporary file");
        let failed = |error: &io::Error| Trial::error(error, &what, false, Whose::New);
        match self.file.write_at(bytes, at).map_err(|error| failed(&error))? {
            wrote if wrote == bytes.len() => Ok(()),
            wrote => Err(Trial::nothing(format!("{what} moved {wrote} of {} bytes", bytes.len()))),
        }
    }

    /// Decides the result from what was watched, from the pages of the file that are still cached
    /// (`left`) and from the number of pages dirtied system-wide (`rose`), if known.
    fn judge(&self, how: &str, watched: Watched, left: usize, rose: Option<u64>) -> Trial {
        let Watched { writes, looked, seen } = watched;
        let did = format!("{writes} writes of 64 KiB {how} of a new temporary file");
        let cached = |seen: String| {
            Trial::proven(self.home.through_cache(), format!("{did}: {seen}"), Whose::New)
        };
        let past = |seen: String| {
            Trial::proven(self.home.past_cache(), format!("{did}: {seen}"), Whose::New)
        };
        if left > 0 {
            return cached(format!("{left} of its pages are cached now"));
        }
        if watched.shows_pages() {
            return cached(format!("pages of it were cached during {seen} of them"));
        }
        if watched.shows_none() && looks_are_apart() {
            return past(format!("no page of it was cached during the {looked} observed ones"));
        }
        if let Some(rose) = rose.filter(|rose| seen == 0 && too_few(*rose, writes, cpus())) {
            return past(format!(
                "{rose} pages of the whole system became dirty meanwhile, too few to be its own, \
                 and none is cached"
            ));
        }
        Trial::nothing(format!(
            "{did}: pages may have been cached and dropped in between; of {looked} observed \
             writes, {seen} showed some"
        ))
    }
}

/// True if the whole system dirtied too few pages to include those of all these writes. A larger
/// count proves nothing, because other processes write too.
fn too_few(rose: u64, writes: usize, cpus: u64) -> bool {
    let pages = (writes * CHUNK / page()) as u64;
    rose + HELD_BACK * cpus < pages / 2
}

fn cpus() -> u64 {
    // SAFETY: no preconditions.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_CONF) }).unwrap_or(u64::MAX >> 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(watched: (usize, usize, usize), left: usize, rose: u64) -> Option<&'static str> {
        let file = tempfile::tempfile().unwrap();
        let home = Home { dax: false, client: false, memory: false };
        let (writes, looked, seen) = watched;
        let result = New { file: &file, home, unit: 4096 }.judge(
            "somehow",
            Watched { writes, looked, seen },
            left,
            Some(rose),
        );
        result.proof().map(|proof| proof.verdict.as_str())
    }

    #[test]
    fn only_the_files_own_pages_prove_a_fallback() {
        assert_eq!(judged((64, 0, 0), 0, 1 << 30), None);
        assert_eq!(judged((64, 3, 1), 0, 1 << 30), None);
        assert_eq!(judged((3, 2, 2), 0, 0), Some("fallback"));
        assert_eq!(judged((64, 0, 0), 1, 0), Some("fallback"));
        // One observation with a page contradicts a count that did not rise.
        assert_eq!(judged((64, 9, 1), 0, 0), None);
        if looks_are_apart() {
            assert_eq!(judged((10, 9, 0), 0, 1 << 30), Some("direct"));
        }
    }

    #[test]
    fn a_count_is_too_few_only_if_it_cannot_hide_half_of_the_pages() {
        let half = (MOST * CHUNK / page() / 2) as u64;
        assert!(too_few(0, MOST, 1));
        assert!(!too_few(half - HELD_BACK, MOST, 1));
        assert!(!too_few(0, MOST, half / HELD_BACK + 1));
        assert!(!too_few(0, 2, 1));
    }
}
