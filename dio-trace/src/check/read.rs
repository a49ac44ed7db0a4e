//! Small reads of a file, and what the page cache holds afterwards.

use std::{
    fs::File,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
};

use crate::check::{
    buffer::Aligned,
    cache::resident,
    subject::{Opened, Subject},
    told::{Home, Told, Whose},
};

/// Reads at most. Pages that another process brings in at one of them prove nothing.
const READS: usize = 3;
/// Places of a file that are looked at for those that are not cached.
const PLACES: u64 = 64;

/// Reads parts of the file that are not cached, and looks whether they are afterwards.
pub(super) fn read_itself(subject: &Subject) -> Told {
    let opened = subject.open_direct();
    if let Opened::Failed(error) = &opened {
        return Told::error(error, "open with O_DIRECT", true, Whose::Itself);
    }
    if subject.size == 0 {
        return Told::nothing("the file is empty");
    }
    let Opened::File(file) = opened else {
        return Told::nothing(
            "not read: that would renew its access time, which only its owner and root can avoid",
        );
    };
    let file = Read {
        file: &file,
        size: subject.size,
        unit: subject.unit(),
        home: subject.home(),
        of: Whose::Itself,
    };
    file.read()
}

/// A file to read from.
pub(super) struct Read<'a> {
    pub(super) file: &'a File,
    pub(super) size: u64,
    /// Bytes of a read.
    pub(super) unit: usize,
    pub(super) home: Home,
    pub(super) of: Whose,
}

/// What reads showed.
#[derive(Default)]
struct Shown {
    reads: usize,
    bytes: usize,
    /// Reads after which pages of the range were cached.
    cached: usize,
}

impl Read<'_> {
    /// Makes the reads, where nothing is cached.
    pub(super) fn read(&self) -> Told {
        // Without read-ahead, which would cache what is to be read next.
        // SAFETY: advice on a descriptor of our own.
        unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
        let mut shown = Shown::default();
        let mut looked = false;
        for offset in self.places() {
            match resident(self.file, offset, self.unit) {
                None => {
                    return Told::nothing(
                        "the kernel does not say what is cached, or not to who may not write the file",
                    );
                }
                Some(0) => {
                    looked = true;
                    if let Err(told) = self.read_at(offset, &mut shown) {
                        return told;
                    }
                }
                Some(_) => {}
            }
            if shown.reads == READS {
                break;
            }
        }
        if looked {
            self.judge(&shown)
        } else {
            Told::nothing("all that was looked at is cached already")
        }
    }

    fn places(&self) -> impl Iterator<Item = u64> {
        let unit = self.unit as u64;
        let units = self.size.div_ceil(unit);
        let places = PLACES.min(units);
        (0..places).map(move |place| units * place / places * unit)
    }

    fn read_at(&self, offset: u64, shown: &mut Shown) -> Result<(), Told> {
        let len = self.unit;
        // To be asked before: FUSE takes a short answer for the new end of the file.
        let left = self.size.saturating_sub(offset).min(len as u64);
        let mut buffer = Aligned::new(len);
        let got = self.file.read_at(buffer.bytes(), offset).map_err(|error| {
            Told::error(&error, &format!("a read of {len} bytes"), false, self.of.clone())
        })?;
        let Some(pages) = resident(self.file, offset, len) else {
            return Err(Told::nothing("the kernel does not say what is cached"));
        };
        // The kernel asks for the rest through the page cache; whose bytes these are is not to be seen
        // (mm/filemap.c:generic_file_read_iter).
        if pages > 0 && self.home.client && (got as u64) < left {
            return Err(Told::nothing(format!(
                "a read of {len} bytes at {offset} was answered with {got}, and the rest asked for \
                 through the page cache"
            )));
        }
        if got > 0 {
            shown.reads += 1;
            shown.bytes += got;
            shown.cached += usize::from(pages > 0);
        }
        Ok(())
    }

    fn judge(&self, shown: &Shown) -> Told {
        let Shown { reads, bytes, cached } = *shown;
        if bytes == 0 {
            return Told::nothing("reads returned no bytes");
        }
        let whose = if self.of == Whose::New { " of a new file beside it" } else { "" };
        let did = format!("{bytes} bytes read{whose} in {reads} requests");
        let alone = self.of == Whose::New;
        match cached {
            0 => {
                let how = format!("{did}: none is cached now");
                Told::proven(self.home.past_cache(), how, self.of.clone())
            }
            // Others may read the file through the page cache at that moment.
            _ if cached == reads && (alone || reads > 1) => {
                let how = format!("{did}: pages were cached after each");
                Told::proven(self.home.through_cache(), how, self.of.clone())
            }
            _ => Told::nothing(format!(
                "{did}: pages are cached after {cached} of them, which others may have read"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(of: Whose, reads: usize, bytes: usize, cached: usize) -> Option<&'static str> {
        let file = tempfile::tempfile().unwrap();
        let home = Home { dax: false, client: false, memory: false };
        let read = Read { file: &file, size: 0, unit: 4096, home, of };
        let told = read.judge(&Shown { reads, bytes, cached });
        told.proof().map(|proof| proof.verdict.as_str())
    }

    #[test]
    fn no_bytes_prove_nothing_and_pages_of_others_neither() {
        assert_eq!(judged(Whose::Itself, 0, 0, 0), None);
        assert_eq!(judged(Whose::New, 0, 0, 0), None);
        assert_eq!(judged(Whose::Itself, 1, 4096, 0), Some("direct"));
        assert_eq!(judged(Whose::Itself, 1, 4096, 1), None);
        assert_eq!(judged(Whose::New, 1, 4096, 1), Some("fallback"));
        assert_eq!(judged(Whose::Itself, 3, 12288, 1), None);
        assert_eq!(judged(Whose::Itself, 3, 12288, 3), Some("fallback"));
    }

    #[test]
    fn a_file_that_reads_as_empty_proves_nothing() {
        let file = tempfile::tempfile().unwrap();
        let home = Home { dax: false, client: false, memory: false };
        let read = Read { file: &file, size: 8192, unit: 4096, home, of: Whose::Itself };
        assert!(read.read().proof().is_none());
    }

    #[test]
    fn places_are_apart_and_within_the_file() {
        let places = |size| {
            let file = tempfile::tempfile().unwrap();
            let home = Home { dax: false, client: false, memory: false };
            Read { file: &file, size, unit: 4096, home, of: Whose::New }
                .places()
                .collect::<Vec<_>>()
        };
        assert_eq!(places(1), [0]);
        assert_eq!(places(10_000), [0, 4096, 8192]);
        let many = places(1 << 40);
        assert_eq!(many.len() as u64, PLACES);
        assert!(many.windows(2).all(|two| two[0] < two[1]) && many[63] < 1 << 40);
    }
}
