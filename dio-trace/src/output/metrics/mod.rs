//! Metrics for Prometheus (`--metrics`, `--metrics-file`): the totals of a run, by
//! labels that do not grow with the number of files. docs/metrics.md lists them.
//!
//! - [`family`]: a metric with its series, and the bound on their number
//! - [`labels`]: the labels of a request
//!
//! Requests and bytes come from the probes' counters, which lose nothing as long as `LostCounter` is
//! 0. Causes and pages come from the events of findings.

mod family;
mod labels;

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use dio_trace_common::{
    abi::{Op, Stat},
    histogram::Histogram,
    verdict::{Outcome, Verdict},
};
use prometheus_client::{
    encoding::{prometheus_text, text},
    registry::Registry,
};

use crate::{
    enrich::Enricher,
    flow::{
        bytes::verdict, explained::ExplainedRequest, side_events::RejectedOpenRow, summary::LOSSES,
    },
    model::Totals,
};

pub use labels::Extra;

use family::{Exported, Family, Kind, Labels};
use labels::Names;

/// The prefix of all names.
const PREFIX: &str = "dio_trace";

/// The forms of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// OpenMetrics 1.0, which Prometheus asks for.
    OpenMetrics,
    /// The older text format of Prometheus, which node_exporter's textfile collector reads.
    Prometheus,
}

