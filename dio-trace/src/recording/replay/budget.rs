//! Bounds the memory that a report may take, whatever the file contains.
//!
//! A process that reads a recording stays below 512 MiB (docs/trace-format.md). Data that is kept
//! while the file is read is charged here first; the rows that are made of it at the end are
//! charged again. The costs are the memory of an entry at worst: in a hash table that has just
//! grown, or in a vector with twice the needed capacity. All sizes are in bytes.

/// Budget for data that is kept while the file is read: names, ids, rows.
const KEPT: usize = 160 << 20;
/// Budget for stacks. It is separate, so that stacks do not use up the space of other data.
const STACKS: usize = 32 << 20;
/// Budget for the rows with their names that are made at the end.
pub(super) const SHOWN: usize = 160 << 20;

/// Cost of a file: its entry in two tables.
pub(super) const FILE: usize = 1_000;
/// Cost of a thread.
pub(super) const TASK: usize = 100;
/// Cost of a row of requests of one kind.
pub(super) const ROW: usize = 320;
/// Cost of a row of the totals, which is in a hash table because it may be replaced.
pub(super) const TOTAL: usize = 800;
/// Cost of a buffered user, with its name and its page count.
pub(super) const BUFFERED_USE: usize = 300;
/// Cost of a row as shown, without its names.
pub(super) const SHOWN_ROW: usize = 1_000;
/// Cost of a stack without its frames.
pub(super) const STACK: usize = 700;
/// Cost of a frame without its names.
pub(super) const FRAME: usize = 160;

/// The remaining bytes of a budget.
pub(super) struct Budget(usize);

impl Budget {
    /// The budget for data that is kept while the file is read.
    pub(super) const fn kept() -> Self {
        Self(KEPT)
    }

    /// The budget for stacks.
    pub(super) const fn stacks() -> Self {
        Self(STACKS)
    }

    /// The budget for rows as shown.
    pub(super) const fn shown() -> Self {
        Self(SHOWN)
    }

    /// Takes `bytes` if that much is left; else returns false.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }

    pub(super) fn give_back(&mut self, bytes: usize) {
        self.0 += bytes;
    }
}

/// Counts of what was left out of a report because its budget was used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Facts larger than a reader accepts, and texts of the header that were truncated.
    pub too_large: u64,
    /// Facts about files, threads, stacks and buffered users.
    pub facts: u64,
    /// Requests that are counted under `(others)`.
    pub requests: u64,
    /// Rows of the totals.
    pub totals: u64,
    /// Rows of the summary that are merged into `(others)`, and rows of mixed access that are not
    /// shown.
    pub rows: u64,
}

impl LeftOut {
    /// The counts in words; `None` if nothing was left out.
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
