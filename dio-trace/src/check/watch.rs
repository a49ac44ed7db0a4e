//! Looking at the page cache of a file while it is written to.
//!
//! A write through the page cache may be written back and dropped before the call returns
//! (mm/filemap.c:direct_write_fallback, btrfs), so its pages are to be seen only meanwhile: a second
//! thread counts the cached pages of this file, and of no other, during the writes.

use std::{
    hint,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::check::cache::Lookout;

/// Writes at most. Of 64 KiB: more pages than small machines' CPUs hold back of a counter.
pub(super) const MOST: usize = 64;
/// Writes without pages that prove that there are none: one look may come before the first page,
/// or after the last.
const ENOUGH: usize = 8;
/// Writes with pages that prove that pages are the way.
const CONVINCING: usize = 2;
/// For all writes, and for the second thread to be running before one.
const PATIENCE: Duration = Duration::from_secs(5);
const A_TURN: Duration = Duration::from_millis(50);

/// What was seen. Nothing is told of the first write: it may move a file's inline data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Watched {
    pub(super) writes: usize,
    /// Writes that were looked at while they were under way.
    pub(super) looked: usize,
    /// Those with pages of the file in the page cache.
    pub(super) seen: usize,
}

impl Watched {
    pub(super) const fn shows_pages(&self) -> bool {
        self.seen >= CONVINCING
    }

    pub(super) const fn shows_none(&self) -> bool {
        self.seen == 0 && self.looked >= ENOUGH
    }
}

/// Counts writes by what looks at their pages show. Write `n`, from 0, is under way in phase
/// `2n + 1`; in an even phase none is.
#[derive(Default)]
struct Tally {
    looked: usize,
    seen: usize,
    last_looked: usize,
    last_seen: usize,
}

impl Tally {
    fn note(&mut self, before: usize, pages: usize, after: usize) {
        const SECOND: usize = 3;
        if after < SECOND {
            return;
        }
        if pages > 0 {
            // Whenever they came, they are there; one left behind by a write is its.
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

/// What both threads share.
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

    /// Waits until the other thread runs on another CPU, so that it looks at what is written next.
    fn wait_for_a_look(&self) {
        let start = Instant::now();
        while start.elapsed() < A_TURN && !self.is_looking() {
            thread::yield_now();
        }
    }

    /// Looks come while this thread keeps its CPU.
    fn is_looking(&self) -> bool {
        const GLANCE: Duration = Duration::from_micros(200);
        let before = self.looks.load(Ordering::Acquire);
        let start = Instant::now();
        while start.elapsed() < GLANCE {
            // Not the first: it may have been begun long ago.
            if self.looks.load(Ordering::Acquire) > before + 1 {
                return true;
            }
            hint::spin_loop();
        }
        false
    }
}

/// Ends the other thread, however this one leaves.
struct Over<'a>(&'a Shared);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

/// Makes writes, by their number, until looks at the page cache show enough.
///
/// # Errors
/// That of the first write that fails.
pub(super) fn watch<E>(
    lookout: &Lookout<'_>,
    mut write: impl FnMut(usize) -> Result<(), E>,
) -> Result<Watched, E> {
    let shared = Shared::default();
    let apart = looks_are_apart();
    let start = Instant::now();
    thread::scope(|scope| {
        let _over = Over(&shared);
        // Without a second thread nothing is seen, and nothing told.
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

/// True if looks come at any moment of a write. On one CPU they come where the writer gives way,
/// which may be before its first page and after its last, every time.
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
    fn looks_count_once_a_write_and_only_while_it_is_under_way() {
        // Before the first one, and during it.
        assert_eq!(tally(&[(0, 0, 0), (1, 3, 1), (1, 3, 2)]), (0, 0));
        // Between writes, and across the end of one.
        assert_eq!(tally(&[(2, 0, 2), (3, 0, 4), (4, 0, 4), (4, 0, 5)]), (0, 0));
        assert_eq!(tally(&[(3, 0, 3), (3, 0, 3), (5, 0, 5)]), (2, 0));
        // Pages count whenever they are there, but with one write.
        assert_eq!(tally(&[(3, 0, 3), (3, 1, 4), (4, 1, 4), (5, 2, 5)]), (2, 2));
    }

    #[test]
    fn what_goes_through_the_page_cache_is_seen() {
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
    fn what_goes_elsewhere_is_not_and_an_error_ends_it() {
        let file = tempfile::tempfile().unwrap();
        let lookout = Lookout::over(&file, 0, MOST * page()).unwrap();
        let sink = || thread::sleep(Duration::from_millis(2));
        let watched = watch(&lookout, |_| {
            (&tempfile::tempfile().unwrap()).write_all(b"elsewhere").unwrap();
            sink();
            Ok::<(), Infallible>(())
        });
        let watched = watched.unwrap();
        // How often it looks is up to whoever else uses this machine's CPUs.
        assert_eq!(watched.seen, 0, "{watched:?}");
        assert_eq!(watch(&lookout, |n| if n == 3 { Err(n) } else { Ok(()) }), Err(3));
    }
}
