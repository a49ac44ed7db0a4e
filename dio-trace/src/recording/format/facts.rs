//! Everything that is recorded in addition to requests. It is stored as JSON, so that it is easy to
//! read in any language.

use std::sync::Arc;

use dio_trace_common::{
    abi::{
        BufferedUse, BufferedUseEvent, Counter, CounterKey, EVENT_BUFFERED_USE,
        EVENT_REJECTED_OPEN, FileId, RejectedOpen, Task,
    },
    histogram::{BUCKETS, Histogram},
};
use serde::{Deserialize, Serialize};

use crate::{
    model::FileInfo,
    system::{container::Container, stack},
    util::clock::Zone,
};

/// Where, when and how the recording was made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Header {
    pub tool: String,
    pub host: String,
    /// `uname -r`
    pub kernel: String,
    /// Bytes in a page of that kernel; absent in older recordings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<u32>,
    /// /proc/sys/kernel/random/boot_id, which identifies the boot.
    pub boot: String,
    /// ns since the epoch when recording began.
    pub started: u64,
    /// CLOCK_REALTIME minus CLOCK_MONOTONIC in ns. All other times are CLOCK_MONOTONIC.
    pub clock: i64,
    /// The host's time zone when recording began; `None` if unknown, or in older recordings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    pub scope: Scope,
    /// Every request was recorded, not only findings.
    pub all: bool,
    /// One of this many requests without a finding was recorded; 0: none, or all (see `all`).
    pub sample: u64,
    /// Requests have stacks.
    #[serde(default)]
    pub stacks: bool,
    /// `fentry` or `kprobe`
    pub attach: String,
    pub attached: Vec<String>,
    /// (probe, reason) of each probe that could not be attached.
    pub missing: Vec<(String, String)>,
    /// (API or `self-test`, reason) of what the self-test did not see.
    pub dark: Vec<(String, String)>,
    /// The APIs of `dark` of which no test request was seen. Older recordings do not have it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blind: Vec<String>,
}

impl Header {
    /// Bytes in a page of the recorded kernel; 4096 where the recording does not say it.
    #[must_use]
    pub fn page_size(&self) -> u64 {
        let is_sound = |page: &u32| page.is_power_of_two() && (4 << 10..=1 << 20).contains(page);
        self.page.filter(is_sound).unwrap_or(4 << 10).into()
    }
}

/// The processes whose requests were recorded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "RecordedScope"))]
pub enum Scope {
    #[default]
    System,
    Processes(Vec<u32>),
    Command(Vec<String>),
}

/// One line of a facts block.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "lowercase")]
pub enum Fact {
    File(Box<FileFact>),
    Task(TaskFact),
    Process(ProcessFact),
    Stack(stack::Stack),
    #[serde(rename = "refusal")]
    RejectedOpen(RejectedOpenFact),
    #[serde(rename = "mixer")]
    BufferedUse(BufferedUseFact),
}

/// Assigns an id to a file. Emitted again when more is known about the file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileFact {
    /// The id.
    pub file: u64,
    pub ino: u64,
    /// Kernel `dev_t`.
    pub dev: u32,
    pub generation: u32,
    pub info: FileInfo,
}

impl FileFact {
    /// The file's identity for a reader: the id takes the place of the inode's kernel address.
    #[must_use]
    pub const fn key(&self) -> FileId {
        FileId { inode: self.file, ino: self.ino, dev: self.dev, generation: self.generation }
    }
}

/// Assigns an id to a thread.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskFact {
    /// The id.
    pub task: u32,
    pub pid: u32,
    pub tid: u32,
    /// The kernel's name of the thread, unescaped and without trailing NULs.
    pub comm: Vec<u8>,
}

/// The name of a process that has counters, or whose name differs from its thread's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessFact {
    pub pid: u32,
    pub name: Arc<str>,
    /// The title in its command line, if it differs from the name. Emitted again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<Arc<str>>,
    /// Where the process runs; missing if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<Container>,
}

/// A rejected open, see [`RejectedOpen`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RejectedOpenFact {
    pub time: u64,
    pub file: u64,
    pub task: u32,
    pub by: u16,
    pub proven: u16,
}

impl RejectedOpenFact {
    #[must_use]
    pub const fn event(&self, file: FileId, task: Task) -> RejectedOpen {
        RejectedOpen {
            kind: EVENT_REJECTED_OPEN,
            by: self.by,
            proven: self.proven,
            time_ns: self.time,
            file,
            task,
        }
    }
}

/// Mixed access, see [`BufferedUseEvent`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BufferedUseFact {
    pub time: u64,
    pub file: u64,
    pub task: u32,
    pub how: u32,
    /// [`BufferedUseEvent::direct_user`]; 0 in older recordings, which do not have it.
    #[serde(default)]
    pub direct_user: u32,
}

impl BufferedUseFact {
    #[must_use]
    pub const fn event(&self, file: FileId, task: Task) -> BufferedUseEvent {
        BufferedUseEvent {
            kind: EVENT_BUFFERED_USE,
            direct_user: self.direct_user,
            time_ns: self.time,
            buffered_use: BufferedUse { file, tgid: task.tgid, how: self.how },
            task,
        }
    }
}

impl TaskFact {
    /// The thread as the probes send it.
    #[must_use]
    pub fn task(&self) -> Task {
        let mut task = Task { tid: self.tid, tgid: self.pid, ..Task::NONE };
        for (to, from) in task.comm.iter_mut().zip(&self.comm) {
            *to = *from;
        }
        task
    }
}

