//! Writes to a new file beside the path, which has no name left while it is used, and reads of it.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use crate::{
    check::{
        buffer::Aligned,
        cache::{HELD_BACK, Lookout, dirtied, drop_pages, page, resident},
        read::Read,
        subject::{Subject, What},
        temporary::temporary,
        told::{Home, Told, Whose},
        watch::{MOST, Watched, looks_are_apart, watch},
    },
    system::{
        extents::extent,
        file_attrs::{attribute, attributes, flag, inode_flags},
    },
    util::errno,
};

/// Bytes of a write.
const CHUNK: usize = 64 << 10;

/// What a new file in a folder told.
#[derive(Clone, Debug)]
pub(super) struct Fresh {
    pub(super) read: Told,
    pub(super) overwrite: Told,
    pub(super) extend: Told,
    /// What it says of itself, if one was made.
    kind: Option<Kind>,
}

/// What decides how a file is read and written, as far as it shows.
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

impl Fresh {
    /// Nothing was told of anything.
    pub(super) fn nothing(why: &str) -> Self {
        let told = || Told::nothing(why);
        Self { read: told(), overwrite: told(), extend: told(), kind: None }
    }

    fn every(told: &Told) -> Self {
        let [read, overwrite, extend] = [told; 3].map(Clone::clone);
        Self { read, overwrite, extend, kind: None }
    }

    /// True if it is known how the folder's new files are written.
    pub(super) fn is_proven(&self) -> bool {
        self.extend.proof().is_some() && self.overwrite.proof().is_some()
    }

    /// False if no file could be made: of another folder there may be more to tell.
    pub(super) fn was_made(&self) -> bool {
        self.kind.is_some() || self.is_proven()
    }

    /// What of it holds for this file too.
    pub(super) fn of(self, subject: &Subject) -> Self {
        let Some(kind) = self.kind else { return self };
        if subject.what != What::Directory && kind != Kind::of_subject(subject) {
            return Self::nothing("a new file beside it has other attributes than this file");
        }
        // What is compressed or inline already says nothing of new blocks.
        if subject.extents.is_none_or(|e| e & (extent::ENCODED | extent::INLINE) == 0) {
            return self;
        }
        let extend = self.extend;
        let why = "a new file beside it has no compressed or inline data, as this file has";
        Self { extend, ..Self::nothing(why) }
    }

    /// It, told of a file like this one.
    pub(super) fn of_sibling(&self, path: &str) -> Self {
        let told = |told: &Told| told.of_sibling(path);
        let [read, overwrite, extend] = [&self.read, &self.overwrite, &self.extend].map(told);
        Self { read, overwrite, extend, kind: self.kind }
    }
}

/// Makes a file in the folder, writes it, overwrites it and reads it.
pub(super) fn try_out(subject: &Subject, folder: &Path) -> Fresh {
    let file = match temporary(folder) {
        Ok(file) => file,
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let what = "open of a new file with O_DIRECT";
            return Fresh::every(&Told::error(&error, what, true, Whose::New));
        }
        Err(error) => {
            let name = errno::name(i64::from(error.raw_os_error().unwrap_or(0)));
            return Fresh::nothing(&format!("no file can be made in its folder: {name}"));
        }
    };
    let attributes = attributes(&file);
    let dax = attributes.is_some_and(|bits| bits & attribute::DAX != 0);
    let home = Home { dax, ..subject.home() };
    let new = New { file: &file, home, unit: subject.unit() };
    // The flags are those of a file with data: the first write may turn some off.
    let (extend, size) = new.extend();
    let written = |told: &dyn Fn() -> Told| match drop_pages(&file) {
        Ok(()) => told(),
        Err(_) => Told::nothing("the new file could not be written back"),
    };
    let overwrite = written(&|| new.overwrite(size));
    let read = written(&|| new.read(size));
    Fresh { read, overwrite, extend, kind: Some(Kind::new(inode_flags(&file), attributes)) }
}

/// A new file, nobody else's.
struct New<'a> {
    file: &'a File,
    home: Home,
    unit: usize,
}

