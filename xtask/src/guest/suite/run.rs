//! Runs the cells: the workload under dio-trace, and the checks of what it reports.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, Command},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::{
    guest::{
        check::{Asked, Judge},
        contract::json::Report,
        direct_io::files::open_direct,
        fixtures::{self, Kind, Place, ROOT, Setup},
        harness::{Program, Traces, Tried, end, stop, wait_until_tracing},
        matrix::cells::{Cell, Expect},
        scenarios::forecasts,
        suite::verified,
        tally,
    },
    host::cmd::{say, text},
};

/// Makes the fixtures of one round, runs the workload on them, and removes them. `deletes`: also
/// with files that are deleted at once.
pub(super) fn one_round(
    tried: &Tried,
    out: &Path,
    number: usize,
    setups: Vec<(&'static Setup, Vec<Cell>)>,
    deletes: bool,
    judge: &mut Judge,
) -> Result<()> {
    let root = Path::new(ROOT);
    say(format!("making {} fixtures", setups.len()));
    let start = Instant::now();
    let places = fixtures::make(setups, root)?;
    say(format!("made after {:.1} s", start.elapsed().as_secs_f32()));
    let run = Run { tried, out, number, places: &places };
    run.attached(judge).context("with attach -p --all")?;
    places.iter().try_for_each(|(place, _)| fixtures::renew(place))?;
    run.findings(judge).context("with run")?;
    // Asks about the files that the run has left.
    forecasts(tried, &places, judge)?;
    if deletes {
        places.iter().try_for_each(|(place, _)| fixtures::renew(place))?;
        run.deleted(judge).context("with files that are deleted")?;
    }
    fixtures::clear(root)
}

/// The runs of dio-trace on the fixtures of one round.
pub(super) struct Run<'a> {
    pub(super) tried: &'a Tried,
    /// The folder for dio-trace's output.
    pub(super) out: &'a Path,
    /// The number of the round, in the names of the output files.
    pub(super) number: usize,
    pub(super) places: &'a [(Place, Vec<Cell>)],
}

