//! Increments of counters since the previous read.

use std::collections::HashMap;

use dio_trace_common::abi::{Counter, CounterKey};

/// The counters at the previous read.
#[derive(Default)]
pub struct Rates {
    before: HashMap<CounterKey, Counter>,
}

impl Rates {
    /// The increment of each counter since the previous call, without counters that did not change.
    pub fn since(&mut self, counters: &[(CounterKey, Counter)]) -> Vec<(CounterKey, Counter)> {
        let more = |(key, now): &(CounterKey, Counter)| {
            let before = self.before.get(key).copied().unwrap_or(Counter::ZERO);
            let more = now.since(&before);
            (more.requests != 0).then_some((*key, more))
        };
        let changed = counters.iter().filter_map(more).collect();
        self.before = counters.iter().copied().collect();
        changed
    }
}

#[cfg(test)]
mod tests {
    use dio_trace_common::verdict::decide;

    use super::*;
    use crate::testing::fixtures;

    fn counted(ino: u64, requests: u64) -> (CounterKey, Counter) {
        let mut request = fixtures::request();
        request.file.ino = ino;
        let decision = decide(&request.facts(), &request.evidence);
        let mut counter = Counter { requests, bytes: requests * 4096, ..Counter::ZERO };
        counter.latency.0[16] = requests as u32;
        (CounterKey::of(&request, &decision), counter)
    }

    #[test]
    fn only_what_changed_comes_out() {
        let mut rates = Rates::default();
        let numbers = |rows: Vec<(CounterKey, Counter)>| -> Vec<(u64, u64, u64, u32)> {
            rows.iter().map(|(k, c)| (k.file.ino, c.requests, c.bytes, c.latency.0[16])).collect()
        };
        assert_eq!(numbers(rates.since(&[counted(1, 5)])), [(1, 5, 20_480, 5)]);
        assert_eq!(numbers(rates.since(&[counted(1, 5), counted(2, 1)])), [(2, 1, 4096, 1)]);
        assert_eq!(numbers(rates.since(&[counted(1, 7), counted(2, 1)])), [(1, 2, 8192, 2)]);
    }

    #[test]
    fn a_counter_that_restarted_and_one_that_wrapped() {
        let mut rates = Rates::default();
        rates.since(&[counted(1, 9)]);
        assert_eq!(rates.since(&[counted(1, 3)])[0].1.requests, 3);
        let (key, mut counter) = counted(1, 10);
        counter.latency.0[16] = u32::MAX;
        rates.since(&[(key, counter)]);
        (counter.requests, counter.latency.0[16]) = (12, 1);
        assert_eq!(rates.since(&[(key, counter)])[0].1.latency.0[16], 2);
    }
}
