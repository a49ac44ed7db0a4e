//! Compares the results that the reader got with dio-trace's events.
use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    guest::{
        direct_io::memory::page_size,
        scenarios::shorts::reader::{LONG, Read},
    },
    host::cmd::say,
};

/// Returns the mismatches, and prints how often each case had each result.
pub(super) fn judge(reads: &[Read], events: &[Value]) -> Vec<String> {
    let mut wrong = Vec::new();
    let by_kprobe = events.last().is_some_and(|summary| summary["attach"] == "kprobe");
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut taken = vec![false; events.len()];
    for read in reads {
        let about = |event: &Value| {
            event["op"] == "read"
                && event["pid"] == read.pid
                && event["path"] == read.path.to_string_lossy().as_ref()
                && event["offset"] == read.offset
                && event["len"] == read.len
                && read.ret.is_none_or(|ret| event["ret"] == ret)
        };
        let found = (0..events.len()).find(|at| !taken[*at] && about(&events[*at]));
        let Some(at) = found else {
            // A reader that was killed early may not have started to read.
            if read.ret.is_some() {
                wrong.push(format!("no event: {read:?}"));
            }
            continue;
        };
        taken[at] = true;
        let event = &events[at];
        let said = said(event);
        if !allowed(read, event, by_kprobe).contains(&said) {
            wrong.push(format!("{read:?}: {said}: {event}"));
        }
        let fs = event["fs"].as_str().unwrap_or_default();
        *counts.entry(format!("{:<12} {fs:<5} {said}", read.case)).or_default() += 1;
    }
    counts.iter().for_each(|(case, count)| say(format!("{count:>5} {case}")));
    let killed = counts.keys().any(|case| case.starts_with("killed") && case.contains(" short:"));
    if !killed {
        wrong.push("no reader was killed half-way".to_owned());
    }
    wrong
}

/// An event as text: result, verdict, outcome, and direct and cached bytes.
fn said(event: &Value) -> String {
    let word = |name: &str| event[name].as_str().unwrap_or("-").to_owned();
    let (ret, errno) = (&event["ret"], word("errno"));
    let ret = if errno == "-" { ret.to_string() } else { errno };
    let (direct, cached) = (&event["direct_bytes"], &event["cached_bytes"]);
    format!("{ret} {} {} {direct}+{cached}", word("verdict"), word("outcome"))
}

/// The events (as text) that are allowed for a read, by its case and result.
fn allowed(read: &Read, event: &Value, by_kprobe: bool) -> Vec<String> {
    const EFAULT: i64 = -(libc::EFAULT as i64);
    let fs = event["fs"].as_str().unwrap_or_default();
    let ret = event["ret"].as_i64().unwrap_or_default();
    let one = |text: &str| vec![text.to_owned()];
    let direct = |outcome: &str| format!("{ret} direct {outcome} {ret}+0");
    let cached = |outcome: &str| format!("{ret} fallback {outcome} 0+{ret}");
    match (&*read.case, ret) {
        ("race-blocks" | "race-odd", 0) => one("0 eof - 0+0"),
        ("race-blocks" | "race-odd", 4096) => {
            // btrfs and f2fs read dirty pages through the page cache. The old direct I/O code
            // continues there after an end of file that has meanwhile moved.
            let past = event["direct_bytes"].as_i64().unwrap_or_default().clamp(1, ret - 1);
            let partial = format!("4096 partial full {past}+{}", ret - past);
            vec![direct("full"), cached("full"), partial]
        }
        // The bytes by which the file's sizes exceed a whole number of blocks.
        ("race-odd", 512 | 565 | 1808) => {
            let either = |outcome: &str| [direct(outcome), cached(outcome)];
            let mut all = [either("short:eof"), either("short:race")].concat();
            // The file ended 512 bytes into the block, and was longer when the read went on cached.
            if ret == 1808 && event["cause"] == "direct-part-short" {
                all.push("1808 partial short:eof 512+1296".to_owned());
            }
            // For whole sectors, an end of file is known only where the position reached is known:
            // docs/short-reads.md.
            if ret == 512 {
                all.push(cached("short:other"));
                all.extend(by_kprobe.then(|| direct("short:other")));
            }
            all
        }
        // f2fs had the old direct I/O code before 5.15, and btrfs gave no partial result on 5.10.
        ("fault-32768", EFAULT) if matches!(fs, "ext4" | "xfs" | "f2fs" | "btrfs") => {
            one("EFAULT failed - 0+0")
        }
        (case, 1..) if case == format!("fault-{ret}") && !matches!(fs, "ext4" | "xfs") => {
            vec![direct("short:fault"), cached("short:fault")]
        }
        // MAX_RW_COUNT, include/linux/fs.h
        ("largest", _) if ret == i64::from(i32::MAX) & -(page_size() as i64) => {
            one(&direct("short:max-rw"))
        }
        ("server", 1000) => one("1000 client short:server 1000+0"),
        ("bad-sector", 32_768) => one(&cached("short:other")),
        ("killed", 1..) if ret < LONG as i64 => one(&cached("short:signal")),
        ("killed", 1..) => one(&cached("full")),
        ("killed", _) => one("EINTR failed - 0+0"),
        _ => Vec::new(),
    }
}
