//! The extents of a file (FS_IOC_FIEMAP), queried without causing writeback.
//!
//! - [`extents`] asks the file system.
//! - [`RecentExtents`] caches the answers for a short time, so that a busy file is not opened for
//!   every request.

use dio_trace_common::abi::FileId;
use std::{
    fs::File,
    ops::Range,
    os::fd::AsRawFd as _,
    time::{Duration, Instant},
};

use ahash::HashMap;
/// How long an answer is reused for other requests. Short, because file systems move blocks.
const RECENT: Duration = Duration::from_millis(100);
/// Number of files whose last answer is kept.
const MAX_ANSWERS: usize = 1_024;
/// Most files opened per second in total. Each takes 6 µs, so this is at most 6 % of a CPU.
const MAX_OPENS: u32 = 10_000;
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

/// The first extents that overlap the range, each in its whole length; `None` if the file system
/// does not report them.
fn extents(file: &File, start: u64, len: u64) -> Option<Vec<Mapped>> {
    const EXTENTS: usize = 32;
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

/// Caches the extents of recently queried files. Keeps no file open.
#[derive(Default)]
pub(crate) struct RecentExtents {
    answers: HashMap<FileId, (Instant, Vec<Mapped>)>,
    /// Start of the current second, and the files opened since then.
    opens: Option<(Instant, u32)>,
}

impl RecentExtents {
    /// OR of the flags of all extents that overlap the range. If the cached extents do not cover
    /// it, the file that `open` returns is queried and closed again. `None` if the flags are
    /// unknown, or too many files were opened in this second.
    pub(crate) fn flags(
        &mut self,
        key: FileId,
        (start, len): (u64, u64),
        open: impl FnOnce() -> Option<File>,
    ) -> Option<u32> {
        let now = Instant::now();
        let known = self.answers.get(&key).filter(|(at, _)| now - *at < RECENT);
        if let Some(flags) = known.and_then(|(_, extents)| covered(extents, start, len)) {
            return Some(flags);
        }
        if !self.may_open(now) {
            return None;
        }
        let extents = extents(&open()?, start, len)?;
        let flags = all_flags(&extents);
        if self.answers.len() >= MAX_ANSWERS && !self.answers.contains_key(&key) {
            self.answers.clear();
        }
        self.answers.insert(key, (now, extents));
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

/// OR of the flags of the extents that overlap the range; `None` unless they cover it without a
/// gap.
fn covered(extents: &[Mapped], start: u64, len: u64) -> Option<u32> {
    let end = start.checked_add(len)?;
    let (mut at, mut flags) = (start, 0);
    for extent in extents.iter().filter(|extent| extent.bytes.end > start) {
        if at >= end || extent.bytes.start > at {
            break;
        }
        flags |= extent.flags;
        at = extent.bytes.end;
    }
    (at >= end && len != 0).then_some(flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Vec<Mapped> {
        let extent = |bytes, flags| Mapped { bytes, flags };
        vec![extent(0..8, 1), extent(8..16, 2), extent(20..30, 4)]
    }

    #[test]
    fn only_a_range_without_a_gap_is_known() {
        let covered = |start, len| covered(&some(), start, len);
        assert_eq!(covered(0, 8), Some(1));
        assert_eq!(covered(4, 8), Some(3));
        assert_eq!(covered(9, 7), Some(2));
        assert_eq!(covered(25, 5), Some(4));
        for (start, len) in [(4, 13), (16, 4), (18, 4), (25, 6), (0, 0), (u64::MAX, 2)] {
            assert_eq!(covered(start, len), None, "{start} {len}");
        }
    }

    fn key(ino: u64) -> FileId {
        FileId { inode: 1, ino, dev: 1, generation: 0 }
    }

    #[test]
    fn a_busy_file_is_opened_seldom_and_all_together_not_without_end() {
        let mut lately = RecentExtents::default();
        lately.answers.insert(key(1), (Instant::now(), some()));
        assert_eq!(lately.flags(key(1), (0, 4), || panic!("opened")), Some(1));
        let mut opens = 0;
        lately.answers.insert(key(1), (Instant::now() - 2 * RECENT, some()));
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
