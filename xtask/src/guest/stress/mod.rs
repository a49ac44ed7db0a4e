//! The stress test: many threads make requests by every API, with many in flight, on several CPUs.
//! dio-trace must report each request once, and its totals must agree.
//!
//! - [`load`], [`draw`]: the traced program and its tally
//! - [`judge`]: compares the tally with dio-trace's report
mod draw;
pub(crate) mod judge;
pub(super) mod load;

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    guest::{
        contract::stress::{Row, Score},
        direct_io::files::{fill, open_direct},
        fixtures::{self, Place},
        harness::{Program, Traces, end, wait_until_tracing},
    },
    host::cmd::{self, say, text},
};
use judge::{Report, judge};

#[derive(Args, Clone, Debug)]
pub(crate) struct StressArgs {
    /// Path of the dio-trace binary
    #[arg(long)]
    tool: PathBuf,
    /// fentry or kprobe: how dio-trace must attach
    #[arg(long)]
    attach: String,
    /// File to append the rows to, one line of JSON per row
    #[arg(long)]
    out: PathBuf,
    /// The number of the first run; a run's number is its seed
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// The number of the last run
    #[arg(long, default_value_t = 1)]
    last: u64,
    /// Approximate number of requests of each of the eight threads
    #[arg(long, default_value_t = 1500)]
    requests: usize,
}

/// Bytes of each file. The end lies inside a block.
const BYTES: u64 = (4 << 20) + 1808;
/// Module and options of a device that completes requests in a timer interrupt, 20 µs later, on the
/// submitting CPU.
const NULL_BLK: &[&str] =
    &["null_blk", "irqmode=2", "completion_nsec=20000", "submit_queues=4", "bs=512", "gb=1"];

pub(super) fn main(args: &StressArgs) -> Result<u8> {
    let root = Path::new("/mnt");
    let names = ["ext4-512", "xfs-512", "btrfs", "f2fs", "tmpfs"];
    let stage = Stage::new(args, fixtures::make_bare(&names)?)?;
    let mut rows = File::options().append(true).create(true).open(&args.out)?;
    let mut exact = true;
    for run in args.first..=args.last {
        for all in [true, false] {
            let start = Instant::now();
            let score = stage.run(run, all).with_context(|| format!("run {run}"))?;
            exact &= score.is_exact();
            let seconds = start.elapsed().as_secs_f32();
            let word = if score.is_exact() { "exact" } else { "NOT EXACT" };
            say(format!(
                "run {run}, all {all}: {} requests, {word}, {seconds:.0} s",
                score.requests
            ));
            score.complaints.iter().for_each(say);
            let row = serde_json::to_string(&Row { run, all, seconds, score })?;
            writeln!(rows, "{row}")?;
            rows.sync_all()?;
        }
    }
    fixtures::clear(root)?;
    Ok(u8::from(!exact))
}

/// The files of the test, and the methods that run it.
struct Stage<'a> {
    args: &'a StressArgs,
    files: Vec<PathBuf>,
    /// The file system type of each of `files`.
    fs: Vec<&'static str>,
    /// The files of the bystander.
    others: Vec<PathBuf>,
    /// Devices whose completions can be polled for.
    polled: Vec<PathBuf>,
}

impl<'a> Stage<'a> {
    fn new(args: &'a StressArgs, places: Vec<Place>) -> Result<Self> {
        let mut stage = Self { args, files: vec![], fs: vec![], others: vec![], polled: vec![] };
        for Place { setup, path } in places {
            let file = path.join("stress");
            fill(&file, BYTES as usize)?;
            if open_direct(&file).is_err() {
                say(format!("{}: left out: no O_DIRECT here", setup.name));
                continue;
            }
            stage.others.push(path.join("bystander"));
            fill(&path.join("bystander"), BYTES as usize)?;
            stage.files.push(file);
            stage.fs.push(setup.fs);
        }
        if !Path::new("/dev/nullb0").exists() {
            cmd::output(Command::new("modprobe").args(NULL_BLK))?;
        }
        for device in ["/dev/nullb0", "/dev/nvme0n1"] {
            stage.files.push(device.into());
            stage.others.push(device.into());
            stage.fs.push("bdev");
        }
        let queues = fs::read_to_string("/sys/module/nvme/parameters/poll_queues");
        if queues.is_ok_and(|queues| queues.trim() != "0") {
            stage.polled.push("/dev/nvme0n1".into());
        } else {
            say("IOPOLL: left out: the NVMe disk has no queue to poll");
        }
        fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop the page cache")?;
        Ok(stage)
    }

    fn load(&self, files: &[PathBuf]) -> Result<Command> {
        let me = std::env::current_exe().context("xtask cannot find itself")?;
        let mut command = Command::new(me);
        command.args(["guest", "stress-load"]);
        for file in files {
            command.args(["--file", text(file)?]);
        }
        Ok(command)
    }

    fn run(&self, run: u64, all: bool) -> Result<Score> {
        let folder = self.args.out.parent().unwrap_or(Path::new("/"));
        let traces = Traces::new(folder, "stress");
        let mut load = self.load(&self.files)?;
        for device in &self.polled {
            load.args(["--polled", text(device)?]);
        }
        let seed = (2 * run + u64::from(all)).to_string();
        load.args(["--tally", text(&traces.tally)?, "--seed", &seed]);
        let mut load = Program::start(load.args(["--requests", &self.args.requests.to_string()]))?;
        let mut bystander = self.load(&self.others)?;
        bystander.args(["--bystander", "--threads", "2", "--seed", &seed]);
        let bystander = Program::start(&mut bystander)?;
        let tool = self.attach(load.child.id(), all, &traces)?;
        let result = while_running(bystander, || load.go());
        result.and(end(tool, &traces))?;
        let report = Report::read(&fs::read_to_string(&traces.json)?)?;
        let tally = serde_json::from_slice(&fs::read(&traces.tally)?)?;
        let score = judge(&tally, &self.fs, &report, all);
        if all && score.is_exact() {
            judge::can_fail(&tally, &self.fs, &report)?;
        }
        Ok(score)
    }

    fn attach(&self, pid: u32, all: bool, traces: &Traces) -> Result<Child> {
        let mut command = Command::new(&self.args.tool);
        command.args(["attach", "-p", &pid.to_string(), "--json", "-o", text(&traces.json)?]);
        command.args(["--attach", &self.args.attach]).args(all.then_some("--all"));
        command.stderr(File::create(&traces.talk)?).stdin(Stdio::null());
        let mut tool = command.spawn().context("cannot start dio-trace")?;
        wait_until_tracing(&mut tool, traces)?;
        Ok(tool)
    }
}

/// Does `work` while another program makes requests, and then kills that program.
fn while_running(mut other: Program, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut stdin = other.child.stdin.take().context("no stdin")?;
    stdin.write_all(b"go\n")?;
    let result = work();
    let gone = other.child.try_wait()?;
    other.child.kill().context("cannot end the bystander")?;
    other.child.wait()?;
    if let Some(status) = gone {
        anyhow::bail!("the bystander ended by itself ({status})");
    }
    result
}
