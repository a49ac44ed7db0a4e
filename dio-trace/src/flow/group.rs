//! Groups: sums of requests by process, file, file system, container or verdict, and by what only
//! single requests have.

use std::{cmp::Ordering, collections::HashMap};

use clap::ValueEnum;
use dio_trace_common::{
    abi::{Counter, CounterKey},
    histogram::Histogram,
};
use serde::{Serialize, Serializer};

use crate::{
    enrich::Enricher,
    flow::{
        bytes::{Bytes, verdict},
        explained::ExplainedRequest,
    },
    system::container::Container,
};

/// The key that requests are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, ValueEnum)]
pub enum By {
    Process,
    Thread,
    File,
    Fs,
    Cause,
    /// The container of the process, or its cgroup
    Container,
    /// The Kubernetes pod of the process
    Pod,
    /// The pod's namespace
    Namespace,
    /// The volume of a pod or container that the file is on
    Volume,
    Stack,
    Time,
    Verdict,
}

impl By {
    /// True if counters do not have it, so that single requests are summed.
    #[must_use]
    pub const fn is_of_records(self) -> bool {
        matches!(self, Self::Thread | Self::Cause | Self::Stack | Self::Time)
    }
}

/// The groups of a run, as they are asked for.
#[derive(Clone, Debug)]
pub struct Groups {
    pub by: By,
    /// True if the user asked for them.
    pub asked: bool,
    pub rows: Vec<Group>,
}

impl Serialize for Groups {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.rows.serialize(serializer)
    }
}

/// One group: its name and its sums.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Group {
    pub name: String,
    pub requests: u64,
    pub findings: u64,
    pub bytes: Bytes,
    pub latency_p50_ns: Option<u64>,
    pub latency_p99_ns: Option<u64>,
    pub latency_p999_ns: Option<u64>,
    /// Upper bound of the bucket of the longest.
    pub latency_max_ns: Option<u64>,
    #[serde(skip)]
    latency_ns: u64,
    #[serde(skip)]
    latency: Histogram,
}

/// Groups counters, those with most findings first. Counters have no thread, cause, stack or time:
/// grouping by these gives verdicts.
#[must_use]
pub fn groups(counters: &[(CounterKey, Counter)], by: By, enricher: &mut Enricher) -> Vec<Group> {
    let mut rows: HashMap<String, Group> = HashMap::new();
    for (key, counter) in counters {
        let name = name(key, by, enricher);
        let row = rows.entry(name.clone()).or_insert_with(|| Group { name, ..Group::default() });
        row.requests += counter.requests;
        row.findings += if key.finding != 0 { counter.requests } else { 0 };
        row.bytes.add(counter);
        row.latency_ns = row.latency_ns.saturating_add(counter.latency_ns);
        row.latency.merge(&counter.latency);
    }
    let mut rows: Vec<Group> = rows.into_values().collect();
    for row in &mut rows {
        row.measure();
    }
    rows.sort_by(Group::order);
    rows
}

/// The name of the group of processes whose container is not known.
const NOT_KNOWN: &str = "(not known)";

/// The name of the group of what is in no pod, or on no volume.
fn none() -> String {
    "(none)".to_owned()
}

/// The name of the group of a process's container.
pub(crate) fn container(tgid: u32, enricher: &mut Enricher) -> String {
    enricher.container(tgid).map_or_else(|| NOT_KNOWN.to_owned(), Container::shown)
}

/// The name of the group of a process's pod.
pub(crate) fn pod(tgid: u32, enricher: &mut Enricher) -> String {
    enricher.container(tgid).and_then(Container::pod_shown).unwrap_or_else(none)
}

fn name(key: &CounterKey, by: By, enricher: &mut Enricher) -> String {
    match by {
        By::Process => format!("{}/{}", enricher.process(key.tgid, None), key.tgid),
        By::File => enricher.file(key.file, key.tgid).path.to_string(),
        By::Fs => enricher.file(key.file, key.tgid).fs.to_string(),
        By::Container => container(key.tgid, enricher),
        By::Pod => pod(key.tgid, enricher),
        By::Namespace => enricher
            .container(key.tgid)
            .and_then(|container| container.namespace.clone())
            .unwrap_or_else(none),
        By::Volume => {
            let volume = enricher.file(key.file, key.tgid).volume.as_deref();
            volume.map_or_else(none, str::to_owned)
        }
        By::Verdict | By::Thread | By::Cause | By::Stack | By::Time => {
            verdict(key).as_str().to_owned()
        }
    }
}

impl Default for Group {
    fn default() -> Self {
        Self {
            name: String::new(),
            requests: 0,
            findings: 0,
            bytes: Bytes::default(),
            latency_p50_ns: None,
            latency_p99_ns: None,
            latency_p999_ns: None,
            latency_max_ns: None,
            latency_ns: 0,
            latency: Histogram::EMPTY,
        }
    }
}

impl Group {
    /// A group of which only the counts are known.
    #[must_use]
    pub fn of(name: String, requests: u64, findings: u64) -> Self {
        Self { name, requests, findings, ..Self::default() }
    }

    /// Mean latency in ns of all requests of the group.
    #[must_use]
    pub fn latency_mean_ns(&self) -> u64 {
        self.latency_ns / self.requests.max(1)
    }

    /// The latency histogram.
    #[must_use]
    pub(crate) const fn latency(&self) -> &Histogram {
        &self.latency
    }

    /// Adds a request. Call [`Group::measure`] after the last one.
    pub fn count(&mut self, record: &ExplainedRequest) {
        self.requests += 1;
        self.findings += u64::from(record.finding);
        self.bytes.total += record.ret.max(0).unsigned_abs();
        self.bytes.direct += record.direct_bytes;
        self.bytes.cached += record.cached_bytes;
        self.latency_ns = self.latency_ns.saturating_add(record.latency_ns);
        self.latency.count(record.latency_ns);
    }

    /// Adds the same group of another recording.
    pub fn join(&mut self, other: &Self) {
        self.requests += other.requests;
        self.findings += other.findings;
        self.bytes.total += other.bytes.total;
        self.bytes.direct += other.bytes.direct;
        self.bytes.cached += other.bytes.cached;
        self.latency_ns = self.latency_ns.saturating_add(other.latency_ns);
        self.latency.merge(&other.latency);
        if self.latency_p50_ns.is_some() {
            self.measure();
        }
    }

    /// Computes the percentiles of the latencies that were added.
    pub fn measure(&mut self) {
        self.latency_p50_ns = Some(self.latency.percentile(50));
        self.latency_p99_ns = Some(self.latency.percentile(99));
        self.latency_p999_ns = Some(self.latency.permille(999));
        self.latency_max_ns = Some(self.latency.permille(1_000));
    }

    /// Orders groups by findings, then requests, most first; then by name.
    #[must_use]
    pub fn order(a: &Self, b: &Self) -> Ordering {
        (b.findings, b.requests, &a.name).cmp(&(a.findings, a.requests, &b.name))
    }
}
