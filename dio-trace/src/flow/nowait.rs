//! Files on which RWF_NOWAIT gains nothing: most of the requests of a process end with EAGAIN.
//!
//! One request that ends with EAGAIN is what its program asked for. When half of all requests do,
//! each of them is made twice: once in vain, and once more by a thread that may wait. io_uring does
//! both by itself: it hands such requests to a worker thread.

use std::cmp::Reverse;

use ahash::HashMap;
use dio_trace_common::abi::{Counter, CounterKey, FileId, Op, Request, ring};
use serde::Serialize;

use crate::{
    cause::{self, WAITS},
    enrich::Enricher,
    flow::file_user::FileUser,
    util::figures::count,
};

/// The fewest requests with EAGAIN that are reported.
const MIN: u64 = 10;
/// The most rows: a recording may have any number of counters.
const MAX_ROWS: usize = 1024;
/// EAGAIN as the counters have it.
const EAGAIN: u16 = libc::EAGAIN as u16;

/// Requests with the same key are summed: process, file, and operation.
type Key = (u32, FileId, u8);

/// What was seen of the attempts of requests that would have had to wait, with `--why-eagain`.
#[derive(Clone, Copy, Debug, Default)]
struct Waits {
    /// Requests that a worker thread of io_uring made, and those that ended with EAGAIN.
    punted: u64,
    eagain: u64,
    /// The same by the row of [`WAITS`].
    punted_for: [u64; WAITS.len()],
    eagain_for: [u64; WAITS.len()],
}

/// Sums of requests that would have had to wait.
#[derive(Default)]
pub(crate) struct WaitSums(HashMap<Key, Waits>);

impl WaitSums {
    /// Adds a request.
    pub(crate) fn add(&mut self, request: &Request) {
        let key = (request.task.tgid, request.file, request.op);
        let bits = request.would_block;
        if bits == 0 || (self.0.len() >= MAX_ROWS && !self.0.contains_key(&key)) {
            return;
        }
        let waits = self.0.entry(key).or_default();
        let (sum, reasons) = if request.ret == -i64::from(EAGAIN) {
            (&mut waits.eagain, &mut waits.eagain_for)
        } else if request.ring & ring::WORKER != 0 {
            (&mut waits.punted, &mut waits.punted_for)
        } else {
            return;
        };
        *sum += 1;
        for (sum, wait) in reasons.iter_mut().zip(WAITS) {
            *sum += u64::from(bits & wait.bit != 0);
        }
    }
}

/// The reads, or the writes, of a process on a file of which most ended with EAGAIN, or were handed
/// to a worker thread.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NowaitRow {
    #[serde(flatten)]
    pub user: FileUser,
    pub op: Op,
    /// All requests of this operation, and those that ended with EAGAIN.
    pub requests: u64,
    pub eagain: u64,
    /// Requests that io_uring handed to a worker thread, as far as their events arrived; 0 without
    /// `--why-eagain`.
    pub punted: u64,
    /// The id of the rule.
    pub cause: &'static str,
    pub why: String,
    pub fix: String,
}

/// The rows of these counters, those with most EAGAIN first.
pub(crate) fn rows(
    counters: &[(CounterKey, Counter)],
    waits: &WaitSums,
    enricher: &mut Enricher,
) -> Vec<NowaitRow> {
    let mut sums: HashMap<Key, (u64, u64)> = waits.0.keys().map(|key| (*key, (0, 0))).collect();
    for (key, counter) in counters.iter().filter(|(key, _)| key.errno == EAGAIN) {
        let of = (key.tgid, key.file, key.op);
        if sums.len() < MAX_ROWS || sums.contains_key(&of) {
            let (_, eagain) = sums.entry(of).or_default();
            *eagain = eagain.saturating_add(counter.requests);
        }
    }
    if sums.is_empty() {
        return Vec::new(); // as for most programs
    }
    for (key, counter) in counters {
        if let Some((requests, _)) = sums.get_mut(&(key.tgid, key.file, key.op)) {
            *requests = requests.saturating_add(counter.requests);
        }
    }
    let often = sums
        .into_iter()
        .map(|(key, (all, eagain))| {
            (key, Sum { all, eagain, waits: waits.0.get(&key).copied().unwrap_or_default() })
        })
        .filter(|(_, sum)| sum.is_often(sum.eagain) || sum.is_often(sum.waits.punted));
    let mut rows: Vec<NowaitRow> = often.map(|(key, sum)| row(key, &sum, enricher)).collect();
    let most = |row: &NowaitRow| Reverse(row.eagain.max(row.punted));
    rows.sort_by(|a, b| {
        (most(a), &a.user.path, a.user.pid).cmp(&(most(b), &b.user.path, b.user.pid))
    });
    rows
}

/// The requests of one row.
struct Sum {
    all: u64,
    eagain: u64,
    waits: Waits,
}

impl Sum {
    /// True if this number of requests is worth a row.
    const fn is_often(&self, requests: u64) -> bool {
        requests >= MIN && requests.saturating_mul(2) >= self.all
    }

    /// What the requests with EAGAIN would have waited for: what was seen, and what is likely.
    fn eagain_reasons(&self, likely: &str) -> String {
        match words(&self.waits.eagain_for) {
            None => format!("likely {likely}"),
            Some(seen) if self.waits.eagain < self.eagain => {
                format!("{seen}; the others likely {likely}")
            }
            Some(seen) => seen,
        }
    }
}

