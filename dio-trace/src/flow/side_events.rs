//! Side events, which are findings that are not requests: rejected opens (O_DIRECT itself refused
//! at open or fcntl), and mixed access (a file used directly and also through the page cache).

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use dio_trace_common::abi::{
    BY_FCNTL, BufferedUse, BufferedUseEvent, Counter, CounterKey, FileId, MIXED_DIRTIED, OP_WRITE,
    RejectedOpen, Request, UNASKED_DONTCACHE, UNASKED_MMAP, UNASKED_WRITE,
};
use serde::Serialize;

use crate::{
    cause::{
        DirectBy, Explanation, Unasked, explain_mixed, explain_rejected_open, explain_unasked,
        mixed_cause,
    },
    enrich::Enricher,
    flow::{explained::ExplainedRequest, file_user::FileUser, nowait::WaitSums},
    model::Totals,
    util::clock::Clock,
};

/// Maximum number of rows of rejected opens, and of files whose side effects are summed. What
/// exceeds it is counted in no row.
const MAX_ROWS: usize = 4_096;
/// Maximum bytes of names in the rows of rejected opens: a hostile recording may hold any amount.
const MAX_TEXT: usize = 8 << 20;

/// Rejected opens of one process, file and call (docs/json.md).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct RejectedOpenRow {
    /// `open` or `fcntl`.
    pub call: &'static str,
    #[serde(flatten)]
    pub user: FileUser,
    pub errno: &'static str,
    pub count: u64,
    pub cause: &'static str,
    pub why: String,
    pub fix: String,
    /// Time of the first one: ns since the epoch.
    #[serde(skip)]
    pub time: u64,
}

impl RejectedOpenRow {
    fn new(event: &RejectedOpen, enricher: &mut Enricher, clock: &Clock) -> Self {
        let thread = (event.task.tid, &event.task.comm);
        let user = FileUser::new(event.task.tgid, Some(thread), event.file, enricher);
        let Explanation { id, why, fix, .. } = explain_rejected_open(&user.fs, event.proven != 0);
        Self {
            call: if event.by == BY_FCNTL { "fcntl" } else { "open" },
            user,
            errno: "EINVAL",
            count: 0,
            cause: id,
            why,
            fix,
            time: clock.wall(event.time_ns),
        }
    }
}

/// The word for a use of a file of `--expect-direct` that did not ask for direct I/O.
pub const NOT_ASKED: &str = "not-asked";

/// A use through the page cache, when it is first seen: of a file that has direct requests (mixed
/// access), or of a file of `--expect-direct`.
#[derive(Clone, Debug)]
pub struct MixedAccess {
    /// What it is, as the screens show it: `mixed`, or `not-asked` for a file of `--expect-direct`
    /// that is used without O_DIRECT.
    pub word: &'static str,
    pub time: u64,
    pub pid: u32,
    pub comm: Arc<str>,
    pub path: Arc<str>,
    pub fs: Arc<str>,
    pub writes: bool,
    pub cause: &'static str,
    pub why: String,
    pub fix: String,
}

impl MixedAccess {
    #[must_use]
    pub fn new(event: &BufferedUseEvent, enricher: &mut Enricher, clock: &Clock) -> Self {
        let buffered_use = &event.buffered_use;
        let comm = enricher.buffered_user(event);
        let writes = buffered_use.how == MIXED_DIRTIED;
        let other;
        let direct = match event.direct_user {
            0 => DirectBy::Several,
            pid if pid == buffered_use.tgid => DirectBy::Itself,
            pid => {
                other = format!("{}/{pid}", enricher.process(pid, None));
                DirectBy::Other(&other)
            }
        };
        let Explanation { id, why, fix, .. } = explain_mixed(writes, direct);
        let file = enricher.file(buffered_use.file, buffered_use.tgid);
        let (path, fs) = (file.path.clone(), file.fs.clone());
        Self {
            word: "mixed",
            time: clock.wall(event.time_ns),
            pid: buffered_use.tgid,
            comm,
            path,
            fs,
            writes,
            cause: id,
            why,
            fix,
        }
    }

