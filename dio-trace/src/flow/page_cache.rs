//! Who fills the page cache: what the probes have counted, by file and process.

use std::{collections::BTreeMap, sync::Arc};

use ahash::HashMap;
use clap::ValueEnum;
use dio_trace_common::abi::{
    CacheUser, FILE_UNHASHED, FileEvent, FileId, PageFlow, PageSum, PageUse,
};
use serde::Serialize;

use crate::{
    enrich::Enricher,
    flow::explained::SCHEMA,
    model::{CacheTotals, MissingProbe},
    system::{
        cgroup::CgroupPaths,
        device,
        open_files::{flag_words, is_direct},
    },
    util::escape::escape_c,
};

/// Bytes by [`PageFlow`]: how pages came in, how they left, and what is known of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flows([u64; PageFlow::ALL.len()]);

impl Flows {
    /// The bytes of one kind.
    #[must_use]
    pub const fn get(&self, flow: PageFlow) -> u64 {
        self.0[flow as usize]
    }

    /// The bytes that came in.
    #[must_use]
    pub fn came_in(&self) -> u64 {
        self.sum(PageFlow::is_in)
    }

    /// The bytes that left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.sum(PageFlow::is_out)
    }

    /// The kinds that there are bytes of, the most first.
    #[must_use]
    pub fn most_first(&self, wanted: fn(PageFlow) -> bool) -> Vec<(PageFlow, u64)> {
        let all = PageFlow::ALL.iter().map(|flow| (*flow, self.get(*flow)));
        let mut found: Vec<_> = all.filter(|(flow, n)| wanted(*flow) && *n != 0).collect();
        found.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        found
    }

    fn sum(&self, wanted: fn(PageFlow) -> bool) -> u64 {
        PageFlow::ALL.iter().filter(|flow| wanted(**flow)).map(|flow| self.get(*flow)).sum()
    }

    fn add(&mut self, flow: PageFlow, bytes: u64) {
        self.0[flow as usize] += bytes;
    }

    fn add_all(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }
}

impl Serialize for Flows {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(PageFlow::ALL.iter().map(|flow| (flow.as_str(), self.get(*flow))))
    }
}

#[cfg(test)]
impl schemars::JsonSchema for Flows {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PageFlows".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let names = PageFlow::ALL.iter().map(|flow| flow.as_str());
        let bytes = serde_json::json!({ "type": "integer", "minimum": 0 });
        let members: serde_json::Map<_, _> =
            names.clone().map(|name| (name.to_owned(), bytes.clone())).collect();
        schemars::json_schema!({
            "type": "object", "properties": members, "required": names.collect::<Vec<_>>()
        })
    }
}

/// What one process does with the pages of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CacheUse {
    /// The process's name; in brackets that of a thread of the kernel.
    pub comm: Arc<str>,
    pub pid: u32,
    /// True for a thread of the kernel.
    pub kernel: bool,
    /// Path of the process's cgroup, which the kernel charges.
    pub cgroup: Option<Arc<str>>,
    /// The container, or else the cgroup, in words.
    pub container: Option<Arc<str>>,
    /// The Kubernetes pod: NAMESPACE/POD.
    pub pod: Option<Arc<str>>,
    /// Flags of the open file by which the first pages came in; `None` if they are not known.
    pub open: Option<String>,
    /// True if `open` has O_DIRECT.
    pub direct: Option<bool>,
    /// Bytes.
    pub bytes: Flows,
}

/// A file whose pages came in or left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CachedFile {
    /// The path; `<inode N>` if it is not known, and `None` for the files that there was no room for.
    pub path: Option<Arc<str>>,
    /// The type of its file system.
    pub fs: Arc<str>,
    /// Number of the file system, or of the block device itself: "major:minor".
    pub dev: String,
    pub ino: u64,
    /// Bytes in the page cache before it was first seen.
    pub before: u64,
    /// Bytes in the page cache now.
    pub now: u64,
    /// Bytes, by all processes.
    pub bytes: Flows,
    /// By process, the one that brought in the most first.
    pub uses: Vec<CacheUse>,
}

