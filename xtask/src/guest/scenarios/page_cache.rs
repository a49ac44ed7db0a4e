//! `dio-trace cache`: how pages come into the page cache and leave it, by every way that a program has.
//!
//! Each act is done to a file of its own. What is expected comes from what the program asked for, from
//! mincore(2), and from the kernel's own count of refaults in the cgroup. The fixes that dio-trace
//! gives are among the acts: after them nothing of the file is in the page cache.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    guest::{
        direct_io::{
            files::{drop_pages, fill},
            memory::{Buffer, Map, page_size},
            request::{Apis, Call},
        },
        fixtures::Place,
        harness::{Tried, not_ended_with},
    },
    host::cmd::text,
};

pub(crate) const SETUPS: &[&str] = &["ext4-512", "xfs-512", "btrfs"];
/// The number of runs of dio-trace.
pub(crate) const RUNS: u64 = 2;
/// Pages of each file, and of the one that does not fit into its cgroup.
const PAGES: usize = 256;
const BIG_PAGES: usize = 6144;
/// Pages that the cgroup has room for, of that file and all else.
const ROOM_PAGES: usize = 2560;
/// RWF_DONTCACHE (include/uapi/linux/fs.h, 6.14)
const DONTCACHE: i32 = 0x80;

/// Arguments of the program
#[derive(Args, Clone, Debug)]
pub(crate) struct PageCacheUserArgs {
    /// The folder of the files
    #[arg(long)]
    folder: PathBuf,
    /// File to write the expectation to
    #[arg(long)]
    tally: PathBuf,
    /// Only read these files, one after the other
    #[arg(long)]
    read: Vec<PathBuf>,
}

/// What is expected of a file, in pages.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
struct Expected {
    path: PathBuf,
    /// Came in, in all; `None` if it is not known.
    came_in: Option<u64>,
    /// In the page cache at the end; `None` if it is not known.
    now: Option<u64>,
    /// By flow. All others are 0, but for `read`, `read_ahead` and `ahead_used`.
    flows: BTreeMap<String, u64>,
    /// All that was read ahead was read.
    all_used: bool,
    /// Read ahead and never read, at most: a folio of which a page was read counts as read.
    unused_at_most: Option<u64>,
    /// The flows by which pages left, if only their sum is known: what came in and is not there now.
    left_by: Vec<String>,
    /// What the kernel itself counts as needed again while this process ran, of all files.
    refaults: Option<(u32, u64)>,
}

/// A file, and what is done to it.
struct Acts {
    path: PathBuf,
    file: File,
    memory: Buffer,
    expected: Expected,
}

impl Acts {
    fn on(folder: &Path, name: &str, flags: i32) -> Result<Self> {
        let path = folder.join(name);
        let mut options = File::options();
        let file = options.read(true).write(true).custom_flags(flags).open(&path);
        let file = file.with_context(|| format!("cannot open {}", path.display()))?;
        let expected = Expected { path: path.clone(), came_in: Some(0), ..Expected::default() };
        Ok(Self { path, file, memory: Buffer::new(16 * page_size())?, expected })
    }

    /// Reads `pages` pages from a page on.
    fn read(&mut self, page: usize, pages: usize) -> Result<()> {
        let len = pages * page_size();
        let (file, buffer) = (&self.file, &mut self.memory.bytes()[..len]);
        file.read_exact_at(buffer, (page * page_size()) as u64)
            .with_context(|| format!("cannot read {}", self.path.display()))
    }

    /// Reads the whole file from its beginning.
    fn read_all(&mut self) -> Result<()> {
        for page in (0..PAGES).step_by(4) {
            self.read(page, 4)?;
        }
        self.expected.all_used = true;
        self.expected.came_in = Some(PAGES as u64);
        Ok(())
    }

