//! The extents of a file (FS_IOC_FIEMAP), queried without causing writeback.
//!
//! - [`extents`] asks the file system.
//! - [`RecentExtents`] caches the answers for a short time, so that a busy file is not opened for
//!   every request.

use std::{
    fs::File,
    ops::Range,
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use ahash::HashMap;
use dio_trace_common::abi::FileId;

/// How long an answer is reused for other requests. Short, because file systems move blocks.
const RECENT: Duration = Duration::from_millis(100);
/// Number of files whose last answer is kept.
const MAX_ANSWERS: usize = 1_024;
/// Most files opened per second in total. Each takes 6 µs, more with many extents, so this is about
/// 6 % of a CPU.
const MAX_OPENS: u32 = 10_000;
/// The part of a file that is asked for at once. ext4 reports no more of an extent than was asked
/// for (fs/iomap/fiemap.c:iomap_fiemap, 6.12).
const WINDOW: u64 = 16 << 20;
/// Most extents of an answer.
const EXTENTS: usize = 32;
const SECOND: Duration = Duration::from_secs(1);

/// Extent flags of FS_IOC_FIEMAP (include/uapi/linux/fiemap.h).
pub mod extent {
    pub const ENCODED: u32 = 0x8;
    pub const INLINE: u32 = 0x200;
    pub const SHARED: u32 = 0x2000;
}

/// An extent of a file: its byte range in the file and its flags, see [`extent`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    pub bytes: Range<u64>,
    pub flags: u32,
}

/// OR of the flags of all extents that overlap the range; `None` if the file system does not report
/// them.
pub fn extent_flags(file: &File, start: u64, len: u64) -> Option<u32> {
    extents(file, start, len).map(|extents| all_flags(&extents))
}

fn all_flags(extents: &[Mapped]) -> u32 {
    extents.iter().fold(0, |flags, extent| flags | extent.flags)
}

/// The first extents that overlap the range, each at least as long as its part of the range; `None` if
/// the file system does not report them.
fn extents(file: &File, start: u64, len: u64) -> Option<Vec<Mapped>> {
    const FS_IOC_FIEMAP: libc::c_ulong = 0xc020_660b;
    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Extent {
        logical: u64,
        physical: u64,
        length: u64,
        reserved64: [u64; 2],
        flags: u32,
        reserved: [u32; 3],
    }
    #[repr(C)]
    struct Fiemap {
        start: u64,
        length: u64,
        flags: u32,
        mapped_extents: u32,
        extent_count: u32,
        reserved: u32,
        extents: [Extent; EXTENTS],
    }
    let mut map = Fiemap {
        start,
        length: len,
        flags: 0, // not FIEMAP_FLAG_SYNC: the query must not cause writeback
        mapped_extents: 0,
        extent_count: EXTENTS as u32,
        reserved: 0,
        extents: [Extent::default(); EXTENTS],
    };
    // SAFETY: the kernel writes the header and at most `extent_count` extents.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_FIEMAP as _, &raw mut map) };
    // ntfs3 returns 1 after the last extent (fs/ntfs3/frecord.c:ni_fiemap).
    let failed = answer < 0;
    let count = (map.mapped_extents as usize).min(EXTENTS);
    let mapped = |extent: &Extent| Mapped {
        bytes: extent.logical..extent.logical.saturating_add(extent.length),
        flags: extent.flags,
    };
    (!failed).then(|| map.extents[..count].iter().map(mapped).collect())
}

/// The extents of a part of a file. What is between them is a hole.
struct Answer {
    at: Instant,
    known: Range<u64>,
    extents: Vec<Mapped>,
}

impl Answer {
    /// Asks for the range and the windows that it is in. `None` if the file system does not report
    /// extents.
    fn ask(file: &File, range: &Range<u64>) -> Option<Self> {
        let start = range.start - range.start % WINDOW;
        let end = range.end.checked_next_multiple_of(WINDOW).unwrap_or(u64::MAX);
        let answer = Self::of(file, start..end)?;
        if answer.flags(range).is_some() { Some(answer) } else { Self::of(file, range.start..end) }
    }

    fn of(file: &File, asked: Range<u64>) -> Option<Self> {
        let extents = extents(file, asked.start, asked.end - asked.start)?;
        let known =
            if extents.len() < EXTENTS { asked } else { asked.start..extents.last()?.bytes.end };
        Some(Self { at: Instant::now(), known, extents })
    }

    /// [`Self::flags`] if the extents cover the range without a gap: a hole, and what is beyond the
    /// end of the file, may have been written since.
    fn lasting_flags(&self, range: &Range<u64>) -> Option<u32> {
        let mut at = range.start;
        for extent in self.extents.iter().filter(|extent| extent.bytes.end > range.start) {
            if at >= range.end || extent.bytes.start > at {
                break;
            }
            at = extent.bytes.end;
        }
        if at >= range.end { self.flags(range) } else { None }
    }