    /// A process uses a file of `--expect-direct` without O_DIRECT.
    #[must_use]
    pub fn unasked(event: &BufferedUseEvent, enricher: &mut Enricher, clock: &Clock) -> Self {
        let BufferedUse { file, tgid, how } = event.buffered_use;
        let used =
            Unasked { dontcache: how & UNASKED_DONTCACHE != 0, mapped: how & UNASKED_MMAP != 0 };
        let Explanation { id, why, fix, .. } = explain_unasked(Some(event.direct_user), used);
        enricher.buffered_user(event);
        let user = FileUser::new(tgid, None, file, enricher);
        Self {
            word: NOT_ASKED,
            time: clock.wall(event.time_ns),
            pid: tgid,
            comm: user.comm,
            path: user.path,
            fs: user.fs,
            writes: how & UNASKED_WRITE != 0,
            cause: id,
            why,
            fix,
        }
    }
}

/// A process that uses a mixed file directly, with its requests.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DirectUser {
    pub pid: u32,
    pub comm: Arc<str>,
    pub reads: u64,
    pub writes: u64,
}

/// A process that uses a mixed file through the page cache.
#[derive(Clone, Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CacheUser {
    pub pid: u32,
    pub comm: Arc<str>,
    /// Pages that the process brought into the page cache.
    pub pages_cached: u64,
    /// Pages that the process dirtied there.
    pub pages_dirtied: u64,
}

/// A mixed file, with the users of both sides (docs/json.md).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MixedRow {
    pub path: Arc<str>,
    pub dev: Arc<str>,
    pub ino: u64,
    pub fs: Arc<str>,
    pub direct: Vec<DirectUser>,
    pub cached: Vec<CacheUser>,
    /// Pages that direct requests had to write back first, as far as their events arrived.
    pub flushed_pages: u64,
    /// Pages that direct requests had to drop first, as far as their events arrived.
    pub invalidated_pages: u64,
    /// Id of the cause: `mixed-self` if only one process uses the file, both ways, else
    /// `mixed-access`.
    pub cause: &'static str,
}

impl MixedRow {
    /// True if only one process uses the file, both ways.
    #[must_use]
    pub fn is_by_itself(&self) -> bool {
        self.cause == mixed_cause(true)
    }
}

/// Collects side events over a run.
#[derive(Default)]
pub struct SideEvents {
    rejected_opens: HashMap<(u32, FileId, u16), RejectedOpenRow>,
    text: usize,
    left_out: u64,
    effects: HashMap<FileId, (u64, u64)>,
    waits: WaitSums,
    /// Flags of the files that were used without O_DIRECT, by process and file.
    unasked: HashMap<(u32, FileId), u32>,
}

impl SideEvents {
    /// Counts a rejected open. Returns its row if it is the first of its process, file and call.
    pub fn rejected_open(
        &mut self,
        event: &RejectedOpen,
        enricher: &mut Enricher,
        clock: &Clock,
    ) -> Option<&RejectedOpenRow> {
        let key = (event.task.tgid, event.file, event.by);
        let full = self.rejected_opens.len() >= MAX_ROWS || self.text >= MAX_TEXT;
        if full && !self.rejected_opens.contains_key(&key) {
            self.left_out += 1;
            return None;
        }
        let row = self.rejected_opens.entry(key).or_insert_with(|| {
            let row = RejectedOpenRow::new(event, enricher, clock);
            self.text += row.user.path.len() + row.user.fs.len() + row.user.comm.len();
            row
        });
        row.count += 1;
        (row.count == 1).then_some(row)
    }