    fn advise(&self, advice: i32) -> Result<()> {
        // SAFETY: no memory is involved.
        match unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, advice) } {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)).context("fadvise"),
        }
    }

    fn resident(&self) -> Result<u64> {
        let len = self.file.metadata()?.len();
        Map::new(&self.file, len)?.resident(0, usize::try_from(len)?)
    }

    /// The pages in the page cache once all that was asked for has been read. (mincore(2) leaves out
    /// those that are being read: mm/mincore.c:mincore_page.)
    fn settled(&self) -> Result<u64> {
        let mut before = 0;
        for _ in 0..200 {
            thread::sleep(Duration::from_millis(20));
            let resident = self.resident()?;
            if resident != 0 && resident == before {
                return Ok(resident);
            }
            before = resident;
        }
        bail!("{} does not settle", self.path.display())
    }

    /// Gives the pages up.
    fn give_up(&mut self) -> Result<()> {
        let before = self.settled()?;
        for _ in 0..200 {
            self.advise(libc::POSIX_FADV_DONTNEED)?;
            if self.resident()? == 0 {
                self.flow("dontneed", before);
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("{} stays in the page cache", self.path.display())
    }

    fn flow(&mut self, name: &str, pages: u64) {
        self.expected.flows.insert(name.to_owned(), pages);
    }

    fn call(&mut self, page: usize) -> Call {
        Call {
            write: false,
            fd: self.file.as_raw_fd(),
            buffer: self.memory.at(0),
            len: page_size(),
            offset: (page * page_size()) as i64,
            cut: page_size() / 2,
            flags: 0,
        }
    }

    fn end(mut self) -> Result<Expected> {
        self.expected.now = Some(self.resident()?);
        Ok(self.expected)
    }
}

/// Does everything, and writes down what is to be expected.
pub(crate) fn user(args: &PageCacheUserArgs) -> Result<()> {
    if !args.read.is_empty() {
        return args.read.iter().try_for_each(|path| read_whole(path));
    }
    let folder = &args.folder;
    let mut tally = vec![
        dropped(folder)?,
        whole(folder)?,
        scattered(folder)?,
        start(folder)?,
        written(folder)?,
        mapped(folder, true)?,
        mapped(folder, false)?,
        advised(folder)?,
        truncated(folder)?,
        deleted(folder)?,
        invalidated(folder)?,
        direct(folder)?,
        apis(folder)?,
    ];
    tally.extend(uncached(folder)?);
    tally.extend(limited(folder)?);
    fs::write(&args.tally, serde_json::to_vec(&tally)?).context("cannot write the tally")
}

/// The names of the files.
const NAMES: &[&str] = &[
    "dropped",
    "whole",
    "scattered",
    "start",
    "written",
    "mapped",
    "mapped-ahead",
    "advised",
    "truncated",
    "deleted",
    "invalidated",
    "direct",
    "apis",
    "uncached",
    "victim",
];

fn whole(folder: &Path) -> Result<Expected> {
    let mut acts = Acts::on(folder, "whole", 0)?;
    acts.read_all()?;
    acts.end()
}

/// Before the others, whose pages would be dropped as well.
fn dropped(folder: &Path) -> Result<Expected> {
    let mut acts = Acts::on(folder, "dropped", 0)?;
    acts.read_all()?;
    acts.flow("dropped_clean", PAGES as u64);
    fs::write("/proc/sys/vm/drop_caches", "1").context("drop_caches")?;
    acts.end()
}

/// Without read-ahead.
fn scattered(folder: &Path) -> Result<Expected> {
    let mut acts = Acts::on(folder, "scattered", 0)?;
    acts.advise(libc::POSIX_FADV_RANDOM)?;
    for page in 0..8 {
        acts.read(page * 17, 1)?;
    }
    acts.expected.came_in = Some(8);
    acts.flow("read", 8);
    acts.flow("read_ahead", 0);
    acts.end()
}

/// One page is read, and more are read ahead, which nobody reads.
fn start(folder: &Path) -> Result<Expected> {
    let mut acts = Acts::on(folder, "start", 0)?;
    acts.read(0, 1)?;
    let resident = acts.settled()?;
    acts.expected.came_in = Some(resident);
    acts.flow("read", 1);
    acts.expected.unused_at_most = Some(resident - 1);
    acts.give_up()?;
    acts.end()
}

/// Written, written back and given up: the fix.
fn written(folder: &Path) -> Result<Expected> {
    let mut acts = Acts::on(folder, "written", 0)?;
    acts.file.set_len(0)?;
    let page = vec![1; page_size()];
    for number in 0..PAGES {
        acts.file.write_all_at(&page, (number * page_size()) as u64)?;
    }
    acts.file.sync_data()?;
    acts.expected.came_in = Some(PAGES as u64);
    acts.flow("write", PAGES as u64);
    acts.give_up()?;
    acts.end()
}

/// One page of a mapping is touched.
fn mapped(folder: &Path, random: bool) -> Result<Expected> {
    let mut acts = Acts::on(folder, if random { "mapped" } else { "mapped-ahead" }, 0)?;
    if random {
        Map::new(&acts.file, (PAGES * page_size()) as u64)?.touch(3 * page_size(), 1);
    } else {
        let made = Apis::new()?.make("mmap", &acts.call(0))?;
        if made.result < 0 {
            bail!("mmap: {}", made.result);
        }
    }
    let resident = acts.settled()?;
    acts.expected.came_in = Some(resident);
    acts.flow("fault", 1);
    acts.flow("fault_ahead", resident - 1);
    acts.give_up()?;
    acts.end()
}

fn advised(folder: &Path) -> Result<Expected> {
    let mut acts = Acts::on(folder, "advised", 0)?;
    acts.advise(libc::POSIX_FADV_WILLNEED)?;
    let resident = acts.settled()?;
    acts.expected.came_in = Some(resident);
    acts.flow("prefetch", resident);
    acts.end()
}

fn truncated(folder: &Path) -> Result<Expected> {
    let mut acts = Acts::on(folder, "truncated", 0)?;
    acts.read_all()?;
    acts.file.set_len(0)?;
    acts.flow("truncated", PAGES as u64);
    acts.end()
}

fn deleted(folder: &Path) -> Result<Expected> {
    let mut acts = Acts::on(folder, "deleted", 0)?;
    acts.read_all()?;
    fs::remove_file(&acts.path)?;
    acts.flow("truncated", PAGES as u64);
    Ok(Expected { now: Some(0), ..acts.expected })
}

/// A direct write to what is cached.
fn invalidated(folder: &Path) -> Result<Expected> {
    let mut acts = Acts::on(folder, "invalidated", 0)?;
    acts.read_all()?;
    let mut direct = Acts::on(folder, "invalidated", libc::O_DIRECT)?;
    let len = 4 * page_size();
    direct.file.write_all_at(&direct.memory.bytes()[..len], 0)?;
    // Dropped, where the write falls back to the page cache: btrfs with checksums.
    acts.expected.left_by = vec!["invalidated".into(), "dropped_clean".into()];
    acts.end()
}

/// The fix: read with O_DIRECT.
fn direct(folder: &Path) -> Result<Expected> {
    let mut acts = Acts::on(folder, "direct", libc::O_DIRECT)?;
    for page in (0..PAGES).step_by(4) {
        acts.read(page, 4)?;
    }
    acts.end()
}

/// Pages by other APIs, each another page.
fn apis(folder: &Path) -> Result<Expected> {
    const APIS: &[&str] =
        &["preadv2", "aio", "uring", "uring_sqpoll", "thread", "splice", "sendfile"];
    let mut acts = Acts::on(folder, "apis", 0)?;
    acts.advise(libc::POSIX_FADV_RANDOM)?;
    let mut apis = Apis::new()?;
    for (number, api) in APIS.iter().enumerate() {
        let made = apis.make(api, &acts.call(number * 9))?;
        if made.result != page_size() as i64 {
            bail!("{api}: {}", made.result);
        }
    }
    acts.expected.came_in = Some(APIS.len() as u64);
    acts.flow("read", APIS.len() as u64);
    acts.flow("read_ahead", 0);
    acts.end()
}

/// RWF_DONTCACHE, where the kernel and the file system have it.
fn uncached(folder: &Path) -> Result<Option<Expected>> {
    let mut acts = Acts::on(folder, "uncached", 0)?;
    let mut apis = Apis::new()?;
    for page in (0..PAGES).step_by(4) {
        let call = Call { len: 4 * page_size(), flags: DONTCACHE, ..acts.call(page) };
        let read = apis.make("preadv2", &call)?.result;
        if read == -i64::from(libc::EOPNOTSUPP) || read == -i64::from(libc::EINVAL) {
            return Ok(None);
        }
    }
    // What was read ahead may be dropped before it is read, and come in again.
    acts.expected.came_in = None;
    acts.expected.left_by = vec!["dropbehind".into()];
    Ok(Some(acts.end()?))
}

/// In a cgroup with little memory: a program reads its file, a backup reads more than there is room for,
/// and the program needs its pages again. Nothing where there is no such cgroup.
fn limited(folder: &Path) -> Result<Vec<Expected>> {
    let cgroup = Path::new("/sys/fs/cgroup/dio-trace-limited");
    let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
    if fs::create_dir_all(cgroup).is_err() || !cgroup.join("memory.max").exists() {
        return Ok(Vec::new());
    }
    fs::write(cgroup.join("memory.max"), (ROOM_PAGES * page_size()).to_string())?;
    let (victim, big) = (folder.join("victim"), folder.join("limited"));
    read_in(cgroup, &[&victim])?;
    let backup = read_in(cgroup, &[&big, &big])?;
    let again = read_in(cgroup, &[&victim])?;
    let expected = |name: &str, refaults| -> Result<Expected> {
        let mut expected = Acts::on(folder, name, 0)?.end()?;
        expected.came_in = None;
        expected.left_by = vec!["reclaimed".into()];
        expected.refaults = Some(refaults);
        Ok(expected)
    };
    Ok(vec![expected("limited", backup)?, expected("victim", again)?])
}

/// Reads files in a process in the cgroup. Returns its id, and the pages that the kernel counts as needed
/// again meanwhile.
fn read_in(cgroup: &Path, files: &[&Path]) -> Result<(u32, u64)> {
    let before = refaults()?;
    let mut reader = Command::new("sh");
    reader.args(["-c", "echo $$ > \"$1\"/cgroup.procs && shift && exec \"$@\"", "sh"]);
    reader.arg(cgroup).arg(std::env::current_exe()?);
    reader.args(["guest", "page-cache-user", "--folder", "/", "--tally", "/"]);
    for file in files {
        reader.arg("--read").arg(file);
    }
    let mut reader = reader.spawn()?;
    let (pid, status) = (reader.id(), reader.wait()?);
    if !status.success() {
        bail!("the reader in the cgroup ended with {status}");
    }
    Ok((pid, refaults()? - before))
}

/// Pages of files that were needed again after they were reclaimed, of the whole system (/proc/vmstat).
fn refaults() -> Result<u64> {
    // Adds up what the CPUs have not yet (Documentation/admin-guide/sysctl/vm.rst).
    fs::write("/proc/sys/vm/stat_refresh", "1").context("stat_refresh")?;
    let text = fs::read_to_string("/proc/vmstat").context("/proc/vmstat")?;
    let line = text.lines().find_map(|line| line.strip_prefix("workingset_refault_file "));
    line.and_then(|number| number.parse().ok()).context("vmstat has no refaults")
}

/// Reads a file, but not at its end: 5.10 brings in a page there, which mincore(2) does not see
/// (mm/filemap.c:generic_file_buffered_read).
fn read_whole(path: &Path) -> Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 16 * page_size()];
    for _ in 0..file.metadata()?.len() / buffer.len() as u64 {
        file.read_exact(&mut buffer)?;
    }
    Ok(())
}