/// Who fills the page cache.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CacheReport {
    /// Version of the JSON contract.
    pub v: u32,
    /// Always "page_cache".
    pub kind: &'static str,
    /// What was traced, in words.
    pub subject: String,
    /// Seconds since tracing began.
    pub seconds: f64,
    /// Bytes of a page.
    pub page_size: u64,
    /// Bytes of all file pages in memory, and of memory (/proc/meminfo, Cached and MemTotal).
    pub cached: u64,
    pub memory: u64,
    /// Bytes of all files.
    pub bytes: Flows,
    /// The file that brought in the most first.
    pub files: Vec<CachedFile>,
    /// Bytes that are in no figure, because all sums were in use.
    pub lost: u64,
    /// Files whose names were lost.
    pub lost_names: u64,
    /// Runs of a probe that the kernel itself skipped, by the probe's program: pages are in no figure, or
    /// in that of another reason.
    pub skipped: BTreeMap<String, u64>,
    /// Probes that could not be attached.
    pub missing: Vec<MissingProbe>,
}

/// What a row of the report is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CacheBy {
    File,
    Process,
    /// The container of the process, or its cgroup
    Container,
    /// The Kubernetes pod of the process
    Pod,
}

impl CacheBy {
    /// The heading of the rows' names.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::File => "FILE",
            Self::Process => "PROCESS",
            Self::Container => "CONTAINER OR CGROUP",
            Self::Pod => "POD",
        }
    }
}

/// A row of the report.
#[derive(Clone, Debug)]
pub struct CacheRow<'a> {
    pub name: String,
    /// Bytes in the page cache now; `None` unless the row is a file.
    pub now: Option<u64>,
    pub bytes: Flows,
    /// What the row is made of, with the name of the process in the row of a file, of the file in others.
    /// What brought in the most comes first.
    pub parts: Vec<(String, &'a CacheUse)>,
}

impl CacheReport {
    /// The rows, of which the one with the most that came in or left comes first.
    #[must_use]
    pub fn rows(&self, by: CacheBy) -> Vec<CacheRow<'_>> {
        let mut rows: Vec<CacheRow<'_>> = Vec::new();
        let mut known: HashMap<String, usize> = HashMap::default();
        for file in &self.files {
            let mut first = true;
            for user in &file.uses {
                let name = if by == CacheBy::File { file.name() } else { user.name(by) };
                // An inode that leaves memory and comes back is another one to the probes.
                let key =
                    if by == CacheBy::File { format!("{} {name}", file.dev) } else { name.clone() };
                let at = *known.entry(key).or_insert_with(|| {
                    let now = (by == CacheBy::File).then_some(0);
                    rows.push(CacheRow { name, now, bytes: Flows::default(), parts: Vec::new() });
                    rows.len() - 1
                });
                if let Some(now) = rows[at].now.as_mut().filter(|_| first) {
                    *now += file.now;
                }
                first = false;
                let part = match by {
                    CacheBy::File => user.place(),
                    CacheBy::Process => file.name(),
                    CacheBy::Container | CacheBy::Pod => {
                        format!("{} by {}", file.name(), user.process())
                    }
                };
                rows[at].bytes.add_all(&user.bytes);
                rows[at].parts.push((part, user));
            }
        }
        for row in &mut rows {
            row.parts.sort_by_key(|(_, user)| std::cmp::Reverse(user.bytes.came_in()));
        }
        rows.sort_by(|a, b| b.moved().cmp(&a.moved()).then_with(|| a.name.cmp(&b.name)));
        rows
    }
}

impl CacheRow<'_> {
    /// Bytes that came in, or left if that is more.
    #[must_use]
    pub fn moved(&self) -> u64 {
        self.bytes.came_in().max(self.bytes.left())
    }
}

impl CachedFile {
    fn name(&self) -> String {
        self.path.as_deref().unwrap_or("(files that there was no room for)").to_owned()
    }
}

/// A file's name as its event tells it.
struct Name {
    path: Option<Arc<str>>,
    fs: Arc<str>,
}

/// The names of files and cgroups, which events and /proc tell while tracing goes on.
#[derive(Default)]
pub struct CacheNames {
    files: HashMap<FileId, Name>,
    users: HashMap<u32, CacheUser>,
    cgroups: CgroupPaths,
}

impl CacheNames {
    /// Most files whose names are kept: as many as the probes count.
    const MAX: usize = 1 << 16;

    /// Takes the name of a file.
    pub fn add(&mut self, event: &FileEvent, enricher: &mut Enricher) {
        if self.files.len() >= Self::MAX {
            return;
        }
        let fs: Arc<str> = escape_c(&event.fs_name).into();
        let path = if &*fs == "bdev" {
            device::path(event.file.dev).map(|path| format!("{path} (the device itself)"))
        } else {
            let deleted = event.flags & FILE_UNHASHED != 0;
            let path = enricher.path_of(event);
            path.map(|path| if deleted { path + " (deleted)" } else { path })
        };
        self.files.insert(event.file, Name { path: path.map(Arc::from), fs });
    }

