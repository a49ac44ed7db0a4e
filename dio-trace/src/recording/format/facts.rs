//! What is recorded beside requests, as JSON: a reader in any language can have it.

use dio_trace_common::abi::{
    Counter, CounterKey, EVENT_MIXER, EVENT_REFUSAL, FileId, LATENCY_BUCKETS, Mixer, MixerEvent,
    Refusal,
};
use serde::{Deserialize, Serialize};

use crate::{model::FileInfo, system::stack, util::clock::Zone};

/// Where, when and how it was recorded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Header {
    pub tool: String,
    pub host: String,
    /// `uname -r`
    pub kernel: String,
    /// /proc/sys/kernel/random/boot_id: which run of that kernel.
    pub boot: String,
    /// ns since the epoch when recording began.
    pub started: u64,
    /// ns that CLOCK_REALTIME was ahead of CLOCK_MONOTONIC, which all other times are in.
    pub clock: i64,
    /// The host's time zone when recording began; not in older recordings, or it could not be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
    pub scope: Scope,
    /// Every request, not findings alone.
    pub all: bool,
    /// Of the requests without a finding, one in so many; 0: none, or all.
    pub sample: u64,
    /// Requests have stacks.
    #[serde(default)]
    pub stacks: bool,
    /// `fentry` or `kprobe`
    pub attach: String,
    pub attached: Vec<String>,
    /// Probe and reason.
    pub missing: Vec<(String, String)>,
    pub dark: Vec<(String, String)>,
}

/// Whose requests.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    #[default]
    System,
    Processes(Vec<u32>),
    Command(Vec<String>),
}

/// What a line of a facts block holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "lowercase")]
pub enum Fact {
    File(Box<FileFact>),
    Task(TaskFact),
    Process(ProcessFact),
    Stack(stack::Stack),
    Refusal(RefusalFact),
    Mixer(MixerFact),
}

/// A file gets its number. Told again when more is known of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FileFact {
    pub file: u64,
    pub ino: u64,
    /// Kernel `dev_t`.
    pub dev: u32,
    pub generation: u32,
    pub info: FileInfo,
}

impl FileFact {
    /// The key under which a reader has it: its number in place of the kernel's address.
    #[must_use]
    pub const fn key(&self) -> FileId {
        FileId { inode: self.file, ino: self.ino, dev: self.dev, generation: self.generation }
    }
}

/// A thread gets its number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TaskFact {
    pub task: u32,
    pub pid: u32,
    pub tid: u32,
    /// As the kernel has it, byte for byte, without NULs at its end.
    pub comm: Vec<u8>,
}

/// A process that has counters, by name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessFact {
    pub pid: u32,
    pub name: String,
    /// What it calls itself, where that says more. Told again when it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

/// See [`Refusal`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RefusalFact {
    pub time: u64,
    pub file: u64,
    pub task: u32,
    pub by: u16,
    pub proven: u16,
}

impl RefusalFact {
    #[must_use]
    pub const fn event(&self, key: FileId, (pid, tid, comm): (u32, u32, [u8; 16])) -> Refusal {
        Refusal {
            kind: EVENT_REFUSAL,
            by: self.by,
            proven: self.proven,
            time_ns: self.time,
            inode: key.inode,
            ino: key.ino,
            dev: key.dev,
            tgid: pid,
            tid,
            generation: key.generation,
            comm,
        }
    }
}

/// See [`MixerEvent`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MixerFact {
    pub time: u64,
    pub file: u64,
    pub task: u32,
    pub how: u32,
    /// [`MixerEvent::direct_user`]; older recordings do not say.
    #[serde(default)]
    pub direct_user: u32,
}

impl MixerFact {
    #[must_use]
    pub const fn event(&self, key: FileId, (pid, tid, comm): (u32, u32, [u8; 16])) -> MixerEvent {
        MixerEvent {
            kind: EVENT_MIXER,
            tid,
            time_ns: self.time,
            mixer: mixer(key, pid, self.how),
            direct_user: self.direct_user,
            pad: 0,
            comm,
        }
    }
}

#[must_use]
pub const fn mixer(key: FileId, tgid: u32, how: u32) -> Mixer {
    Mixer { inode: key.inode, ino: key.ino, dev: key.dev, tgid, how, generation: key.generation }
}

impl TaskFact {
    /// As the probes send it.
    #[must_use]
    pub fn comm16(&self) -> [u8; 16] {
        let mut comm = [0; 16];
        for (to, from) in comm.iter_mut().zip(&self.comm) {
            *to = *from;
        }
        comm
    }
}

/// Counts since recording began. Rows that did not change since the totals before are left out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct TotalsFact {
    /// CLOCK_MONOTONIC in ns.
    pub time: u64,
    /// By name, as in docs/json.md.
    pub stats: Vec<(String, u64)>,
    pub skipped: Vec<(String, u64)>,
    pub counters: Vec<CounterFact>,
    /// File, process, how, pages.
    pub mixers: Vec<(u64, u32, u32, u64)>,
    /// Requests that the recorder itself had to leave out: the disk was too slow.
    pub dropped: u64,
}

/// See [`CounterKey`] and [`Counter`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CounterFact {
    pub file: u64,
    pub pid: u32,
    /// op, verdict, outcome, finding, errno
    pub what: (u8, u8, u8, u8, u16),
    pub requests: u64,
    /// In all, direct, cached.
    pub bytes: (u64, u64, u64),
    pub latency_ns: u64,
    /// Requests by power of two of ns, from the first that is not 0: (power, requests…).
    pub latency: (u8, Vec<u32>),
}

impl CounterFact {
    #[must_use]
    pub fn new(file: u64, key: &CounterKey, counter: &Counter) -> Self {
        let first = counter.latency.iter().position(|n| *n != 0).unwrap_or(0);
        let stop = counter.latency.iter().rposition(|n| *n != 0).map_or(first, |last| last + 1);
        Self {
            file,
            pid: key.tgid,
            what: (key.op, key.verdict, key.outcome, key.finding, key.errno),
            requests: counter.requests,
            bytes: (counter.bytes, counter.direct_bytes, counter.cached_bytes),
            latency_ns: counter.latency_ns,
            latency: (first as u8, counter.latency[first..stop].to_vec()),
        }
    }

    /// Back, under the reader's key of the file.
    #[must_use]
    pub fn counter(&self, key: FileId) -> (CounterKey, Counter) {
        let (op, verdict, outcome, finding, errno) = self.what;
        let mut latency = [0; LATENCY_BUCKETS];
        let from = usize::from(self.latency.0).min(LATENCY_BUCKETS);
        for (to, n) in latency[from..].iter_mut().zip(&self.latency.1) {
            *to = *n;
        }
        let key = CounterKey {
            inode: key.inode,
            ino: key.ino,
            dev: key.dev,
            generation: key.generation,
            tgid: self.pid,
            op,
            verdict,
            outcome,
            finding,
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
            latency,
        };
        (key, value)
    }
}

/// Why it ended in good order.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct End {
    /// CLOCK_MONOTONIC in ns.
    pub time: u64,
    /// `done`, or what stopped it.
    pub why: String,
}
