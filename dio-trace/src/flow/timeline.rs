//! Counts of requests and findings over time. A timeline has a bounded number of slices; their
//! width doubles as the recording gets longer.

use dio_trace_common::{histogram::Histogram, verdict::Verdict};

/// Maximum number of slices kept. Outputs merge them to as many as fit.
const SLICES: usize = 128;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The requests that ended in one slice of time.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    pub requests: u64,
    pub findings: u64,
    /// Requests by verdict, in the order of [`Verdict::ALL`].
    pub verdicts: [u64; Verdict::ALL.len()],
    /// The latency histogram.
    pub latency: Histogram,
}

impl Slice {
    const EMPTY: Self = Self {
        requests: 0,
        findings: 0,
        verdicts: [0; Verdict::ALL.len()],
        latency: Histogram::EMPTY,
    };

    fn add(mut self, other: &Self) -> Self {
        self.requests += other.requests;
        self.findings += other.findings;
        self.verdicts.iter_mut().zip(other.verdicts).for_each(|(sum, n)| *sum += n);
        self.latency.merge(&other.latency);
        self
    }
}

/// Counts of requests over time.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    start: u64,
    /// ns per slice; 0 before the first request.
    width: u64,
    slices: Vec<Slice>,
}

impl Timeline {
    /// Adds a request that ended at `time` and took `latency`, both in ns.
    pub fn add(&mut self, time: u64, latency: u64, verdict: Verdict, finding: bool) {
        const FIRST: u64 = 1_000_000;
        if self.width == 0 {
            (self.start, self.width) = (time, FIRST);
        }
        // Requests come nearly in the order of their ends; one before the start counts in slice 0.
        let mut at = (time.saturating_sub(self.start) / self.width) as usize;
        while at >= SLICES {
            self.fold();
            at /= 2;
        }
        if self.slices.len() <= at {
            self.slices.resize(at + 1, Slice::EMPTY);
        }
        let slice = &mut self.slices[at];
        slice.requests += 1;
        slice.findings += u64::from(finding);
        slice.verdicts[verdict as usize] += 1;
        slice.latency.count(latency);
    }

    /// Takes the finding back of a request that ended at `time` and was added.
    pub fn is_no_finding(&mut self, time: u64) {
        let at = time.saturating_sub(self.start).checked_div(self.width).unwrap_or(0);
        if let Some(slice) = self.slices.get_mut(at as usize) {
            slice.findings = slice.findings.saturating_sub(1);
        }
    }

    /// Halves the number of slices.
    fn fold(&mut self) {
        let pair = |pair: &[Slice]| pair.iter().fold(Slice::EMPTY, Slice::add);
        self.slices = self.slices.chunks(2).map(pair).collect();
        self.width *= 2;
    }

    /// Returns ns per slice, and at most `most` slices.
    #[must_use]
    pub fn slices(&self, most: usize) -> (u64, Vec<Slice>) {
        let mut copy = self.clone();
        while copy.slices.len() > most.max(1) {
            copy.fold();
        }
        (copy.width, copy.slices)
    }

    /// Begin of the first slice in ns.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }
}

/// Merges the timelines of several recordings. Each comes with its begin in ns on a clock that all
/// share. Returns the begin, ns per slice, and at most `most` slices.
///
/// Each slice is added to the merged slice that contains its middle.
#[must_use]
pub fn join(timelines: &[(u64, &Timeline)], most: usize) -> (u64, u64, Vec<Slice>) {
    let with_any = || timelines.iter().filter(|(_, timeline)| !timeline.slices.is_empty());
    let start = with_any().map(|(start, _)| *start).min().unwrap_or(0);
    let end = |(start, timeline): &(u64, &Timeline)| {
        start.saturating_add(timeline.width.saturating_mul(timeline.slices.len() as u64))
    };
    let lasted = with_any().map(end).max().unwrap_or(0).saturating_sub(start);
    let mut width = with_any().map(|(_, timeline)| timeline.width).max().unwrap_or(1);
    while lasted.div_ceil(width) > most.max(1) as u64 {
        width *= 2;
    }
    let mut slices = vec![Slice::EMPTY; lasted.div_ceil(width) as usize];
    for (begin, timeline) in with_any() {
        for (i, slice) in timeline.slices.iter().enumerate() {
            let middle = timeline.width.saturating_mul(i as u64).saturating_add(timeline.width / 2);
            let at = ((begin - start).saturating_add(middle) / width) as usize;
            if let Some(sum) = slices.get_mut(at) {
                *sum = sum.add(slice);
            }
        }
    }
    (start, width, slices)
}

