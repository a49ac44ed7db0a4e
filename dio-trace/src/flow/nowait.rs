//! Files on which RWF_NOWAIT gains nothing: most of the requests of a process end with EAGAIN.
//!
//! One request that ends with EAGAIN is what its program asked for. When half of all requests do,
//! each of them is made twice: once in vain, and once more by a thread that may wait.

use std::{cmp::Reverse, collections::HashMap};

use dio_trace_common::abi::{Counter, CounterKey, FileId, Op};
use serde::Serialize;

use crate::{cause, enrich::Enricher, util::figures::count};

/// The fewest requests with EAGAIN that are reported.
const MIN: u64 = 10;
/// The most rows: a recording may have any number of counters.
const MAX_ROWS: usize = 1024;
/// EAGAIN as the counters have it.
const EAGAIN: u16 = libc::EAGAIN as u16;

/// The reads, or the writes, of a process on a file of which most ended with EAGAIN.
#[derive(Clone, Debug, Serialize)]
pub struct NowaitRow {
    pub pid: u32,
    pub comm: String,
    pub path: String,
    pub dev: String,
    pub ino: u64,
    pub fs: String,
    pub op: Op,
    /// All requests of this operation, and those that ended with EAGAIN.
    pub requests: u64,
    pub eagain: u64,
    /// The id of the rule.
    pub cause: &'static str,
    pub why: String,
    pub fix: String,
}

/// The rows of these counters, those with most EAGAIN first.
pub(crate) fn rows(counters: &[(CounterKey, Counter)], enricher: &mut Enricher) -> Vec<NowaitRow> {
    let mut sums: HashMap<(u32, FileId, u8), (u64, u64)> = HashMap::new();
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
        .filter(|(_, (all, eagain))| *eagain >= MIN && eagain.saturating_mul(2) >= *all);
    let mut rows: Vec<NowaitRow> = often.map(|(key, sum)| row(key, sum, enricher)).collect();
    rows.sort_by(|a, b| (Reverse(a.eagain), &a.path).cmp(&(Reverse(b.eagain), &b.path)));
    rows
}

fn row(
    (pid, file, op): (u32, FileId, u8),
    (requests, eagain): (u64, u64),
    enricher: &mut Enricher,
) -> NowaitRow {
    let comm = enricher.process(pid, None);
    let info = enricher.file(file, pid);
    let op = Op::from_u8(op).unwrap_or(Op::Read);
    let fs = info.deciding().0;
    let why = format!(
        "{} of {} {op}s ended with EAGAIN: RWF_NOWAIT gains nothing there; likely {}",
        count(eagain),
        count(requests),
        waits_for(op, fs)
    );
    NowaitRow {
        pid,
        comm,
        path: info.path.clone(),
        dev: info.dev.clone(),
        ino: file.ino,
        fs: info.fs.clone(),
        op,
        requests,
        eagain,
        cause: cause::WOULD_BLOCK,
        why,
        fix: "make these requests without RWF_NOWAIT, from a thread that may wait".to_owned(),
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
        let rows = rows(&counters, &mut enricher);
        let found: Vec<_> = rows.iter().map(|row| (row.pid, row.requests, row.eagain)).collect();
        assert_eq!(found, [(1, 80, 60)]);
        assert!(rows[0].why.starts_with("60 of 80 reads ended with EAGAIN"));
    }
}