/// Runs the program on each fixture; returns the mismatches.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for place in places {
        let found = on(tried, &place.path, out);
        let found = found.with_context(|| place.path.display().to_string())?;
        wrong.extend(found.into_iter().map(|text| format!("{}: {text}", place.path.display())));
    }
    Ok(wrong)
}

/// Runs the program twice, for JSON and for text; returns the mismatches.
fn on(tried: &Tried, folder: &Path, out: &Path) -> Result<Vec<String>> {
    let tally = out.join("page-cache.tally");
    let me = std::env::current_exe().context("xtask cannot find itself")?;
    let run = |options: &[&str]| {
        for name in NAMES {
            fill(&folder.join(name), PAGES * page_size())?;
        }
        fill(&folder.join("limited"), BIG_PAGES * page_size())?;
        let mut command = Command::new(&tried.tool);
        command.args(["cache", "--attach", &tried.attach]).args(options).arg("run").arg("--");
        command.arg(&me).args(["guest", "page-cache-user", "--tally", text(&tally)?, "--folder"]);
        command.arg(folder).output().context("cannot start dio-trace")
    };
    let json = run(&["--json"])?;
    fs::write(out.join("page-cache.json"), &json.stdout)?;
    let mut wrong: Vec<String> = not_ended_with(&json, 0).into_iter().collect();
    let report: Value = serde_json::from_slice(&json.stdout).context("the report is not JSON")?;
    let expected: Vec<Expected> = serde_json::from_slice(&fs::read(&tally)?)?;
    for file in &expected {
        wrong.extend(compare(file, &report));
    }
    if report["lost"] != 0 || report["skipped"] != json!({}) {
        wrong.push(format!("lost: {}, skipped: {}", report["lost"], report["skipped"]));
    }
    let page = run(&["--by", "file", "--rows", "30"])?;
    fs::write(out.join("page-cache.txt"), &page.stdout)?;
    wrong.extend(not_ended_with(&page, 0));
    wrong.extend(first_screen(&String::from_utf8_lossy(&page.stdout)));
    drop_pages(&File::open(folder.join("whole"))?)?;
    Ok(wrong)
}

