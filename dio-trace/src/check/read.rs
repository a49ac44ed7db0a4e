//! The read trial: makes small direct reads of uncached parts of a file, and counts the cached
//! pages after each.

use std::{
    fs::File,
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
};

use crate::check::{
    buffer::Aligned,
    cache::resident,
    subject::{Opened, Subject},
    trial::{Home, Trial, Whose},
};

/// Maximum number of reads. There are several because another process may cache pages during one.
const READS: usize = 3;
/// Number of offsets in a file that are searched for uncached ones.
const OFFSETS: u64 = 64;

/// Reads uncached parts of the subject itself, and checks whether they are cached afterwards.
pub(super) fn read_itself(subject: &Subject) -> Trial {
    let opened = subject.open_direct();
    if let Opened::Failed(error) = &opened {
        return Trial::error(error, "open with O_DIRECT", true, Whose::Itself);
    }
    if subject.size == 0 {
        return Trial::nothing("the file is empty");
    }
    let Opened::File(file) = opened else {
        return Trial::nothing(
            "not read: that would update its access time, which only its owner and root can avoid",
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

/// A file for the read trial.
pub(super) struct Read<'a> {
    pub(super) file: &'a File,
    pub(super) size: u64,
    /// Size of a read in bytes.
    pub(super) unit: usize,
    pub(super) home: Home,
    pub(super) of: Whose,
}

/// What the reads have shown so far.
#[derive(Default)]
struct Shown {
    /// Reads that returned bytes.
    reads: usize,
    /// Bytes that they returned.
    bytes: usize,
    /// Reads after which pages of the range were cached.
    cached: usize,
}

impl Read<'_> {
    /// Makes the trial, at offsets where nothing is cached.
    pub(super) fn read(&self) -> Trial {
        // Turns off read-ahead, which would cache the following parts.
        // SAFETY: passes an open descriptor and no pointers.
        unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
        let mut shown = Shown::default();
        let mut looked = false;
        for offset in self.offsets() {
            match resident(self.file, offset, self.unit) {
                None => {
                    return Trial::nothing(
                        "the kernel does not say what is cached, or only if one may write the file",
                    );
                }
                Some(0) => {
                    looked = true;
                    if let Err(failed) = self.read_at(offset, &mut shown) {
                        return failed;
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
            Trial::nothing("all parts that were looked at are cached already")
        }
    }

    /// Offsets spread evenly over the file.
    fn offsets(&self) -> impl Iterator<Item = u64> {
        let unit = self.unit as u64;
        let units = self.size.div_ceil(unit);
        let offsets = OFFSETS.min(units);
        (0..offsets).map(move |n| units * n / offsets * unit)
    }

    fn read_at(&self, offset: u64, shown: &mut Shown) -> Result<(), Trial> {
        let len = self.unit;
        // Computed from the size before the read: FUSE takes a short reply for the file's new end.
        let left = self.size.saturating_sub(offset).min(len as u64);
        let mut buffer = Aligned::new(len);
        let got = self.file.read_at(buffer.bytes(), offset).map_err(|error| {
            Trial::error(&error, &format!("a read of {len} bytes"), false, self.of.clone())
        })?;
        let Some(pages) = resident(self.file, offset, len) else {
            return Err(Trial::nothing("the kernel does not say what is cached"));
        };
        // After a short read the kernel reads the rest through the page cache
        // (mm/filemap.c:generic_file_read_iter). Which bytes came from where cannot be seen.
        if pages > 0 && self.home.client && (got as u64) < left {
            return Err(Trial::nothing(format!(
                "a read of {len} bytes at {offset} was answered with {got}; the kernel read the \
                 rest through the page cache"
            )));
        }
        if got > 0 {
            shown.reads += 1;
            shown.bytes += got;
            shown.cached += usize::from(pages > 0);
        }
        Ok(())
    }

    fn judge(&self, shown: &Shown) -> Trial {
        let Shown { reads, bytes, cached } = *shown;
        if bytes == 0 {
            return Trial::nothing("reads returned no bytes");
        }
        let private = self.of == Whose::New;
        let whose = if private { " of a new temporary file" } else { "" };
        let did = format!("{bytes} bytes read{whose} in {reads} requests");
        match cached {
            0 => {
                let how = format!("{did}: none is cached now");
                Trial::proven(self.home.past_cache(), how, self.of.clone())
            }
            // Another process may read an existing file through the page cache at that moment.
            _ if cached == reads && (private || reads > 1) => {
                let how = format!("{did}: pages were cached after each");
                Trial::proven(self.home.through_cache(), how, self.of.clone())
            }
            _ => Trial::nothing(format!(
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
        let result = read.judge(&Shown { reads, bytes, cached });
        result.proof().map(|proof| proof.verdict.as_str())
    }

    #[test]
    fn neither_zero_bytes_nor_pages_of_others_prove_anything() {
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
    fn offsets_are_apart_and_within_the_file() {
        let offsets = |size| {
            let file = tempfile::tempfile().unwrap();
            let home = Home { dax: false, client: false, memory: false };
            Read { file: &file, size, unit: 4096, home, of: Whose::New }
                .offsets()
                .collect::<Vec<_>>()
        };
        assert_eq!(offsets(1), [0]);
        assert_eq!(offsets(10_000), [0, 4096, 8192]);
        let many = offsets(1 << 40);
        assert_eq!(many.len() as u64, OFFSETS);
        assert!(many.windows(2).all(|two| two[0] < two[1]) && many[63] < 1 << 40);
    }
}