impl New<'_> {
    /// Writes at its end; the bytes that it has then.
    fn extend(&self) -> (Told, u64) {
        let told = self.write("to new blocks", |n| (n * CHUNK) as u64);
        (told, self.file.metadata().map_or(0, |about| about.len()))
    }

    /// Writes to blocks that it has, but for the first one, of which nothing would be told.
    fn overwrite(&self, size: u64) -> Told {
        match (size as usize / CHUNK).checked_sub(1) {
            None | Some(0) => Told::nothing("the new file could not be written"),
            Some(others) => self.write("in place", |n| ((1 + n % others) * CHUNK) as u64),
        }
    }

    fn read(&self, size: u64) -> Told {
        let whole = (size as usize).min(MOST * CHUNK);
        if whole > 0 && resident(self.file, 0, whole) != Some(0) {
            return Told::nothing("the new file's pages stay in the page cache");
        }
        let Self { file, home, unit } = *self;
        Read { file, size, unit, home, of: Whose::New }.read()
    }

    /// Writes while the page cache is looked at. Where it shows nothing because nobody could look
    /// at the right moment, a count that did not rise still tells that no page became dirty.
    fn write(&self, how: &str, at: impl Fn(usize) -> u64) -> Told {
        let range = (CHUNK as u64, (MOST - 1) * CHUNK);
        let Some(lookout) = Lookout::over(self.file, range.0, range.1) else {
            return Told::nothing("the kernel does not say what is cached of a new file beside it");
        };
        // Those left by other writes would be taken for pages of these.
        if !self.home.memory && lookout.pages() != Some(0) {
            return Told::nothing("the new file's pages stay in the page cache");
        }
        let mut buffer = Aligned::new(CHUNK);
        let before = dirtied();
        let watched = watch(&lookout, |n| self.write_at(buffer.bytes(), at(n), how));
        let after = dirtied();
        let watched = match watched {
            Ok(watched) => watched,
            Err(told) => return told,
        };
        let rose = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        match lookout.pages() {
            Some(left) => self.judge(how, watched, left, rose),
            None => Told::nothing("the kernel does not say what is cached of a new file beside it"),
        }
    }

    fn write_at(&self, bytes: &[u8], at: u64, how: &str) -> Result<(), Told> {
        let what = format!("a write {how} of a new file beside it");
        let told = |error: &io::Error| Told::error(error, &what, false, Whose::New);
        match self.file.write_at(bytes, at).map_err(|error| told(&error))? {
            wrote if wrote == bytes.len() => Ok(()),
            wrote => Err(Told::nothing(format!("{what} moved {wrote} of {} bytes", bytes.len()))),
        }
    }

    /// Of pages that are `left`, and of those of the whole system that became dirty, if known.
    fn judge(&self, how: &str, watched: Watched, left: usize, rose: Option<u64>) -> Told {
        let Watched { writes, looked, seen } = watched;
        let did = format!("{writes} writes of 64 KiB {how} of a new file beside it");
        let cached = |seen: String| {
            Told::proven(self.home.through_cache(), format!("{did}: {seen}"), Whose::New)
        };
        let past = |seen: String| {
            Told::proven(self.home.past_cache(), format!("{did}: {seen}"), Whose::New)
        };
        if left > 0 {
            return cached(format!("{left} of its pages are cached now"));
        }
        if watched.shows_pages() {
            return cached(format!("pages of it were cached during {seen} of them"));
        }
        if watched.shows_none() && looks_are_apart() {
            return past(format!("looked at during {looked} of them, no page of it was cached"));
        }
        if let Some(rose) = rose.filter(|rose| seen == 0 && acquits(*rose, writes, cpus())) {
            return past(format!(
                "{rose} pages of the whole system became dirty meanwhile, too few to be its own, \
                 and none is cached"
            ));
        }
        Told::nothing(format!(
            "{did}: pages may have come and gone: of {looked} writes that were looked at meanwhile \
             {seen} showed some"
        ))
    }
}

/// True if so few pages of the system became dirty that those of all these writes cannot be among
/// them. A count that rose proves nothing: others write too.
fn acquits(rose: u64, writes: usize, cpus: u64) -> bool {
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
        let told = New { file: &file, home, unit: 4096 }.judge(
            "somehow",
            Watched { writes, looked, seen },
            left,
            Some(rose),
        );
        told.proof().map(|proof| proof.verdict.as_str())
    }

    #[test]
    fn its_own_pages_convict_and_those_of_the_system_never_do() {
        assert_eq!(judged((64, 0, 0), 0, 1 << 30), None);
        assert_eq!(judged((64, 3, 1), 0, 1 << 30), None);
        assert_eq!(judged((3, 2, 2), 0, 0), Some("fallback"));
        assert_eq!(judged((64, 0, 0), 1, 0), Some("fallback"));
        // One look with a page, and a count that stayed: somebody is wrong.
        assert_eq!(judged((64, 9, 1), 0, 0), None);
        if looks_are_apart() {
            assert_eq!(judged((10, 9, 0), 0, 1 << 30), Some("direct"));
        }
    }

    #[test]
    fn a_count_acquits_only_where_it_could_not_hide_half_of_the_pages() {
        let half = (MOST * CHUNK / page() / 2) as u64;
        assert!(acquits(0, MOST, 1));
        assert!(!acquits(half - HELD_BACK, MOST, 1));
        assert!(!acquits(0, MOST, half / HELD_BACK + 1));
        assert!(!acquits(0, 2, 1));
    }
}
