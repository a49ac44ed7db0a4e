//! Observes the page cache of a file while it is written to.
//!
//! The pages of a write through the page cache may be written back and dropped before the call
//! returns (mm/filemap.c:direct_write_fallback, btrfs), so they can be seen only during the write.
//! A second thread therefore counts the cached pages of this file, and of no other, during the
//! writes.

use std::{
    hint,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::check::cache::Lookout;

/// Maximum number of writes. At 64 KiB each, they dirty more pages than the CPUs of a small machine
/// hold back of a vmstat counter.
pub(super) const MOST: usize = 64;
/// Observed writes without cached pages that prove that there are none. One is not enough: a single
/// count may come before the first page, or after the last.
const MIN_WITHOUT_PAGES: usize = 8;
/// Writes with cached pages that prove that writes use the page cache.
const MIN_WITH_PAGES: usize = 2;
/// Time limit for all writes.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time limit for the second thread to be running before a write.
const MAX_WAIT: Duration = Duration::from_millis(50);

/// The result of watching the writes. The first write is not counted, because it may move a file's
/// inline data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) writes: usize,
    /// Writes during which the pages were counted at least once.
    pub(super) looked: usize,
    /// Writes during which the file had pages in the page cache.
    pub(super) seen: usize,
}

impl Watched {
    pub(super) const fn shows_pages(&self) -> bool {
        self.seen >= MIN_WITH_PAGES
    }

    pub(super) const fn shows_none(&self) -> bool {
        self.seen == 0 && self.looked >= MIN_WITHOUT_PAGES
    }
}

/// Assigns observations of the page cache to writes. Write `n`, from 0, is in progress during phase
/// `2n + 1`; during an even phase no write is in progress.
#[derive(Default)]
struct Tally {
    looked: usize,
    seen: usize,
    last_looked: usize,
    last_seen: usize,
}

impl Tally {
    /// Adds an observation: the number of cached `pages`, and the phases before and after the
    /// count.
    fn note(&mut self, before: usize, pages: usize, after: usize) {
        const SECOND: usize = 3;
        if after < SECOND {
            return;
        }
        if pages > 0 {
            // Pages count even if the phase changed meanwhile. Pages that a write left behind are
            // attributed to that write.
            let write = after.div_ceil(2);
            self.seen += usize::from(self.last_seen != write);
            self.last_seen = write;
        }
        if before == after && after % 2 == 1 {
            self.looked += usize::from(self.last_looked != after);
            self.last_looked = after;
        }
    }
}

/// State that the writing and the observing thread share.
#[derive(Default)]
struct Shared {
    phase: AtomicUsize,
    looks: AtomicUsize,
    looked: AtomicUsize,
    seen: AtomicUsize,
    over: AtomicBool,
}

impl Shared {
    fn watched(&self, writes: usize) -> Watched {
        let read = |count: &AtomicUsize| count.load(Ordering::Acquire);
        Watched { writes, looked: read(&self.looked), seen: read(&self.seen) }
    }