/// The mismatches of one file.
fn compare(expected: &Expected, report: &Value) -> Vec<String> {
    let path = expected.path.display().to_string();
    let name = expected.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let files = report["files"].as_array().map_or(&[][..], Vec::as_slice);
    let found = files.iter().find(|file| file["path"] == path.as_str());
    let pages = |bytes: &Value| bytes.as_u64().unwrap_or(u64::MAX) / page_size() as u64;
    let flow = |name: &str| found.map_or(0, |file| pages(&file["bytes"][name]));
    let mut wrong = Vec::new();
    let mut same = |what: &str, is: u64, should: u64| {
        if is != should {
            wrong.push(format!("{name}: {what} is {is}, not {should}"));
        }
    };
    const SPLIT: &[&str] = &["read", "read_ahead", "ahead_used", "ahead_unused"];
    const ALL: &[&str] = &[
        "read",
        "read_ahead",
        "write",
        "fault",
        "fault_ahead",
        "prefetch",
        "other_in",
        "reclaimed",
        "dontneed",
        "truncated",
        "invalidated",
        "dropbehind",
        "dropped_clean",
        "other_out",
        "refault",
        "ahead_unused",
    ];
    for what in ALL {
        match expected.flows.get(*what) {
            Some(should) => same(what, flow(what), *should),
            None if expected.refaults.is_some() && *what == "refault" => {}
            None if SPLIT.contains(what) || expected.left_by.iter().any(|flow| flow == what) => {}
            None => same(what, flow(what), 0),
        }
    }
    let came_in: u64 = ALL[..7].iter().map(|name| flow(name)).sum();
    let now = found.map_or(0, |file| pages(&file["now"]));
    if let Some(should) = expected.came_in {
        same("what came in", came_in, should);
    }
    if let Some(should) = expected.now {
        same("what is in the cache", now, should);
    }
    if !expected.left_by.is_empty() {
        let left: u64 = expected.left_by.iter().map(|name| flow(name)).sum();
        same("what left", left, came_in - now);
    }
    if let Some(most) = expected.unused_at_most {
        let unused = flow("ahead_unused");
        same("ahead_unused", unused, unused.min(most));
    }
    if expected.all_used {
        same("ahead_used", flow("ahead_used"), flow("read_ahead"));
    }
    if let Some((pid, should)) = expected.refaults {
        let uses = files.iter().filter_map(|file| file["uses"].as_array()).flatten();
        let own = uses.filter(|user| user["pid"] == pid);
        same("refaults", own.map(|user| pages(&user["bytes"]["refault"])).sum(), should);
    }
    wrong
}

/// The mismatches of the text: the first lines name the file, the process and the reason.
fn first_screen(page: &str) -> Vec<String> {
    let first: String = page.lines().take(24).collect::<Vec<_>>().join(" ");
    let first = first.split_whitespace().collect::<Vec<_>>().join(" ");
    let parts = ["page cache:", "mostly:", "limited", "by xtask/", "without O_DIRECT", "fix:"];
    let missing = parts.iter().filter(|part| !first.contains(**part));
    missing.map(|part| format!("the first screen lacks \"{part}\"")).collect()
}