    /// Keeps who the processes are, and where: a cgroup may be gone when the report is made.
    pub fn look(&mut self, users: &[(u32, CacheUser)]) {
        for (pid, user) in users {
            if self.users.len() < Self::MAX {
                self.users.insert(*pid, *user);
            }
            let _ = self.cgroups.path(user.cgroup);
        }
    }

    /// Puts names to what was counted. `page_size` is in bytes.
    pub fn report(
        &mut self,
        totals: &CacheTotals,
        page_size: u64,
        enricher: &mut Enricher,
    ) -> CacheReport {
        let users: HashMap<u32, &CacheUser> = totals.users.iter().map(|(id, u)| (*id, u)).collect();
        let mut all = Flows::default();
        let mut files: HashMap<FileId, Vec<CacheUse>> = HashMap::default();
        for ((file, pid), rows) in grouped(&totals.uses) {
            let mut row = self.user(pid, users.get(&pid).copied(), enricher);
            for (flow, sum) in rows {
                row.bytes.add(flow, sum.pages * page_size);
                row.opened(flow, &sum);
            }
            all.add_all(&row.bytes);
            files.entry(file).or_default().push(row);
        }
        let resident: HashMap<FileId, u64> = totals.resident.iter().copied().collect();
        let mut files: Vec<CachedFile> = files
            .into_iter()
            .map(|(id, uses)| {
                let now = resident.get(&id).copied().unwrap_or(0);
                self.file(id, now * page_size, uses)
            })
            .collect();
        files.sort_by(|a, b| {
            let key = |file: &CachedFile| (file.bytes.came_in(), file.bytes.left());
            key(b).cmp(&key(a)).then_with(|| a.path.cmp(&b.path))
        });
        CacheReport {
            v: SCHEMA,
            kind: "page_cache",
            subject: String::new(),
            seconds: 0.0,
            page_size,
            cached: 0,
            memory: 0,
            bytes: all,
            files,
            lost: totals.lost_pages * page_size,
            lost_names: totals.lost_names,
            skipped: totals.skipped.iter().cloned().collect(),
            missing: Vec::new(),
        }
    }

    fn file(&self, id: FileId, now: u64, mut uses: Vec<CacheUse>) -> CachedFile {
        uses.sort_by_key(|row| (std::cmp::Reverse(row.bytes.came_in()), row.pid));
        let mut bytes = Flows::default();
        uses.iter().for_each(|row| bytes.add_all(&row.bytes));
        let name = self.files.get(&id);
        let path = name.and_then(|name| name.path.clone());
        let path =
            path.or_else(|| (id != FileId::NONE).then(|| format!("<inode {}>", id.ino).into()));
        CachedFile {
            path,
            fs: name.map(|name| name.fs.clone()).unwrap_or_default(),
            dev: format!("{}:{}", id.dev >> 20, id.dev & 0xf_ffff),
            ino: id.ino,
            before: (now + bytes.left()).saturating_sub(bytes.came_in()),
            now,
            bytes,
            uses,
        }
    }

    fn user(&mut self, pid: u32, known: Option<&CacheUser>, enricher: &mut Enricher) -> CacheUse {
        let known = known.or_else(|| self.users.get(&pid)).copied();
        let comm = known.map_or_else(|| "?".to_owned(), |user| escape_c(&user.comm));
        let kernel = known.is_some_and(|user| user.kernel != 0);
        let comm = if kernel { format!("[{comm}]") } else { comm };
        let cgroup = known.filter(|_| !kernel).and_then(|user| self.cgroups.path(user.cgroup));
        let container = cgroup.as_ref().and_then(|path| enricher.container_of(path));
        CacheUse {
            comm: comm.into(),
            pid,
            kernel,
            container: container.as_ref().map(|container| container.shown().into()),
            pod: container.and_then(|container| container.pod_shown()).map(Arc::from),
            cgroup,
            open: None,
            direct: None,
            bytes: Flows::default(),
        }
    }
}

impl CacheUse {
    /// `name/pid`
    #[must_use]
    pub fn process(&self) -> String {
        format!("{}/{}", self.comm, self.pid)
    }