/// In a recording, of `how` of a use that did not ask for direct I/O: the row has the calls.
pub const UNASKED_CALLS: u32 = 1 << 4;

/// Counts since recording began. Rows that did not change since the previous totals are left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TotalsFact {
    /// CLOCK_MONOTONIC in ns.
    pub time: u64,
    /// (name, count) of each statistic; the names are in docs/json.md.
    pub stats: Vec<(String, u64)>,
    /// (program, runs that BPF skipped).
    pub skipped: Vec<(String, u64)>,
    pub counters: Vec<CounterFact>,
    /// (file, process, how, pages) of mixed access; (file, process, how, bytes) of a use that did not
    /// ask for direct I/O, whose calls are a row with [`UNASKED_CALLS`].
    #[serde(rename = "mixers")]
    pub buffered_uses: Vec<(u64, u32, u32, u64)>,
    /// Requests that the recorder dropped because the disk was too slow.
    pub dropped: u64,
}

/// A row of the counters, see [`CounterKey`] and [`Counter`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CounterFact {
    pub file: u64,
    pub pid: u32,
    /// op, verdict, outcome, finding, errno
    pub what: (u8, u8, u8, u8, u16),
    pub requests: u64,
    /// (total, direct, cached)
    pub bytes: (u64, u64, u64),
    /// Sum of latencies in ns.
    pub latency_ns: u64,
    /// The latency histogram: the first bucket that is not 0, and the counts from there on.
    #[serde(default)]
    pub buckets: (u8, Vec<u32>),
    /// The same in files up to version 3, where each bucket is a power of two of ns.
    #[serde(default, skip_serializing, rename = "latency")]
    powers: (u8, Vec<u32>),
}

impl CounterFact {
    #[must_use]
    pub fn new(file: u64, key: &CounterKey, counter: &Counter) -> Self {
        let latency = &counter.latency.0;
        let first = latency.iter().position(|n| *n != 0).unwrap_or(0);
        let stop = latency.iter().rposition(|n| *n != 0).map_or(first, |last| last + 1);
        Self {
            file,
            pid: key.tgid,
            what: (key.op, key.verdict, key.outcome, key.finding, key.errno),
            requests: counter.requests,
            bytes: (counter.bytes, counter.direct_bytes, counter.cached_bytes),
            latency_ns: counter.latency_ns,
            buckets: (first as u8, latency[first..stop].to_vec()),
            powers: (0, Vec::new()),
        }
    }

    /// Converts the row back to a counter, under the reader's key of the file.
    #[must_use]
    pub fn counter(&self, key: FileId) -> (CounterKey, Counter) {
        let (op, verdict, outcome, finding, errno) = self.what;
        let key = CounterKey {
            file: key,
            op,
            verdict,
            outcome,
            finding,
            tgid: self.pid,
            errno,
            pad: [0; 6],
        };
        let (bytes, direct_bytes, cached_bytes) = self.bytes;
        let value = Counter {
            requests: self.requests,
            bytes,
            direct_bytes,
            cached_bytes,
            latency_ns: self.latency_ns,
            latency: self.histogram(),
        };
        (key, value)
    }

    fn histogram(&self) -> Histogram {
        let (first, powers) = &self.powers;
        let powers = (usize::from(*first)..).zip(powers.iter().copied());
        let mut latency = Histogram::from_powers_of_two(powers);
        let (first, buckets) = &self.buckets;
        let from = usize::from(*first).min(BUCKETS);
        for (to, n) in latency.0[from..].iter_mut().zip(buckets) {
            *to = to.saturating_add(*n);
        }
        latency
    }
}

/// The end of a recording that was ended cleanly.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct End {
    /// CLOCK_MONOTONIC in ns.
    pub time: u64,
    /// [`End::DONE`], or why recording stopped.
    pub why: String,
}

impl End {
    /// The word for a recording that stopped because it was complete.
    pub const DONE: &'static str = "done";

    /// Why recording stopped early; None if the recording is complete.
    #[must_use]
    pub fn stopped_by(&self) -> Option<&str> {
        (self.why != Self::DONE).then_some(&self.why)
    }
}

#[cfg(test)]
mod tests {
    use dio_trace_common::abi::FileId;

    use super::*;

    #[test]
    fn a_histogram_of_powers_of_two_keeps_its_upper_bounds() {
        let row = |histogram: &str| -> Counter {
            let text = format!(
                r#"{{"file":1,"pid":2,"what":[0,8,1,0,0],"requests":3,"bytes":[0,0,0],
                    "latency_ns":9,{histogram}}}"#
            );
            let fact: CounterFact = serde_json::from_str(&text).unwrap();
            fact.counter(FileId::NONE).1
        };
        let version3 = row(r#""latency":[12,[2,0,1]]"#).latency;
        assert_eq!((version3.percentile(50), version3.permille(1_000)), (1 << 13, 1 << 15));
        let mut latency = Histogram::EMPTY;
        [5_000, 5_100, 18_000].iter().for_each(|ns| latency.count(*ns));
        let counter = Counter { latency, ..Counter::ZERO };
        let key = CounterKey {
            file: FileId::NONE,
            op: 0,
            verdict: 8,
            outcome: 1,
            finding: 0,
            tgid: 2,
            errno: 0,
            pad: [0; 6],
        };
        let text = serde_json::to_string(&CounterFact::new(1, &key, &counter)).unwrap();
        let back: CounterFact = serde_json::from_str(&text).unwrap();
        assert_eq!(back.counter(FileId::NONE).1.latency, latency, "{text}");
    }
}
