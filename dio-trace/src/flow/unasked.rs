//! Files of `--expect-direct` that are used without asking for direct I/O.

use std::{cmp::Reverse, collections::HashMap};

use dio_trace_common::abi::{
    BufferedUse, FILE_UNASKED, FileId, OP_READ, OP_WRITE, Stat, UNASKED_DONTCACHE, UNASKED_MMAP,
    UNASKED_WRITE, UnaskedSum,
};
use glob::Pattern;
use serde::Serialize;

use crate::{
    cause::{Explanation, Unasked, explain_unasked},
    enrich::Enricher,
    flow::{file_user::FileUser, side_events::SideEvents},
    model::{Event, Totals},
};

/// A process that uses a file of `--expect-direct` without asking for direct I/O (docs/json.md).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnaskedRow {
    #[serde(flatten)]
    pub user: FileUser,
    /// Calls that read, and the bytes that they asked for.
    pub reads: u64,
    pub read_bytes: u64,
    /// Calls that write, and the bytes that they asked for.
    pub writes: u64,
    pub write_bytes: u64,
    /// Calls with RWF_DONTCACHE among them.
    pub dontcache: u64,
    /// Mappings, and the bytes that were mapped.
    pub mappings: u64,
    pub mapped_bytes: u64,
    pub cause: &'static str,
    pub why: String,
    pub fix: String,
}

impl UnaskedRow {
    /// Calls and mappings.
    #[must_use]
    pub const fn uses(&self) -> u64 {
        self.reads + self.writes + self.mappings
    }
}

/// Sums of one process and file.
#[derive(Clone, Copy, Default)]
struct Sum {
    reads: UnaskedSum,
    writes: UnaskedSum,
    mappings: UnaskedSum,
    dontcache: u64,
}

impl Sum {
    /// Adds a row. Sums saturate, because a recording may contain any number.
    fn add(&mut self, how: u32, row: &UnaskedSum) {
        let sum = match how {
            _ if how & UNASKED_MMAP != 0 => &mut self.mappings,
            _ if how & UNASKED_WRITE != 0 => &mut self.writes,
            _ => &mut self.reads,
        };
        sum.calls = sum.calls.saturating_add(row.calls);
        sum.bytes = sum.bytes.saturating_add(row.bytes);
        if how & UNASKED_DONTCACHE != 0 {
            self.dontcache = self.dontcache.saturating_add(row.calls);
        }
    }
}

/// The operation of a use; a mapping may be either.
pub(crate) fn is_of(how: u32, ops: u32) -> bool {
    let op = if how & UNASKED_WRITE != 0 { OP_WRITE } else { OP_READ };
    how & UNASKED_MMAP != 0 || ops >> op & 1 != 0
}

/// Patterns of files that are expected to be used directly.
#[derive(Clone, Debug, Default)]
pub struct Expected(pub Vec<Pattern>);

impl Expected {
    /// True if a file is expected to be used directly. A path of a deleted file ends with
    /// " (deleted)", which is left aside.
    #[must_use]
    pub fn fits(&self, path: &str) -> bool {
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        self.0.iter().any(|pattern| pattern.matches(path))
    }

    /// True if the file of a use is expected to be used directly; `None` if its path is not known.
    #[must_use]
    pub fn takes(&self, unasked: &BufferedUse, enricher: &Enricher) -> Option<bool> {
        enricher.path(unasked.file).map(|path| self.fits(path))
    }

    /// Of an event that says that a file is used without asking for direct I/O: the file, and whether
    /// it is expected to be used directly (`None`: its path is not known). `None` for other events.
    pub fn file_of(
        &self,
        event: &Event,
        enricher: &mut Enricher,
    ) -> Option<(FileId, Option<bool>)> {
        match event {
            Event::File(event) if event.flags & FILE_UNASKED != 0 => {
                let known = enricher.path(event.file).map(|path| self.fits(path));
                let fits = known.or_else(|| enricher.path_of(event).map(|path| self.fits(&path)));
                Some((event.file, fits))
            }
            Event::BufferedUse(event) if event.buffered_use.is_unasked() => {
                Some((event.buffered_use.file, self.takes(&event.buffered_use, enricher)))
            }
            _ => None,
        }
    }

    /// True unless the event is of a file that need not be used directly.
    pub fn takes_event(&self, event: &Event, enricher: &mut Enricher) -> bool {
        self.file_of(event, enricher).is_none_or(|(_, fits)| fits == Some(true))
    }

    /// Removes the uses of other files from the last totals. Those of files whose path is not known
    /// count as lost.
    pub fn conclude(&self, totals: &mut Totals, enricher: &Enricher) {
        let mut lost = 0;
        totals.unasked.retain(|(unasked, sum)| {
            let fits = self.takes(unasked, enricher);
            lost += if fits.is_none() { sum.calls } else { 0 };
            fits == Some(true)
        });
        totals.stats[Stat::LostUnasked as usize] += lost;
    }
}

/// A row for each process and file, those with most bytes first.
pub(crate) fn rows(
    totals: &Totals,
    side: &SideEvents,
    enricher: &mut Enricher,
    mut wanted: impl FnMut(&BufferedUse, &mut Enricher) -> bool,
) -> Vec<UnaskedRow> {
    let mut sums: HashMap<(u32, FileId), Sum> = HashMap::new();
    for (unasked, sum) in &totals.unasked {
        if wanted(unasked, enricher) {
            sums.entry((unasked.tgid, unasked.file)).or_default().add(unasked.how, sum);
        }
    }
    let mut rows: Vec<UnaskedRow> =
        sums.into_iter().map(|((tgid, file), sum)| row(tgid, file, sum, side, enricher)).collect();
    rows.sort_by(|a, b| {
        let key = |row: &UnaskedRow| {
            (Reverse(row.read_bytes.saturating_add(row.write_bytes)), Reverse(row.mapped_bytes))
        };
        let name = |row: &UnaskedRow| (row.user.path.clone(), row.user.pid);
        key(a).cmp(&key(b)).then_with(|| name(a).cmp(&name(b)))
    });
    rows
}

fn row(
    tgid: u32,
    file: FileId,
    sum: Sum,
    side: &SideEvents,
    enricher: &mut Enricher,
) -> UnaskedRow {
    let how = Unasked {
        dontcache: sum.dontcache != 0,
        mapped: sum.mappings.calls != 0 && sum.reads.calls + sum.writes.calls == 0,
    };
    let flags = side.unasked_flags(tgid, file);
    let Explanation { id, why, fix, .. } = explain_unasked(flags, how);
    UnaskedRow {
        user: FileUser::new(tgid, None, file, enricher),
        reads: sum.reads.calls,
        read_bytes: sum.reads.bytes,
        writes: sum.writes.calls,
        write_bytes: sum.writes.bytes,
        dontcache: sum.dontcache,
        mappings: sum.mappings.calls,
        mapped_bytes: sum.mappings.bytes,
        cause: id,
        why,
        fix,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_file_fits_by_its_name() {
        let expected = Expected(vec![Pattern::new("*.sst").unwrap()]);
        assert!(expected.fits("/data/1.sst") && expected.fits("/data/1.sst (deleted)"));
        assert!(!expected.fits("/data/1.sst.tmp"));
    }
}