impl Run<'_> {
    pub(super) fn traces(&self, name: &str) -> Traces {
        Traces::new(self.out, &format!("{name}-{}", self.number))
    }

    fn workload(&self, traces: &Traces) -> Result<Vec<String>> {
        let me = std::env::current_exe().context("xtask cannot find itself")?;
        let mut words = vec![text(&me)?.into(), "guest".into(), "workload".into()];
        words.extend(["--series".into(), self.tried.series.clone()]);
        words.extend(["--tally".into(), text(&traces.tally)?.into()]);
        for (place, _) in self.places {
            words.push("--place".into());
            words.push(format!("{}:{}", place.setup.name, text(&place.path)?));
        }
        Ok(words)
    }

    fn tool(&self, traces: &Traces) -> Result<Command> {
        let mut command = Command::new(&self.tried.tool);
        let talk = File::create(&traces.talk).context("cannot make a file for stderr")?;
        command.stderr(talk);
        Ok(command)
    }

    /// Runs `attach -p --all` on a running process, while another process (the bystander) makes
    /// requests that must not be reported.
    fn attached(&self, judge: &mut Judge) -> Result<()> {
        let traces = self.traces("attach-all");
        let words = self.workload(&traces)?;
        let mut program = Program::start(Command::new(&words[0]).args(&words[1..]))?;
        say("files are ready; attaching");
        let tool = self.attach(program.child.id(), &["--all"], &traces)?;
        if self.number == 1 {
            verified::write(self.tried, self.out)?;
        }
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let other = scope.spawn(|| bystander(self.stage(), &stop));
            let result = program.go();
            stop.store(true, Ordering::Relaxed);
            let seen = other.join().map_err(|_| anyhow::anyhow!("the bystander died"))?;
            result.and(seen)
        })?;
        end(tool, &traces)?;
        self.judge(judge, "attach -p --all", &traces, Asked::All)
    }

    /// Attaches dio-trace to a process; returns once it traces.
    pub(super) fn attach(&self, pid: u32, options: &[&str], traces: &Traces) -> Result<Child> {
        let start = Instant::now();
        let mut tool = self
            .tool(traces)?
            .args(["attach", "-p", &pid.to_string(), "--json"])
            .args(options)
            .args(["--attach", &self.tried.attach, "-o", text(&traces.json)?])
            .spawn()
            .context("cannot start dio-trace")?;
        wait_until_tracing(&mut tool, traces)?;
        say(format!("attached after {:.1} s", start.elapsed().as_secs_f32()));
        Ok(tool)
    }

    /// The folder for the bystander's file.
    fn stage(&self) -> &Path {
        let disk =
            self.places.iter().find(|(place, _)| matches!(place.setup.kind, Kind::Made { .. }));
        disk.map_or(Path::new("/out"), |(place, _)| &place.path)
    }

    /// Runs the workload under `run`, which reports only findings.
    fn findings(&self, judge: &mut Judge) -> Result<()> {
        let traces = self.traces("run-findings");
        let mut command = self.tool(&traces)?;
        command.args(["run", "--json", "--attach", &self.tried.attach, "-o", text(&traces.json)?]);
        command.arg("--").args(self.workload(&traces)?);
        let mut program = Program::start(&mut command)?;
        program.go()?;
        self.judge(judge, "run", &traces, Asked::Findings)
    }

    /// Runs the workload under `audit`, which deletes each file right after its request: the causes
    /// must not depend on whether a file is still there, or say that it is not.
    fn deleted(&self, judge: &mut Judge) -> Result<()> {
        let traces = self.traces("audit-deleted");
        let words = self.workload(&traces)?;
        let mut program =
            Program::start(Command::new(&words[0]).args(&words[1..]).arg("--delete"))?;
        let mut tool = self.tool(&traces)?;
        tool.args(["audit", "--json", "--attach", &self.tried.attach]);
        let mut tool = tool.args(["-o", text(&traces.json)?]).spawn()?;
        wait_until_tracing(&mut tool, &traces)?;
        program.go()?;
        stop(tool, &traces)?;
        let events = traces.report()?.events;
        let silent = events.iter().filter(|e| e.cause.as_deref() == Some("not-explained"));
        let wrong: Vec<String> = silent.map(|event| format!("not explained: {event:?}")).collect();
        let word = if wrong.is_empty() { "right" } else { "NOT RIGHT" };
        say(format!("audit: {} findings on deleted files, {word}", events.len()));
        judge.verdict("audit, deleted files", events.len() as u64, wrong);
        Ok(())
    }

    fn judge(&self, judge: &mut Judge, name: &str, traces: &Traces, asked: Asked) -> Result<()> {
        let tally = tally::read(&traces.tally)?;
        let report = traces.report()?;
        let before = judge.complaints.len();
        let first = judge.scores.len();
        judge.cells(self.places, &tally, &report, asked);
        let counts = expected(self.places, &report);
        judge.summary(&report.summary, &self.tried.attach, &counts);
        judge.rejected_opens(&tally, &report);
        for score in &mut judge.scores[first..] {
            let right = score.wrong + score.missed + score.extra == 0;
            let word = if right { "right" } else { "NOT RIGHT" };
            say(format!("{name}: {}: {} cells, {word}", score.name, score.cells));
        }
        for complaint in &mut judge.complaints[before..] {
            *complaint = format!("{name}: {complaint}");
        }
        Ok(())
    }
}

/// The requests by verdict that the scenarios expect. Where the kernel may do either, the verdict
/// that dio-trace reported counts; that it is one of the two has been checked before.
fn expected(places: &[(Place, Vec<Cell>)], report: &Report) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for (place, cells) in places {
        for cell in cells {
            let file = place.path.join(cell.name());
            let said = report.verdict_of(&file);
            let of = |expect: &Expect| match expect {
                Expect::Request { verdict, .. } => Some(*verdict),
                Expect::NoRequest { .. } => None,
            };
            let verdicts: Vec<&str> = cell.expect.iter().filter_map(of).collect();
            let one = verdicts.iter().find(|verdict| said == Some(**verdict)).or(verdicts.first());
            if let Some(verdict) = one {
                *counts.entry((*verdict).to_owned()).or_default() += 1;
            }
        }
    }
    counts
}

/// Makes direct reads that are outside of the trace, so dio-trace must not report them.
fn bystander(place: &Path, stop: &AtomicBool) -> Result<()> {
    let path = place.join("bystander");
    fs::write(&path, vec![1; 64 << 10])?;
    let file = open_direct(&path)?;
    // The buffer's address decides whether the read is refused or direct: a request either way.
    let mut buffer = vec![0; 8192];
    while !stop.load(Ordering::Relaxed) {
        // The result does not matter; only a request is needed.
        let _ = file.read_at(&mut buffer, 0);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Checks what `dio-trace check` predicts for the fixtures.
fn forecasts(tried: &Tried, places: &[(Place, Vec<Cell>)], judge: &mut Judge) -> Result<()> {
    let (answers, wrong) = forecasts::check(&tried.tool, places)?;
    let word = if wrong.is_empty() { "right" } else { "NOT RIGHT" };
    say(format!("check: {answers} answers, {word}"));
    judge.verdict("check", answers, wrong);
    Ok(())
}
