//! A metric with its series, as prometheus-client writes it.

use std::{collections::BTreeMap, fmt};

use dio_trace_common::histogram::Histogram;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// The labels of a series.
pub(super) type Labels = Vec<(&'static str, String)>;

/// Most series of a metric. Further ones are summed in one series, whose labels are `other`.
const MAX_SERIES: usize = 2_000;
/// The value of the labels of that series.
const OTHER: &str = "other";
/// Buckets below 1 µs and above 2^34 ns (17 s) are not told apart.
const FIRST: usize = 9;
const LAST: usize = 33;

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Clone, Debug)]
enum Value {
    Number(u64),
    /// The sum in ns.
    Durations(u64, Box<Histogram>),
}

/// A metric: all series of one name.
#[derive(Clone, Debug)]
pub(super) struct Family {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    series: BTreeMap<Labels, Value>,
}

impl Family {
    pub(super) fn new(name: &'static str, help: &'static str, kind: Kind) -> Self {
        Self { name, help, kind, series: BTreeMap::new() }
    }

    /// Adds to the series with these labels.
    pub(super) fn add(&mut self, labels: Labels, n: u64) {
        match self.entry(labels).or_insert(Value::Number(0)) {
            Value::Number(sum) => *sum = sum.saturating_add(n),
            Value::Durations(..) => {}
        }
    }

    /// Adds durations, of which `ns` is the sum.
    pub(super) fn observe(&mut self, labels: Labels, ns: u64, durations: &Histogram) {
        let empty = || Value::Durations(0, Box::new(Histogram::EMPTY));
        match self.entry(labels).or_insert_with(empty) {
            Value::Durations(sum, histogram) => {
                *sum = sum.saturating_add(ns);
                histogram.merge(durations);
            }
            Value::Number(_) => {}
        }
    }

    fn entry(&mut self, labels: Labels) -> std::collections::btree_map::Entry<'_, Labels, Value> {
        let full = self.series.len() >= MAX_SERIES && !self.series.contains_key(&labels);
        let labels = if full { other(&labels) } else { labels };
        self.series.entry(labels)
    }
}

/// The labels of what is beyond a bound: the same names, all with one value.
fn other(labels: &Labels) -> Labels {
    labels.iter().map(|(name, _)| (*name, OTHER.to_owned())).collect()
}

/// Metrics as a [`Collector`].
#[derive(Debug)]
pub(super) struct Exported(pub(super) Vec<Family>);

impl Collector for Exported {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(family.name, family.help, None, kind)?;
            for (labels, value) in &family.series {
                if labels.is_empty() {
                    encode(&mut metric, family.kind, value)?;
                } else {
                    encode(&mut metric.encode_family(labels)?, family.kind, value)?;
                }
            }
        }
        Ok(())
    }
}

fn encode(metric: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Number(n)) => metric.encode_counter::<NoLabelSet, u64, u64>(n, None),
        (_, Value::Number(n)) => metric.encode_gauge(n),
        (_, Value::Durations(sum, histogram)) => {
            let buckets = buckets(histogram);
            let count = buckets.iter().map(|(_, n)| n).sum();
            metric.encode_histogram::<NoLabelSet>(seconds(*sum), count, &buckets, None)
        }
    }
}

/// The buckets of a histogram, each with its upper bound in seconds.
fn buckets(histogram: &Histogram) -> Vec<(f64, u64)> {
    let sum = |buckets: &[u32]| buckets.iter().map(|n| u64::from(*n)).sum();
    let of = histogram.powers_of_two();
    let bound = |bucket: usize| seconds(1 << (bucket + 1));
    let mut found = vec![(bound(FIRST), sum(&of[..=FIRST]))];
    found.extend((FIRST + 1..=LAST).map(|bucket| (bound(bucket), u64::from(of[bucket]))));
    found.push((f64::INFINITY, sum(&of[LAST + 1..])));
    found
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_the_bound_is_one_series_and_nothing_is_lost() {
        let mut family = Family::new("x", "x", Kind::Counter);
        let all = MAX_SERIES as u64 + 10;
        for n in 0..all {
            family.add(vec![("comm", n.to_string())], 1);
        }
        assert_eq!(family.series.len(), MAX_SERIES + 1);
        let sum: u64 = family
            .series
            .values()
            .map(|value| if let Value::Number(n) = value { *n } else { 0 })
            .sum();
        assert_eq!(sum, all);
        let other = &family.series[&vec![("comm", OTHER.to_owned())]];
        assert!(matches!(other, Value::Number(10)), "{other:?}");
    }

    #[test]
    fn buckets_hold_every_duration_once() {
        let mut histogram = Histogram::EMPTY;
        [0, 999, 1_023, 1_024, 1_000_000, u64::MAX].iter().for_each(|ns| histogram.count(*ns));
        let buckets = buckets(&histogram);
        assert_eq!(buckets.iter().map(|(_, n)| n).sum::<u64>(), 6);
        assert_eq!(buckets[0], (1.024e-6, 3));
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, 1)));
        assert!(buckets.is_sorted_by(|a, b| a.0 < b.0));
    }
}