    /// OR of the flags of all extents that overlap the range; `None` if not all of it is known.
    fn flags(&self, range: &Range<u64>) -> Option<u32> {
        let overlaps =
            |extent: &&Mapped| extent.bytes.start < range.end && extent.bytes.end > range.start;
        let flags = self.extents.iter().filter(overlaps).fold(0, |flags, e| flags | e.flags);
        (self.known.start <= range.start && range.end <= self.known.end).then_some(flags)
    }
}

/// Caches the extents of recently queried files. Keeps no file open.
#[derive(Default)]
pub(crate) struct RecentExtents {
    answers: HashMap<FileId, Answer>,
    /// Start of the current second, and the files opened since then.
    opens: Option<(Instant, u32)>,
}

impl RecentExtents {
    /// OR of the flags of all extents that overlap the range. If that is not cached, the file that
    /// `open` returns is queried and closed again. `None` if the flags are unknown, or too many files
    /// were opened in this second.
    pub(crate) fn flags(
        &mut self,
        key: FileId,
        (start, len): (u64, u64),
        open: impl FnOnce() -> Option<File>,
    ) -> Option<u32> {
        let range = start..start.checked_add(len.max(1))?;
        let now = Instant::now();
        let known = self.answers.get(&key).filter(|answer| now - answer.at < RECENT);
        if let Some(flags) = known.and_then(|answer| answer.lasting_flags(&range)) {
            return Some(flags);
        }
        if !self.may_open(now) {
            return None;
        }
        let answer = Answer::ask(&open()?, &range)?;
        // Of more extents than fit, the first ones say what they say.
        let flags = answer.flags(&range).unwrap_or_else(|| all_flags(&answer.extents));
        if self.answers.len() >= MAX_ANSWERS && !self.answers.contains_key(&key) {
            self.answers.clear();
        }
        self.answers.insert(key, answer);
        Some(flags)
    }

    fn may_open(&mut self, now: Instant) -> bool {
        let (since, opens) = self.opens.get_or_insert((now, 0));
        if now - *since >= SECOND {
            (*since, *opens) = (now, 0);
        }
        *opens += 1;
        *opens <= MAX_OPENS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(age: Duration) -> Answer {
        let extent = |bytes, flags| Mapped { bytes, flags };
        let extents = vec![extent(0..8, 1), extent(8..16, 2), extent(20..30, 4)];
        Answer { at: Instant::now() - age, known: 0..30, extents }
    }

    #[test]
    fn a_hole_is_known_and_what_was_not_asked_for_is_not() {
        let flags = |range| some(Duration::ZERO).flags(&range);
        assert_eq!(flags(0..8), Some(1));
        assert_eq!(flags(4..12), Some(3));
        assert_eq!(flags(9..16), Some(2));
        assert_eq!(flags(25..30), Some(4));
        assert_eq!((flags(4..17), flags(16..20), flags(18..22)), (Some(3), Some(0), Some(4)));
        assert_eq!((flags(25..31), flags(31..32)), (None, None));
        let lasting = |range| some(Duration::ZERO).lasting_flags(&range);
        assert_eq!((lasting(4..16), lasting(25..30)), (Some(3), Some(4)));
        for range in [4..17, 16..20, 18..22, 25..31, 31..32] {
            assert_eq!(lasting(range.clone()), None, "{range:?}");
        }
    }

    #[test]
    fn neighbours_are_asked_for_together() {
        // Beside this program, because a tmpfs reports no extents.
        let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
        let file = tempfile::tempfile_in(folder).unwrap();
        file.set_len(WINDOW + 8192).unwrap();
        let answer = Answer::ask(&file, &(4096..8192)).unwrap();
        assert_eq!(answer.flags(&(0..WINDOW)), Some(0));
        assert_eq!(answer.flags(&(0..WINDOW + 1)), None);
        let across = Answer::ask(&file, &(WINDOW - 1..WINDOW + 1)).unwrap();
        assert_eq!(across.known, 0..2 * WINDOW);
    }

    fn key(ino: u64) -> FileId {
        FileId { inode: 1, ino, dev: 1, generation: 0 }
    }

    #[test]
    fn a_busy_file_is_opened_seldom_and_all_together_not_without_end() {
        let mut lately = RecentExtents::default();
        lately.answers.insert(key(1), some(Duration::ZERO));
        assert_eq!(lately.flags(key(1), (0, 4), || panic!("opened")), Some(1));
        let mut opens = 0;
        lately.answers.insert(key(1), some(2 * RECENT));
        for _ in 0..2 * MAX_OPENS {
            let open = || {
                opens += 1;
                None
            };
            assert_eq!(lately.flags(key(1), (0, 4), open), None);
        }
        // The loop may take longer than a second, after which the count starts again.
        assert!((MAX_OPENS..2 * MAX_OPENS).contains(&opens), "{opens}");
    }
}
