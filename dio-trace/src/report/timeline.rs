//! Requests and findings by time, in a fixed number of slices that grow with the recording.

/// Slices kept; shown are as many as fit.
const SLICES: usize = 128;
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Counts by time.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    start: u64,
    /// ns per slice; 0 before the first request.
    width: u64,
    slices: Vec<(u64, u64)>,
}

impl Timeline {
    /// Adds a request at a time in ns.
    pub fn add(&mut self, time: u64, finding: bool) {
        const FIRST: u64 = 1_000_000;
        if self.width == 0 {
            (self.start, self.width) = (time, FIRST);
        }
        // Requests end in their order but for a little.
        let mut slice = (time.saturating_sub(self.start) / self.width) as usize;
        while slice >= SLICES {
            self.fold();
            slice /= 2;
        }
        if self.slices.len() <= slice {
            self.slices.resize(slice + 1, (0, 0));
        }
        self.slices[slice].0 += 1;
        self.slices[slice].1 += u64::from(finding);
    }

    /// Halves the number of slices.
    fn fold(&mut self) {
        let pair = |pair: &[(u64, u64)]| {
            pair.iter().fold((0, 0), |sum, slice| (sum.0 + slice.0, sum.1 + slice.1))
        };
        self.slices = self.slices.chunks(2).map(pair).collect();
        self.width *= 2;
    }

    /// ns per slice and (requests, findings) of each, in at most `most` slices.
    #[must_use]
    pub fn slices(&self, most: usize) -> (u64, Vec<(u64, u64)>) {
        let mut copy = self.clone();
        while copy.slices.len() > most.max(1) {
            copy.fold();
        }
        (copy.width, copy.slices)
    }

    /// When the first slice begins.
    #[must_use]
    pub const fn start(&self) -> u64 {
        self.start
    }
}

/// A bar for each number; a space for 0, so that silence looks like it.
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

    #[test]
    fn slices_grow_and_lose_nothing() {
        let mut timeline = Timeline::default();
        for second in 0..3_600 {
            timeline.add(1_000 + second * 1_000_000_000, second % 2 == 0);
        }
        let (width, slices) = timeline.slices(60);
        assert!(slices.len() <= 60 && width * 60 >= 3_599_000_000_000);
        let sum = slices.iter().fold((0, 0), |s, x| (s.0 + x.0, s.1 + x.1));
        assert_eq!(sum, (3_600, 1_800));
        assert_eq!(sparkline(&[0, 1, 4, 8]), " ▁▄█");
        assert_eq!(sparkline(&[]), "");
        timeline.add(u64::MAX, true);
        assert!(timeline.slices(60).1.len() <= 60);
    }
}