    /// The process, and where it runs.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.container {
            Some(container) if &**container != "/" => format!("{} in {container}", self.process()),
            _ => self.process(),
        }
    }

    /// Its name in the rows of this kind.
    fn name(&self, by: CacheBy) -> String {
        let of = |name: &Option<Arc<str>>| name.as_deref().unwrap_or("(none)").to_owned();
        match by {
            CacheBy::Container => of(&self.container),
            CacheBy::Pod => of(&self.pod),
            CacheBy::File | CacheBy::Process => self.process(),
        }
    }

    /// Keeps how the file was open, which is that of the first kind in the order of [`PageFlow`].
    fn opened(&mut self, flow: PageFlow, sum: &PageSum) {
        if flow.is_in() && sum.has_flags != 0 && self.open.is_none() {
            self.open = Some(flag_words(sum.open_flags));
            self.direct = Some(is_direct(sum.open_flags));
        }
    }
}

/// The sums of each file and process, by flow in their order.
fn grouped(uses: &[(PageUse, PageSum)]) -> HashMap<(FileId, u32), Vec<(PageFlow, PageSum)>> {
    let mut groups: HashMap<_, Vec<_>> = HashMap::default();
    for (key, sum) in uses {
        let flow = u8::try_from(key.flow).ok().and_then(PageFlow::from_u8);
        if let Some(flow) = flow {
            groups.entry((key.file, key.tgid)).or_default().push((flow, *sum));
        }
    }
    groups.values_mut().for_each(|rows| rows.sort_by_key(|(flow, _)| *flow));
    groups
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    const FILE: FileId = FileId { inode: 1, ino: 7, dev: 8 << 20 | 1, generation: 0 };

    fn user(comm: &[u8]) -> CacheUser {
        let mut name = [0; 16];
        name[..comm.len()].copy_from_slice(comm);
        CacheUser { comm: name, cgroup: 0, kernel: 0 }
    }

    fn sum(flow: PageFlow, tgid: u32, pages: u64, flags: Option<u32>) -> (PageUse, PageSum) {
        let key = PageUse { file: FILE, tgid, flow: flow as u32 };
        let open_flags = flags.unwrap_or(0);
        (key, PageSum { pages, open_flags, has_flags: flags.is_some().into() })
    }

    fn totals() -> CacheTotals {
        CacheTotals {
            uses: vec![
                sum(PageFlow::ReadAhead, 10, 100, Some(0)),
                sum(PageFlow::Read, 10, 1, Some(0)),
                sum(PageFlow::Write, 11, 4, Some(libc::O_DIRECT as u32 | 1)),
                sum(PageFlow::Reclaimed, 12, 30, None),
                sum(PageFlow::AheadUsed, 10, 50, None),
            ],
            resident: vec![(FILE, 80)],
            users: vec![
                (10, user(b"reader")),
                (11, user(b"writer")),
                (12, CacheUser { kernel: 1, ..user(b"kswapd0") }),
            ],
            ..CacheTotals::default()
        }
    }

    /// A report on one file, with pages of 64 KiB.
    pub(crate) fn report() -> CacheReport {
        let mut report =
            CacheNames::default().report(&totals(), 1 << 16, &mut Enricher::recorded());
        report.files[0].path = Some("/srv/a.sst".into());
        report
    }

    #[test]
    fn the_sums_of_a_file_are_those_of_its_processes() {
        let report = CacheNames::default().report(&totals(), 4096, &mut Enricher::recorded());
        let [file] = &report.files[..] else { panic!("{report:?}") };
        assert_eq!(file.path.as_deref(), Some("<inode 7>"));
        assert_eq!((file.before, file.now), (5 * 4096, 80 * 4096));
        assert_eq!((file.bytes.came_in(), file.bytes.left()), (105 * 4096, 30 * 4096));
        let by: Vec<_> = file.uses.iter().map(CacheUse::process).collect();
        assert_eq!(by, ["reader/10", "writer/11", "[kswapd0]/12"]);
        assert_eq!(file.uses[0].open.as_deref(), Some("O_RDONLY"));
        assert_eq!(file.uses[0].direct, Some(false));
        assert_eq!(file.uses[1].direct, Some(true));
        assert_eq!(file.uses[2].open, None);
        assert_eq!(report.bytes, file.bytes);
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["files"][0]["uses"][0]["bytes"]["read_ahead"], 409_600);
    }

    #[test]
    fn files_that_there_was_no_room_for_have_no_path() {
        let mut rest = sum(PageFlow::Read, 10, 3, None);
        rest.0.file = FileId::NONE;
        let totals = CacheTotals { uses: vec![rest], ..CacheTotals::default() };
        let report = CacheNames::default().report(&totals, 4096, &mut Enricher::recorded());
        assert_eq!(report.files[0].path, None);
        assert_eq!(report.bytes.came_in(), 3 * 4096);
    }
}
