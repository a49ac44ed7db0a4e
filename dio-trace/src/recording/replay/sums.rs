//! Counts of a replay: from the totals of the recording, and, if these do not suffice, from its
//! individual requests.

use ahash::{HashMap, HashSet};
use dio_trace_common::abi::{
    BufferedUse, Counter, CounterKey, FileId, MIXED_CACHED, MIXED_DIRTIED, MIXED_FILLED, STATS,
    Stat, UNASKED, UNASKED_DONTCACHE, UNASKED_MMAP, UNASKED_WRITE, UnaskedSum,
};

use crate::{
    flow::{
        answer::{Basis, Included, conclude},
        causes::Causes,
        decided::Decided,
        filter::TotalsFilter,
        pipeline::Pipeline,
    },
    model::{AttachMode, Gap, MissingProbe, SELF_TEST, Totals},
    recording::{
        format::{Header, TotalsFact, UNASKED_CALLS},
        replay::{
            Replay, Selection, budget,
            fit::fit,
            header::scope,
            tables::{Counted, MAX_KEPT, OTHERS, others},
            walk::Walk,
        },
    },
    util::{escape::escape, figures::Span},
};

/// Most rows of mixed access; the probes have room for 4,096.
const MAX_BUFFERED_USES: usize = 1 << 14;

