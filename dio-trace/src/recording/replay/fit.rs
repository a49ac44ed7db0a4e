//! Reduces the rows of a report to those whose names fit in memory.

use std::cmp::Reverse;

use ahash::HashMap;
use dio_trace_common::abi::{Counter, CounterKey, FileId};

use crate::{
    enrich::Enricher,
    model::Totals,
    recording::replay::{
        budget::{Budget, SHOWN_ROW},
        tables::{OTHERS, OTHERS_NAME, others},
    },
};

/// Merges the rows that do not fit into `(others)`, rows with the fewest requests first, and drops
/// rows of uses through the page cache that do not fit. Returns the number of merged and dropped rows.
pub(super) fn fit(totals: &mut Totals, enricher: &mut Enricher) -> u64 {
    let mut budget = Budget::shown();
    // Each name is in the summary once, and in the sums by file twice.
    let mut cost = |key: FileId, tgid: u32| {
        let file = enricher.file(key, tgid);
        SHOWN_ROW + 3 * (file.path.len() + file.fs.len() + file.dev.len())
    };
    let mut fits = |key: FileId, tgid: u32| budget.take(cost(key, tgid));
    let uses = |totals: &Totals| totals.buffered_uses.len() + totals.unasked.len();
    let before = uses(totals);
    totals.buffered_uses.retain(|(buffered_use, _)| fits(buffered_use.file, buffered_use.tgid));
    totals.unasked.retain(|(unasked, _)| fits(unasked.file, unasked.tgid));
    let left = before - uses(totals);
    let mut order: Vec<u32> = (0..totals.counters.len() as u32).collect();
    let weight = |(key, counter): &(CounterKey, Counter)| (key.finding != 0, counter.requests);
    order.sort_by_key(|at| Reverse(weight(&totals.counters[*at as usize])));
    let mut shown = vec![false; order.len()];
    for at in &order {
        let key = &totals.counters[*at as usize].0;
        shown[*at as usize] = fits(key.file, key.tgid);
    }
    left as u64 + sum_up(&mut totals.counters, &shown, enricher)
}

fn sum_up(
    counters: &mut Vec<(CounterKey, Counter)>,
    shown: &[bool],
    enricher: &mut Enricher,
) -> u64 {
    let mut sums: HashMap<CounterKey, Counter> = HashMap::default();
    let (mut rows, mut shown) = (0, shown.iter());
    counters.retain(|(key, counter)| {
        let keep = shown.next().is_none_or(|shown| *shown);
        if !keep {
            rows += 1;
            sums.entry(others(key)).or_insert(Counter::ZERO).merge(counter);
        }
        keep
    });
    if rows != 0 {
        enricher.stand_in(OTHERS, OTHERS_NAME);
    }
    counters.extend(sums);
    rows
}