    fn look(&self, lookout: &Lookout<'_>) {
        let mut tally = Tally::default();
        while !self.over.load(Ordering::Acquire) {
            let before = self.phase.load(Ordering::Acquire);
            let pages = lookout.pages();
            let after = self.phase.load(Ordering::Acquire);
            if let Some(pages) = pages {
                tally.note(before, pages, after);
                self.looked.store(tally.looked, Ordering::Release);
                self.seen.store(tally.seen, Ordering::Release);
            }
            self.looks.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Waits until the observing thread runs on another CPU, so that it observes the next write.
    fn wait_for_a_look(&self) {
        let start = Instant::now();
        while start.elapsed() < MAX_WAIT && !self.is_looking() {
            thread::yield_now();
        }
    }

    /// True if the other thread makes observations while this thread keeps its CPU.
    fn is_looking(&self) -> bool {
        const SPIN: Duration = Duration::from_micros(200);
        let before = self.looks.load(Ordering::Acquire);
        let start = Instant::now();
        while start.elapsed() < SPIN {
            // The first observation does not count: it may have started long before.
            if self.looks.load(Ordering::Acquire) > before + 1 {
                return true;
            }
            hint::spin_loop();
        }
        false
    }
}

/// Ends the observing thread when it is dropped, also after an error or a panic.
struct Over<'a>(&'a Shared);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

/// Calls `write` with the numbers of the writes, from 0, until the observations prove a result or a
/// limit is reached.
///
/// # Errors
/// The error of the first write that fails.
pub(super) fn watch<E>(
    lookout: &Lookout<'_>,
    mut write: impl FnMut(usize) -> Result<(), E>,
) -> Result<Watched, E> {
    let shared = Shared::default();
    let apart = looks_are_apart();
    let start = Instant::now();
    thread::scope(|scope| {
        let _over = Over(&shared);
        // If the thread cannot be started, nothing is observed and nothing is proven.
        let _ = thread::Builder::new().spawn_scoped(scope, || shared.look(lookout));
        let mut writes = 0;
        while writes < MOST && start.elapsed() < PATIENCE {
            if apart {
                shared.wait_for_a_look();
            }
            shared.phase.store(2 * writes + 1, Ordering::Release);
            let done = write(writes);
            shared.phase.store(2 * writes + 2, Ordering::Release);
            done?;
            writes += 1;
            let watched = shared.watched(writes);
            if watched.shows_pages() || (watched.shows_none() && apart) {
                break;
            }
        }
        Ok(shared.watched(writes))
    })
}

/// True if the observing thread can run at any moment of a write. On one CPU it runs only where the
/// writer yields, which may always be before its first page and after its last.
pub(super) fn looks_are_apart() -> bool {
    thread::available_parallelism().is_ok_and(|cpus| cpus.get() > 1)
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, io::Write as _, os::unix::fs::FileExt as _};

    use super::*;
    use crate::check::cache::page;

    fn tally(looks: &[(usize, usize, usize)]) -> (usize, usize) {
        let mut tally = Tally::default();
        for (before, pages, after) in looks {
            tally.note(*before, *pages, *after);
        }
        (tally.looked, tally.seen)
    }

    #[test]
    fn observations_count_once_per_write_and_only_during_it() {
        // Before the first write, and during it.
        assert_eq!(tally(&[(0, 0, 0), (1, 3, 1), (1, 3, 2)]), (0, 0));
        // Between writes, and across the end of one.
        assert_eq!(tally(&[(2, 0, 2), (3, 0, 4), (4, 0, 4), (4, 0, 5)]), (0, 0));
        assert_eq!(tally(&[(3, 0, 3), (3, 0, 3), (5, 0, 5)]), (2, 0));
        // Pages count at any moment, but for one write only.
        assert_eq!(tally(&[(3, 0, 3), (3, 1, 4), (4, 1, 4), (5, 2, 5)]), (2, 2));
    }

    #[test]
    fn writes_through_the_page_cache_are_seen() {
        let file = tempfile::tempfile().unwrap();
        let chunk = vec![1; page()];
        let lookout = Lookout::over(&file, 0, MOST * page()).unwrap();
        let watched = watch(&lookout, |n| {
            file.write_all_at(&chunk, (n * page()) as u64).unwrap();
            Ok::<(), Infallible>(())
        });
        assert!(watched.unwrap().shows_pages());
    }

    #[test]
    fn writes_to_other_files_are_not_seen_and_an_error_ends_watching() {
        let file = tempfile::tempfile().unwrap();
        let lookout = Lookout::over(&file, 0, MOST * page()).unwrap();
        let sink = || thread::sleep(Duration::from_millis(2));
        let watched = watch(&lookout, |_| {
            (&tempfile::tempfile().unwrap()).write_all(b"elsewhere").unwrap();
            sink();
            Ok::<(), Infallible>(())
        });
        let watched = watched.unwrap();
        // `looked` is not checked: it depends on the load of this machine's CPUs.
        assert_eq!(watched.seen, 0, "{watched:?}");
        assert_eq!(watch(&lookout, |n| if n == 3 { Err(n) } else { Ok(()) }), Err(3));
    }
}