impl Walk<'_> {
    /// Counts a request, whatever its cause, in case the totals do not suffice.
    pub(super) fn count(&mut self, decided: &Decided<'_>) {
        let Decided { request, decision } = *decided;
        self.use_directly(decided.file(), request.task.tgid);
        let kind = (
            request.op,
            decision.verdict as u8,
            decision.outcome as u8,
            u8::from(decision.finding),
        );
        let make = || CounterKey::of(request, &decision);
        let row = (request.file.inode, request.task.tgid, kind);
        let room = self.counted.row(row, &mut self.budget, make).is_some();
        let row = if room { row } else { (OTHERS.inode, 0, kind) };
        if row.0 == OTHERS.inode {
            self.left_out.requests += 1;
        }
        let make = || if room { make() } else { others(&make()) };
        let Some(counter) = self.counted.row(row, &mut self.budget, make) else { return };
        counter.count(request, &decision);
    }

    fn use_directly(&mut self, file: FileId, pid: u32) {
        let Selection { pids, wanted, .. } = &self.selection;
        let Pipeline { filter, enricher, .. } = &mut self.pipeline;
        let some = !pids.is_empty() || !filter.comms.is_empty();
        let narrow = TotalsFilter { filter, pids, ops: wanted.ops };
        if some && self.used.len() < MAX_KEPT && narrow.takes_process(pid, enricher) {
            self.used.insert(file);
        }
    }

    /// Takes totals. Their rows replace earlier ones with the same key.
    pub(super) fn totals(&mut self, mut totals: TotalsFact) {
        for row in std::mem::take(&mut totals.counters) {
            let (key, counter) = row.counter(self.key(row.file));
            self.use_directly(key.file, key.tgid);
            let known = self.counters.contains_key(&key);
            // Rows of files that are not known individually share one key and would replace each
            // other.
            let small = self.counters.len() < MAX_KEPT && key.file != OTHERS;
            if known || small && self.budget.take(budget::TOTAL) {
                self.counters.insert(key, counter);
            } else {
                self.left_out.totals += 1;
            }
        }
        for (file, pid, how, pages) in std::mem::take(&mut totals.buffered_uses) {
            if !is_known_use(how) {
                continue;
            }
            let row = (file, pid, how);
            let small = self.buffered_uses.len() < MAX_BUFFERED_USES;
            if self.buffered_uses.contains_key(&row)
                || small && self.budget.take(budget::BUFFERED_USE)
            {
                self.buffered_uses.insert(row, pages);
            } else {
                self.left_out.totals += 1;
            }
        }
        self.integrity.last = self.integrity.last.max(totals.time);
        self.totals = totals;
    }

    pub(super) fn finish(mut self, header: Header, bytes: u64) -> Replay {
        let whole = self.is_whole();
        // The totals of a damaged or cut file may be missing or old: count the requests instead.
        let in_totals: u64 = self.counters.values().map(|counter| counter.requests).sum();
        let incomplete = !whole && (header.all || in_totals < self.recorded);
        // The same if totals had to be left out.
        let incomplete = incomplete || self.left_out.totals != 0 && in_totals < self.recorded;
        let uncounted = self.selection.asks_requests() || incomplete;
        // What is shown by cause was counted from the requests, whatever the other figures are from.
        let by_requests = uncounted || !self.selection.filter.causes.is_empty();
        let counters: Vec<_> =
            if uncounted { self.counted.take() } else { self.counters.drain().collect() };
        (self.counters, self.counted) = (HashMap::default(), Counted::default());
        if !uncounted {
            self.left_out.requests = 0; // they are in the totals
        }
        let mut totals = self.as_live(&header, counters, by_requests);
        self.pipeline.change_counters(&mut totals.counters);
        (self.named_right, self.used) = (HashMap::default(), HashSet::default());
        self.left_out.rows =
            self.pipeline.left_out() + fit(&mut totals, &mut self.pipeline.enricher);
        self.left_out.rows += self.pipeline.fit_counted(&mut totals, fit);
        let Selection { pids, wanted, .. } = &self.selection;
        let mut summary = self.pipeline.summary(&mut totals, pids, wanted.ops);
        summary.scope = scope(&header.scope);
        let span = self.span(&header);
        let basis = self.basis(&header, by_requests, span);
        conclude(&mut summary, &self.pipeline.causes, &basis);
        self.pipeline.causes = Causes::default(); // its rows are in the summary
        Replay {
            header,
            summary,
            span,
            timeline: self.timeline,
            counters: totals.counters,
            enricher: self.pipeline.enricher,
            integrity: self.integrity,
            recorded: self.recorded,
            shown: self.shown,
            by_requests,
            only: self.selection.only,
            dropped: self.totals.dropped,
            bytes,
            left_out: self.left_out,
        }
    }

    /// True if the recording was ended, and nothing of it is damaged.
    fn is_whole(&self) -> bool {
        self.integrity.end.is_some() && self.integrity.damage.is_empty()
    }

    /// What the figures of the summary stand for.
    fn basis(&self, header: &Header, by_requests: bool, span: Span) -> Basis {
        let included = match (header.all, header.sample) {
            _ if !self.selection.filter.causes.is_empty() => Included::Causes,
            _ if !self.selection.filter.takes_decisions() => Included::Verdicts,
            (true, _) => Included::Every,
            _ if !by_requests => Included::Every,
            (false, 0) => Included::Findings,
            (false, n) => Included::Sample(n),
        };
        // How much of a window the recording covers is not known.
        let whole = self.selection.window.is_all();
        Basis {
            included,
            selected: self.selection.only.is_some(),
            recorded: true,
            incomplete: !self.is_whole() || self.totals.dropped != 0,
            lasted_ns: whole.then_some(span.lasted_ns),
        }
    }

    /// The time span of the recording. It may begin before the time in the header, because requests
    /// are seen while the last probes are still being attached.
    fn span(&self, header: &Header) -> Span {
        let began = match self.first {
            u64::MAX => header.started,
            first => header.started.min(self.pipeline.clock.wall(first)),
        };
        let lasted_ns = self.pipeline.clock.wall(self.integrity.last).saturating_sub(began);
        Span { began, lasted_ns }
    }

    /// Builds the totals that a live tracer has when it stops.
    fn as_live(
        &mut self,
        header: &Header,
        mut counters: Vec<(CounterKey, Counter)>,
        by_requests: bool,
    ) -> Totals {
        counters.sort_by_key(|(k, _)| (k.file.inode, k.tgid, k.op, k.verdict, k.outcome, k.errno));
        let mut stats = [0; STATS];
        for (stat, name) in Stat::ALL {
            let recorded = self.totals.stats.iter().find(|(recorded, _)| recorded == name);
            stats[*stat as usize] = recorded.map_or(0, |(_, n)| *n);
        }
        if by_requests {
            // Requests in flight at the end are unknown.
            let ended: u64 = counters.iter().map(|(_, counter)| counter.requests).sum();
            stats[Stat::Ended as usize] = ended;
            stats[Stat::Begun as usize] = ended.saturating_add(stats[Stat::Unmatched as usize]);
        }
        let of_self_test = |probe: &String| match probe {
            probe if probe == SELF_TEST => Gap::Untested,
            api if header.blind.contains(api) => Gap::Blind,
            _ => Gap::Weak,
        };
        let gaps = |gaps: &[(String, String)], of: &dyn Fn(&String) -> Gap| -> Vec<MissingProbe> {
            let gap = |(probe, why): &(String, String)| MissingProbe {
                probe: probe.clone(),
                gap: of(probe),
                why: why.clone(),
            };
            gaps.iter().map(gap).collect()
        };
        let buffered_uses = std::mem::take(&mut self.buffered_uses);
        let row = |((file, tgid, how), pages)| {
            let file = self.key(file);
            (BufferedUse { file, tgid, how }, pages)
        };
        let uses: Vec<(BufferedUse, u64)> = buffered_uses.into_iter().map(row).collect();
        let (unasked, buffered_uses): (Vec<_>, Vec<_>) =
            uses.into_iter().partition(|(buffered_use, _)| buffered_use.is_unasked());
        Totals {
            kernel: header.kernel.clone(),
            attach: AttachMode::recorded(&header.attach),
            attached: header.attached.clone(),
            missing: gaps(&header.missing, &|_| Gap::Missing),
            dark: gaps(&header.dark, &of_self_test),
            stats,
            skipped: self.totals.skipped.iter().map(|(p, n)| (escape(p.as_bytes()), *n)).collect(),
            counters,
            buffered_uses,
            unasked: merged(unasked),
        }
    }
}

/// Bytes and calls of each use, which are rows of their own in a recording.
fn merged(rows: Vec<(BufferedUse, u64)>) -> Vec<(BufferedUse, UnaskedSum)> {
    let mut sums: HashMap<BufferedUse, UnaskedSum> = HashMap::default();
    for (unasked, amount) in rows {
        let key = BufferedUse { how: unasked.how & !UNASKED_CALLS, ..unasked };
        let sum = sums.entry(key).or_default();
        if unasked.how & UNASKED_CALLS != 0 {
            sum.calls = amount;
        } else {
            sum.bytes = amount;
        }
    }
    sums.into_iter().collect()
}

/// True if this version knows what [`BufferedUse::how`] says.
const fn is_known_use(how: u32) -> bool {
    const UNASKED_BITS: u32 =
        UNASKED | UNASKED_WRITE | UNASKED_DONTCACHE | UNASKED_MMAP | UNASKED_CALLS;
    let unasked = how & UNASKED != 0 && how & !UNASKED_BITS == 0;
    unasked || matches!(how, MIXED_CACHED | MIXED_DIRTIED | MIXED_FILLED)
}