    /// Number of rejected opens that are in no row.
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }

    /// Adds what a request would have had to wait for.
    pub fn waited(&mut self, request: &Request) {
        self.waits.add(request);
    }

    /// Keeps the flags of an open file that a process uses without O_DIRECT.
    pub fn unasked(&mut self, event: &BufferedUseEvent) {
        let BufferedUse { file, tgid, how } = event.buffered_use;
        // Of a mapping the flags do not matter.
        if self.unasked.len() < MAX_ROWS && how & UNASKED_MMAP == 0 {
            self.unasked.entry((tgid, file)).or_insert(event.direct_user);
        }
    }

    /// The flags that a file was open with when a process first used it without O_DIRECT.
    pub(crate) fn unasked_flags(&self, tgid: u32, file: FileId) -> Option<u32> {
        self.unasked.get(&(tgid, file)).copied()
    }

    /// What requests would have had to wait for.
    pub(crate) const fn waits(&self) -> &WaitSums {
        &self.waits
    }

    /// Adds the side effects of a request to those of its file.
    pub fn request(&mut self, record: &ExplainedRequest) {
        let effects = &record.effects;
        let flushed = u64::from(effects.flushed_pages.unwrap_or(0));
        let dropped = u64::from(effects.invalidated_pages.unwrap_or(0));
        if flushed + dropped == 0
            || (self.effects.len() >= MAX_ROWS && !self.effects.contains_key(&record.file))
        {
            return;
        }
        let sum = self.effects.entry(record.file).or_default();
        sum.0 += flushed;
        sum.1 += dropped;
    }

    /// Removes the rows of rejected opens that are not wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(&RejectedOpenRow) -> bool) {
        self.rejected_opens.retain(|_, row| wanted(row));
    }

    /// All rows of rejected opens, the most frequent first.
    #[must_use]
    pub fn rejected_opens(&self) -> Vec<RejectedOpenRow> {
        let mut rows: Vec<RejectedOpenRow> = self.rejected_opens.values().cloned().collect();
        rows.sort_by(|a, b| {
            (b.count, &a.user.path, a.user.pid).cmp(&(a.count, &b.user.path, b.user.pid))
        });
        rows
    }

    /// All mixed files, with the users of both sides.
    #[must_use]
    pub fn mixed(&self, totals: &Totals, enricher: &mut Enricher) -> Vec<MixedRow> {
        let mut files: HashMap<FileId, BTreeMap<u32, CacheUser>> = HashMap::new();
        for (buffered_use, pages) in &totals.buffered_uses {
            let users = files.entry(buffered_use.file).or_default();
            let user = users.entry(buffered_use.tgid).or_default();
            *(if buffered_use.how == MIXED_DIRTIED {
                &mut user.pages_dirtied
            } else {
                &mut user.pages_cached
            }) += pages;
        }
        let mut counters: HashMap<FileId, Vec<&(CounterKey, Counter)>> = HashMap::new();
        for counter in &totals.counters {
            let key = counter.0.file;
            if files.contains_key(&key) {
                counters.entry(key).or_default().push(counter);
            }
        }
        let mut rows: Vec<MixedRow> = files
            .into_iter()
            .map(|(key, users)| {
                let direct = counters.get(&key).map_or(&[][..], Vec::as_slice);
                self.row(key, users, direct, enricher)
            })
            .filter(|row| !row.direct.is_empty())
            .collect();
        rows.sort_by(|a, b| (b.flushed_pages, &a.path).cmp(&(a.flushed_pages, &b.path)));
        rows
    }

    fn row(
        &self,
        key: FileId,
        users: BTreeMap<u32, CacheUser>,
        direct: &[&(CounterKey, Counter)],
        enricher: &mut Enricher,
    ) -> MixedRow {
        let named = |(pid, user): (u32, CacheUser), enricher: &mut Enricher| CacheUser {
            pid,
            comm: enricher.process(pid, None),
            ..user
        };
        let cached: Vec<CacheUser> = users.into_iter().map(|user| named(user, enricher)).collect();
        let direct = direct_users(direct, enricher);
        let (flushed_pages, invalidated_pages) =
            self.effects.get(&key).copied().unwrap_or_default();
        let tgid = direct.first().map_or(0, |user| user.pid);
        let file = enricher.file(key, tgid);
        let itself = matches!((&direct[..], &cached[..]), ([one], [other]) if one.pid == other.pid);
        MixedRow {
            cause: mixed_cause(itself),
            path: file.path.clone(),
            dev: file.dev.clone(),
            ino: key.ino,
            fs: file.fs.clone(),
            direct,
            cached,
            flushed_pages,
            invalidated_pages,
        }
    }
}

/// The processes of a file's counters, with their requests.
fn direct_users(counters: &[&(CounterKey, Counter)], enricher: &mut Enricher) -> Vec<DirectUser> {
    let mut users: BTreeMap<u32, DirectUser> = BTreeMap::new();
    for (counter_key, counter) in counters {
        let user = users.entry(counter_key.tgid).or_insert_with(|| DirectUser {
            pid: counter_key.tgid,
            comm: enricher.process(counter_key.tgid, None),
            ..DirectUser::default()
        });
        *(if counter_key.op == OP_WRITE { &mut user.writes } else { &mut user.reads }) +=
            counter.requests;
    }
    users.into_values().collect()
}