/// One bar character per number; a space for 0.
#[must_use]
pub fn sparkline(numbers: &[u64]) -> String {
    let top = numbers.iter().copied().max().unwrap_or(0).max(1);
    let bar = |n: &u64| match n {
        0 => ' ',
        n => BARS[((u128::from(*n) * 8).div_ceil(u128::from(top)) as usize - 1).min(7)],
    };
    numbers.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One request a second, all of them findings.
    fn seconds(n: u64) -> Timeline {
        let mut timeline = Timeline::default();
        for second in 0..n {
            timeline.add(second * 1_000_000_000, 1, Verdict::Fallback, true);
        }
        timeline
    }

    #[test]
    fn joined_timelines_have_one_ruler() {
        const HOUR: u64 = 3_600_000_000_000;
        let (first, later, none) = (seconds(3_600), seconds(60), Timeline::default());
        let all = [(10 * HOUR, &first), (10 * HOUR + HOUR / 2, &later), (0, &none)];
        let (start, width, slices) = join(&all, 24);
        assert_eq!((start, slices.len() <= 24), (10 * HOUR, true));
        let sum = slices.iter().fold(Slice::EMPTY, Slice::add);
        assert_eq!((sum.requests, sum.findings), (3_660, 3_660));
        let at = (HOUR / 2 / width) as usize;
        // The later minute may lie in two slices.
        let pair = |at: usize| slices[at].requests + slices[at + 1].requests;
        let (both, alone) = (pair(at), pair(at - 2));
        assert!(both.abs_diff(alone + 60) <= 2, "{both} where both were, {alone} before");
        assert_eq!(join(&[], 24).2.len(), 0);
    }

    #[test]
    fn one_timeline_joined_is_itself() {
        let timeline = seconds(1_000);
        let (width, slices) = timeline.slices(24);
        let (start, joined_width, joined) = join(&[(7, &timeline)], 24);
        assert_eq!((start, joined_width, joined.len()), (7, width, slices.len()));
        assert!(joined.iter().zip(&slices).all(|(a, b)| a.requests == b.requests));
    }

    #[test]
    fn slices_grow_and_lose_nothing() {
        let mut timeline = Timeline::default();
        for second in 0..3_600 {
            let verdict = if second % 3 == 0 { Verdict::Fallback } else { Verdict::Direct };
            timeline.add(1_000 + second * 1_000_000_000, 1 << 17, verdict, second % 2 == 0);
        }
        let (width, slices) = timeline.slices(60);
        assert!(slices.len() <= 60 && width * 60 >= 3_599_000_000_000);
        let sum = slices.iter().fold(Slice::EMPTY, Slice::add);
        assert_eq!(
            (sum.requests, sum.findings, sum.latency.powers_of_two()[17]),
            (3_600, 1_800, 3_600)
        );
        assert_eq!(sum.verdicts[Verdict::Fallback as usize], 1_200);
        assert_eq!(sparkline(&[0, 1, 4, 8]), " ▁▄█");
        assert_eq!(sparkline(&[]), "");
        timeline.add(u64::MAX, 0, Verdict::Direct, true);
        assert!(timeline.slices(60).1.len() <= 60);
    }
}