/// The reasons with their numbers of requests, the most frequent first; None if no probe saw one.
fn words(reasons: &[u64; WAITS.len()]) -> Option<String> {
    let seen = reasons.iter().zip(WAITS).filter(|(sum, _)| **sum != 0);
    let mut seen: Vec<(u64, &str)> = seen.map(|(sum, wait)| (*sum, wait.noun)).collect();
    seen.sort_by_key(|(sum, _)| Reverse(*sum));
    let words: Vec<String> =
        seen.iter().map(|(sum, words)| format!("{words} ({})", count(*sum))).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

fn row((pid, file, op): Key, sum: &Sum, enricher: &mut Enricher) -> NowaitRow {
    let user = FileUser::new(pid, None, file, enricher);
    let op = Op::from_u8(op).unwrap_or(Op::Read);
    let fs = enricher.file(file, pid).deciding().0;
    let all = count(sum.all);
    let eagain = sum.is_often(sum.eagain);
    let (cause, why, fix) = if eagain {
        let n = count(sum.eagain);
        let reasons = sum.eagain_reasons(waits_for(op, fs));
        (
            cause::WOULD_BLOCK,
            format!(
                "{n} of {all} {op}s ended with EAGAIN: RWF_NOWAIT gains nothing there; {reasons}"
            ),
            "make these requests without RWF_NOWAIT, from a thread that may wait",
        )
    } else {
        let n = count(sum.waits.punted);
        let reasons = words(&sum.waits.punted_for).unwrap_or_default();
        (
            cause::PUNTED,
            format!("io_uring handed {n} of {all} {op}s to a worker thread (io-wq): {reasons}"),
            "remove the reason where that is possible (overwrite blocks that have been written, do not \
             mix buffered and direct use), or count on the workers: IORING_REGISTER_IOWQ_MAX_WORKERS \
             sets how many there are",
        )
    };
    NowaitRow {
        user,
        op,
        requests: sum.all,
        eagain: sum.eagain,
        punted: sum.waits.punted,
        cause,
        why,
        fix: fix.to_owned(),
    }
}

/// What such requests would most often have waited for.
fn waits_for(op: Op, fs: &str) -> &'static str {
    match (op, fs) {
        (Op::Write, "xfs" | "ext4") => {
            "a time stamp that each write must update (xfs from 6.0 on, ext4 from 7.3 on), blocks to \
             allocate, or pages of the file in the page cache"
        }
        (Op::Write, "btrfs") => {
            "a stable copy of the buffer (from 7.3 on, for data with checksums or copies), blocks to \
             allocate, or pages of the file in the page cache"
        }
        (Op::Write, _) => "blocks to allocate, or pages of the file in the page cache",
        (Op::Read, "bdev") => {
            "more than one bio for a request (over 1 MiB), or pages in the page cache"
        }
        (Op::Read, _) => "pages of the file in the page cache, or block maps not in memory",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(pid: u32, errno: u16, requests: u64) -> (CounterKey, Counter) {
        let request = crate::testing::fixtures::request();
        let decided = crate::flow::decided::Decided::of(&request);
        let key = CounterKey::of(&request, &decided.decision);
        (CounterKey { tgid: pid, errno, ..key }, Counter { requests, ..Counter::ZERO })
    }

    #[test]
    fn half_of_the_requests_must_end_so() {
        let mut enricher = Enricher::recorded();
        let counters = [
            counter(1, 0, 20),
            counter(1, EAGAIN, 60),
            counter(2, 0, 61),
            counter(2, EAGAIN, 60),
            counter(3, EAGAIN, MIN - 1),
        ];
        let rows = rows(&counters, &WaitSums::default(), &mut enricher);
        let found: Vec<_> =
            rows.iter().map(|row| (row.user.pid, row.requests, row.eagain)).collect();
        assert_eq!(found, [(1, 80, 60)]);
        assert!(rows[0].why.starts_with("60 of 80 reads ended with EAGAIN"));
        assert!(rows[0].why.contains("; likely pages of the file in the page cache"));
    }

    #[test]
    fn what_the_probes_saw_is_counted() {
        let mut enricher = Enricher::recorded();
        let file = crate::testing::fixtures::request().file;
        let mut waits = WaitSums::default();
        let seen = |eagain, punted| Waits {
            punted,
            eagain,
            eagain_for: [eagain, 0, 2, 0, 0],
            punted_for: [punted, 0, 0, 0, 0],
        };
        waits.0.insert((1, file, Op::Read as u8), seen(60, 0));
        waits.0.insert((2, file, Op::Read as u8), seen(5, 30));
        waits.0.insert((3, file, Op::Read as u8), seen(5, 3));
        let counters = [counter(1, EAGAIN, 60), counter(2, 0, 40), counter(3, 0, 40)];
        let rows = rows(&counters, &waits, &mut enricher);
        let found: Vec<_> = rows.iter().map(|row| (row.user.pid, row.cause, row.punted)).collect();
        assert_eq!(found, [(1, cause::WOULD_BLOCK, 0), (2, cause::PUNTED, 30)]);
        assert!(
            rows[0]
                .why
                .ends_with(" setuid bits to remove (60), pages of the range in the page cache (2)")
        );
        assert!(rows[1].why.starts_with("io_uring handed 30 of 40 reads to a worker thread"));
    }
}
