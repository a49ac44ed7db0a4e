//! Files of `--expect-direct` that are used without O_DIRECT.

use std::{cmp::Reverse, collections::BTreeMap};

use dio_trace_common::abi::{BufferedUse, FileId, UNASKED_CALLS, UNASKED_DONTCACHE, UNASKED_WRITE};
use glob::Pattern;
use serde::Serialize;

use crate::{
    cause::{Explanation, explain_unasked},
    enrich::Enricher,
    flow::{file_user::FileUser, side_events::SideEvents},
    model::Totals,
};

/// A process that uses a file of `--expect-direct` without O_DIRECT (docs/json.md).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UnaskedRow {
    #[serde(flatten)]
    pub user: FileUser,
    /// Calls that read, and the bytes they asked for.
    pub reads: u64,
    pub read_bytes: u64,
    /// Calls that write, and the bytes they asked for.
    pub writes: u64,
    pub write_bytes: u64,
    /// Calls with RWF_DONTCACHE among them.
    pub dontcache: u64,
    pub cause: &'static str,
    pub why: String,
    pub fix: String,
}

/// Calls and bytes of one process and file.
#[derive(Clone, Copy, Default)]
struct Sum {
    /// Of reads and writes.
    calls: [u64; 2],
    bytes: [u64; 2],
    dontcache: u64,
}

impl Sum {
    fn add(&mut self, how: u32, amount: u64) {
        let op = usize::from(how & UNASKED_WRITE != 0);
        if how & UNASKED_CALLS == 0 {
            self.bytes[op] = self.bytes[op].saturating_add(amount);
            return;
        }
        self.calls[op] = self.calls[op].saturating_add(amount);
        if how & UNASKED_DONTCACHE != 0 {
            self.dontcache = self.dontcache.saturating_add(amount);
        }
    }
}

/// Patterns of files that are expected to be used directly.
#[derive(Clone, Debug, Default)]
pub struct Expected(pub Vec<Pattern>);

impl Expected {
    /// True if the file of a use is expected to be used directly.
    pub fn takes(&self, unasked: &BufferedUse, enricher: &mut Enricher) -> bool {
        let path = &enricher.file(unasked.file, unasked.tgid).path;
        self.0.iter().any(|pattern| pattern.matches(path))
    }

    /// Removes the uses of other files, which the probes counted before they were ruled out.
    pub fn retain(&self, totals: &mut Totals, enricher: &mut Enricher) {
        totals.unasked.retain(|(unasked, _)| self.takes(unasked, enricher));
    }
}

/// A row for each process and file, those with most bytes first.
pub(crate) fn rows(
    totals: &Totals,
    side: &SideEvents,
    enricher: &mut Enricher,
    mut wanted: impl FnMut(&BufferedUse, &mut Enricher) -> bool,
) -> Vec<UnaskedRow> {
    let mut sums: BTreeMap<(u32, [u64; 2]), (FileId, Sum)> = BTreeMap::new();
    for (unasked, amount) in &totals.unasked {
        if wanted(unasked, enricher) {
            let BufferedUse { file, tgid, how } = *unasked;
            let key = (tgid, [file.inode, file.ino]);
            sums.entry(key).or_insert((file, Sum::default())).1.add(how, *amount);
        }
    }
    let mut rows: Vec<UnaskedRow> = sums
        .into_iter()
        .map(|((tgid, _), (file, sum))| row(tgid, file, sum, side, enricher))
        .collect();
    rows.sort_by_key(|row| Reverse(row.read_bytes.saturating_add(row.write_bytes)));
    rows
}

fn row(
    tgid: u32,
    file: FileId,
    sum: Sum,
    side: &SideEvents,
    enricher: &mut Enricher,
) -> UnaskedRow {
    let flags = side.unasked_flags(tgid, file);
    let Explanation { id, why, fix, .. } = explain_unasked(flags, sum.dontcache != 0);
    UnaskedRow {
        user: FileUser::new(tgid, None, file, enricher),
        reads: sum.calls[0],
        read_bytes: sum.bytes[0],
        writes: sum.calls[1],
        write_bytes: sum.bytes[1],
        dontcache: sum.dontcache,
        cause: id,
        why,
        fix,
    }
}
