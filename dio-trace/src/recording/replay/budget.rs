//! How much memory a report may take, whatever is in the file.
//!
//! A process that reads a recording stays below 512 MiB (docs/trace-format.md). What is kept while
//! it is read is charged here before it is kept; what is made of that at the end is charged
//! again. The costs are what an entry takes at worst: in a hash table that has just
//! grown, in a vector with as much room again.

/// Kept while it is read: names, numbers, rows.
const KEPT: usize = 160 << 20;
/// Stacks, which would leave no room for others.
const STACKS: usize = 32 << 20;
/// Made of it at the end: rows with their names.
pub(super) const SHOWN: usize = 160 << 20;

/// A file: its entry in two tables.
pub(super) const FILE: usize = 1_000;
/// A thread or its number.
pub(super) const TASK: usize = 100;
/// A row of requests of one kind.
pub(super) const ROW: usize = 320;
/// A row of the totals: it may be replaced, so it lies in a hash table.
pub(super) const TOTAL: usize = 800;
/// Who mixes, by name and by its pages.
pub(super) const MIXER: usize = 300;
/// A row as it is shown, without its names.
pub(super) const SHOWN_ROW: usize = 1_000;
/// A stack, and what one of its frames takes beside its names.
pub(super) const STACK: usize = 700;
pub(super) const FRAME: usize = 160;

/// What is left.
pub(super) struct Budget(usize);

impl Budget {
    /// For what is kept.
    pub(super) const fn kept() -> Self {
        Self(KEPT)
    }

    /// For stacks.
    pub(super) const fn stacks() -> Self {
        Self(STACKS)
    }

    /// For what is shown.
    pub(super) const fn shown() -> Self {
        Self(SHOWN)
    }

    /// True if there was so much left; then it is taken.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        self.0 += bytes;
    }
}

/// What was left out of a report because there is no room for more of its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Facts larger than a reader takes, and texts of the header that were cut.
    pub too_large: u64,
    /// Names of files, threads and stacks, and who mixes.
    pub facts: u64,
    /// Requests that are counted as those of `(others)`.
    pub requests: u64,
    /// Rows of the totals.
    pub totals: u64,
    /// Rows of the summary that are summed up as `(others)`, or of mixed access that are not shown.
    pub rows: u64,
}

impl LeftOut {
    /// In words; `None` if nothing was.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let Self { too_large, facts, requests, totals, rows } = *self;
        let parts = [
            (too_large, "names or facts larger than a reader takes"),
            (facts, "names of files, threads or stacks"),
            (totals, "rows of the totals"),
            (rows, "rows, summed up as (others) where they are of requests"),
        ];
        let mut out: Vec<String> =
            parts.iter().filter(|(n, _)| *n != 0).map(|(n, what)| format!("{n} {what}")).collect();
        if requests != 0 {
            out.push(format!("{requests} requests are in the rows of (others)"));
        }
        (!out.is_empty()).then(|| format!("more than is read at once: {}", out.join("; ")))
    }
}