impl Form {
    /// The form that a scraper wants, by its `Accept` header.
    #[must_use]
    pub fn accepted(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The media type.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// Side effects of findings, in pages.
#[derive(Clone, Copy, Debug, Default)]
struct Pages {
    flushed: u64,
    invalidated: u64,
    read_ahead: u64,
    dirty_left: u64,
}

/// What the events of a run add to its counters: causes and pages.
#[derive(Debug)]
pub struct Metrics {
    names: Names,
    findings: Family,
    /// Findings whose container is not looked up yet: process, and the other labels.
    pending: Vec<(u32, Labels)>,
    pages: Pages,
    rejected_opens: Family,
    /// What the program is: version, commit, object.
    build: Labels,
}

impl Metrics {
    /// Metrics with these further labels. `build` is what `dio_trace_build_info` says.
    #[must_use]
    pub fn new(extra: Vec<Extra>, build: Vec<(&'static str, String)>) -> Self {
        Self {
            names: Names::new(extra),
            findings: Family::new(
                "findings",
                "Requests that were not direct, came back short, failed or had a side effect, by \
                 cause",
                Kind::Counter,
            ),
            pending: Vec::new(),
            pages: Pages::default(),
            rejected_opens: Family::new(
                "rejected_opens",
                "Calls of open or fcntl that failed because of O_DIRECT",
                Kind::Counter,
            ),
            build,
        }
    }

    /// Counts a request that is a finding.
    pub fn count(&mut self, record: &ExplainedRequest) {
        if !record.finding {
            return;
        }
        let mut labels = self.names.of_record(record);
        labels.push(("cause", record.cause.unwrap_or("not-explained").to_owned()));
        labels.push(("verdict", record.verdict.as_str().to_owned()));
        self.pending.push((record.pid, labels));
        let effects = &record.effects;
        let pages = &mut self.pages;
        for (sum, pages) in [
            (&mut pages.flushed, effects.flushed_pages),
            (&mut pages.invalidated, effects.invalidated_pages),
            (&mut pages.read_ahead, effects.readahead_pages),
            (&mut pages.dirty_left, effects.dirty_left_pages),
        ] {
            *sum = sum.saturating_add(u64::from(pages.unwrap_or(0)));
        }
    }

    /// Looks up the containers of the findings counted so far, while their processes still run.
    pub fn settle(&mut self, enricher: &mut Enricher) {
        for (pid, mut labels) in self.pending.drain(..) {
            labels::add_container(&mut labels, pid, enricher);
            self.findings.add(labels, 1);
        }
    }

    /// Counts an open that O_DIRECT made fail.
    pub fn count_rejected_open(&mut self, row: &RejectedOpenRow) {
        let labels = vec![("comm", row.user.comm.to_string()), ("fs", row.user.fs.to_string())];
        self.rejected_opens.add(labels, 1);
    }

    /// The text of all metrics.
    ///
    /// # Errors
    /// If the metrics cannot be written as text.
    pub fn text(&mut self, form: Form, totals: &Totals, enricher: &mut Enricher) -> Result<String> {
        self.settle(enricher);
        let mut families = self.requests(totals, enricher);
        families.extend(self.events());
        families.extend(tracer(totals));
        families.push(self.build_info(totals));
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(Exported(families)));
        let mut out = String::new();
        match form {
            Form::OpenMetrics => text::encode(&mut out, &registry),
            Form::Prometheus => prometheus_text::encode(&mut out, &registry),
        }
        .context("cannot write the metrics")?;
        Ok(out)
    }

    /// What the counters have: requests, bytes and durations.
    fn requests(&mut self, totals: &Totals, enricher: &mut Enricher) -> Vec<Family> {
        let mut requests = Family::new(
            "requests",
            "Completed O_DIRECT requests, by verdict and outcome",
            Kind::Counter,
        );
        let mut direct = Family::new(
            "direct_bytes",
            "Bytes of O_DIRECT requests that went past the page cache",
            Kind::Counter,
        );
        let mut cached = Family::new(
            "cached_bytes",
            "Bytes of O_DIRECT requests that went through the page cache",
            Kind::Counter,
        );
        let mut durations: HashMap<(Op, Verdict), (u64, Histogram)> = HashMap::new();
        for (key, counter) in &totals.counters {
            let (verdict, op) = (verdict(key), labels::op(key));
            let mut labels = self.names.of_counter(key, enricher);
            labels::add_container(&mut labels, key.tgid, enricher);
            let mut both = labels.clone();
            both.push(("verdict", verdict.as_str().to_owned()));
            both.push((
                "outcome",
                Outcome::from_u8(key.outcome).map_or("none", Outcome::as_str).to_owned(),
            ));
            requests.add(both, counter.requests);
            direct.add(labels.clone(), counter.direct_bytes);
            cached.add(labels, counter.cached_bytes);
            let (sum, histogram) = durations.entry((op, verdict)).or_insert((0, Histogram::EMPTY));
            *sum = sum.saturating_add(counter.latency_ns);
            histogram.merge(&counter.latency);
        }
        let mut duration = Family::new(
            "request_duration_seconds",
            "Time from the issue of a request to its completion",
            Kind::Histogram,
        );
        for ((op, verdict), (sum, histogram)) in durations {
            let labels = vec![
                ("operation", op.as_str().to_owned()),
                ("verdict", verdict.as_str().to_owned()),
            ];
            duration.observe(labels, sum, &histogram);
        }
        vec![requests, direct, cached, duration]
    }

    /// What the events have: causes, pages and rejected opens.
    fn events(&self) -> Vec<Family> {
        let mut pages = Family::new(
            "pages",
            "Pages of the page cache that findings wrote back, dropped, added or left dirty",
            Kind::Counter,
        );
        let Pages { flushed, invalidated, read_ahead, dirty_left } = self.pages;
        for (effect, n) in [
            ("flushed", flushed),
            ("invalidated", invalidated),
            ("read_ahead", read_ahead),
            ("dirty_left", dirty_left),
        ] {
            pages.add(vec![("effect", effect.to_owned())], n);
        }
        vec![self.findings.clone(), pages, self.rejected_opens.clone()]
    }

    fn build_info(&self, totals: &Totals) -> Family {
        let mut labels = self.build.clone();
        labels.push(("kernel", totals.kernel.clone()));
        labels.push(("attach", totals.attach.as_str().to_owned()));
        let mut build = Family::new("build_info", "What runs here", Kind::Gauge);
        build.add(labels, 1);
        build
    }
}

/// What the tracer says of itself: losses, probes, blindness.
fn tracer(totals: &Totals) -> Vec<Family> {
    let mut lost = Family::new(
        "lost",
        "What was not traced, not counted or not reported, by reason",
        Kind::Counter,
    );
    for stat in LOSSES {
        lost.add(vec![("reason", stat.as_str().to_owned())], totals.stat(*stat));
    }
    let mut unmatched =
        Family::new("unmatched_requests", "Requests whose completion was missed", Kind::Counter);
    unmatched.add(Vec::new(), totals.stat(Stat::Unmatched));
    let mut skipped = Family::new(
        "skipped_probe_runs",
        "Runs of a probe that the kernel skipped, by BPF program",
        Kind::Counter,
    );
    for (program, runs) in &totals.skipped {
        skipped.add(vec![("program", program.clone())], *runs);
    }
    let mut in_flight =
        Family::new("requests_in_flight", "Requests that have not completed", Kind::Gauge);
    in_flight.add(Vec::new(), totals.in_flight());
    let mut probes = Family::new("probes", "Probes, by state", Kind::Gauge);
    for (state, n) in [("attached", totals.attached.len()), ("missing", totals.missing.len())] {
        probes.add(vec![("state", state.to_owned())], n as u64);
    }
    let mut blind = Family::new(
        "blind",
        "1 for each way of requests that the tracer did not see in its self-test",
        Kind::Gauge,
    );
    for gap in &totals.dark {
        blind.add(vec![("api", gap.probe.clone())], 1);
    }
    vec![lost, unmatched, skipped, in_flight, probes, blind]
}
