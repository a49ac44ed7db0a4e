//! One kernel, all scenarios.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Output, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Serialize, de::DeserializeOwned};

use crate::{
    guest::{
        cells::{self, Cell, Expect},
        family,
        files::open_direct,
        filters, forecasts, gate, innocents,
        judge::{self, Asked, Judge, Report},
        live,
        mixed::{self, DirectUser},
        named, recordings, released, rings,
        setups::{self, Kind, Place, ROOT, Setup},
        shorts, stacks, unprivileged, workload,
    },
    host::cmd::{say, text},
};

/// What is tried, and how.
#[derive(Args, Clone, Debug)]
pub(crate) struct Tried {
    /// dio-trace
    #[arg(long)]
    pub(super) tool: PathBuf,
    /// fentry or kprobe: how dio-trace must attach
    #[arg(long)]
    pub(super) attach: String,
    /// The kernel series, which chooses the scenarios' column
    #[arg(long)]
    pub(super) series: String,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SuiteArgs {
    #[command(flatten)]
    tried: Tried,
    /// Where the result goes
    #[arg(long)]
    out: PathBuf,
    /// Only these set-ups
    #[arg(long)]
    setup: Vec<String>,
    /// Those too that `cargo xtask test` has no time for
    #[arg(long, conflicts_with = "setup")]
    all_setups: bool,
    /// Those scenarios too for which one kernel of `cargo xtask test` is enough
    #[arg(long)]
    user_side: bool,
}

/// What `cargo xtask test` reads.
#[derive(Serialize)]
struct Outcome<'a> {
    cells: u64,
    wrong: u64,
    missed: u64,
    extra: u64,
    setups: &'a [judge::Score],
    left_out: &'a [&'static str],
    complaints: &'a [String],
}

/// Complaints shown; the rest is in the result.
const SHOWN: usize = 40;

pub(super) fn main(args: &SuiteArgs) -> Result<u8> {
    let wanted: Vec<&'static Setup> = match &args.setup[..] {
        [] => setups::ALL.iter().filter(|setup| args.all_setups || !setup.rare).collect(),
        names => names.iter().map(|name| setups::find(name)).collect::<Result<_>>()?,
    };
    let (mut judge, mut left_out) = (Judge::default(), Vec::new());
    for (number, round) in setups::rounds(&wanted).into_iter().enumerate() {
        let mut measured = Vec::new();
        for setup in round {
            let cells = cells::load(setup.name, setup.rows, &args.tried.series)?;
            let why = match setups::lacks(setup) {
                _ if cells.is_empty() => Some(format!("not measured on {}", args.tried.series)),
                why => why,
            };
            if let Some(why) = why {
                say(format!("{}: left out: {why}", setup.name));
                left_out.push(setup.name);
            } else {
                measured.push((setup, cells));
            }
        }
        if !measured.is_empty() {
            one_round(args, number + 1, measured, &mut judge)?;
        }
    }
    mixed_access(args, &mut judge)?;
    scenarios(args, WITH_JOURNAL, live::SETUPS, &mut judge)?;
    scenarios(args, PLAIN, unprivileged::SETUPS, &mut judge)?;
    if args.user_side || args.all_setups {
        scenarios(args, NAMES, unprivileged::SETUPS, &mut judge)?;
        scenarios(args, LET_GO, released::SETUPS, &mut judge)?;
    }
    if args.all_setups {
        short_counts(args, &mut judge)?;
    }
    let sum = |part: fn(&judge::Score) -> u64| judge.scores.iter().map(part).sum();
    let outcome = Outcome {
        cells: sum(|score| score.cells),
        wrong: sum(|score| score.wrong),
        missed: sum(|score| score.missed),
        extra: sum(|score| score.extra),
        setups: &judge.scores,
        left_out: &left_out,
        complaints: &judge.complaints,
    };
    for complaint in judge.complaints.iter().take(SHOWN) {
        say(complaint);
    }
    if judge.complaints.len() > SHOWN {
        say(format!("and {} more, in the result", judge.complaints.len() - SHOWN));
    }
    fs::write(&args.out, serde_json::to_vec_pretty(&outcome)?)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    Ok(u8::from(!judge.complaints.is_empty()))
}

/// One scenario alone
#[derive(Args, Clone, Debug)]
pub(crate) struct AloneArgs {
    #[command(flatten)]
    tried: Tried,
    /// Folder for what was seen
    #[arg(long)]
    out: PathBuf,
}

/// What is wrong with a scenario in the folders of its set-ups.
pub(super) type Check = fn(&Tried, &[Place], &Path) -> Result<Vec<String>>;

/// Makes these set-ups and runs a scenario on them; the exit code.
pub(super) fn alone(args: &AloneArgs, setups: &[&str], check: Check) -> Result<u8> {
    let wrong = check(&args.tried, &setups::make_bare(setups)?, &args.out)?;
    setups::clear(Path::new(ROOT))?;
    wrong.iter().for_each(say);
    Ok(u8::from(!wrong.is_empty()))
}

#[derive(Args, Clone, Debug)]
pub(crate) struct MakeArgs {
    /// The kernel series, which chooses the scenarios' column
    #[arg(long)]
    series: String,
    /// The set-ups; those that cannot be at once are an error
    #[arg(required = true)]
    setup: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ForecastArgs {
    /// dio-trace
    #[arg(long)]
    tool: PathBuf,
    #[command(flatten)]
    make: MakeArgs,
}

/// Asks `check` about set-ups whose requests nobody makes; the exit code.
pub(super) fn forecasts_alone(args: &ForecastArgs) -> Result<u8> {
    let places = made(&args.make)?;
    for (place, cells) in places.iter().filter(|(place, _)| place.path.is_dir()) {
        let bare = fs::read_dir(&place.path)?.next().is_none();
        if bare
            || matches!(place.setup.kind, Kind::Made { .. } | Kind::Memory | Kind::Overlay { .. })
        {
            workload::fill_folder(cells, &place.path)?;
        }
    }
    let (answers, wrong) = forecasts::check(&args.tool, &places)?;
    wrong.iter().for_each(say);
    say(format!("check: {answers} answers, {} wrong", wrong.len()));
    setups::clear(Path::new(ROOT))?;
    Ok(u8::from(!wrong.is_empty()))
}

/// Makes set-ups and leaves them, to look at by hand; says where they are, as the workload takes it.
pub(super) fn make(args: &MakeArgs) -> Result<()> {
    for (place, _) in made(args)? {
        println!("{}:{}", place.setup.name, place.path.display());
    }
    Ok(())
}

fn made(args: &MakeArgs) -> Result<Vec<(Place, Vec<Cell>)>> {
    let wanted = args.setup.iter().map(|name| setups::find(name)).collect::<Result<Vec<_>>>()?;
    if setups::rounds(&wanted).len() > 1 {
        bail!("these cannot be there at once");
    }
    let load = |setup: &'static Setup| {
        cells::load(setup.name, setup.rows, &args.series).map(|cells| (setup, cells))
    };
    setups::make(wanted.into_iter().map(load).collect::<Result<_>>()?, Path::new(ROOT))
}

/// Makes what can be there at once, runs the workload on it, and clears it.
fn one_round(
    args: &SuiteArgs,
    number: usize,
    setups: Vec<(&'static Setup, Vec<Cell>)>,
    judge: &mut Judge,
) -> Result<()> {
    let root = Path::new(ROOT);
    say(format!("making {} set-ups", setups.len()));
    let start = Instant::now();
    let places = setups::make(setups, root)?;
    say(format!("made after {:.1} s", start.elapsed().as_secs_f32()));
    let run = Run { args, number, places: &places };
    run.attached(judge).context("with attach -p --all")?;
    places.iter().try_for_each(|(place, _)| setups::renew(place))?;
    run.findings(judge).context("with run")?;
    forecasts(args, &places, judge)?;
    setups::clear(root)
}

/// What `check` says of the set-ups.
fn forecasts(args: &SuiteArgs, places: &[(Place, Vec<Cell>)], judge: &mut Judge) -> Result<()> {
    let (answers, wrong) = forecasts::check(&args.tried.tool, places)?;
    let word = if wrong.is_empty() { "right" } else { "NOT RIGHT" };
    say(format!("check: {answers} answers, {word}"));
    judge.verdict("check", answers, wrong);
    Ok(())
}

/// What makes a read return less than it was asked for.
fn short_counts(args: &SuiteArgs, judge: &mut Judge) -> Result<()> {
    let out = args.out.parent().unwrap_or(Path::new("/"));
    let (reads, wrong) = shorts::check(&args.tried.tool, &args.tried.attach, out)?;
    let word = if wrong.is_empty() { "right" } else { "NOT RIGHT" };
    say(format!("short counts: {reads} reads, {word}"));
    judge.verdict("short-counts", reads as u64, wrong);
    Ok(())
}

/// One process uses a file directly, another one through the page cache.
fn mixed_access(args: &SuiteArgs, judge: &mut Judge) -> Result<()> {
    let root = Path::new(ROOT);
    let places = setups::make(vec![(setups::find("ext4-512")?, Vec::new())], root)?;
    let run = Run { args, number: 0, places: &places };
    let traces = run.traces("mixed");
    let user = DirectUser::start(&places[0].0.path)?;
    let tool = run.attach(user.pid(), &[], &traces)?;
    let wanted = user.mix()?;
    end(tool, &traces)?;
    let wrong = mixed::judge(&traces.report()?, &wanted);
    say(format!("mixed access: {}", if wrong.is_empty() { "right" } else { "NOT RIGHT" }));
    judge.verdict("mixed", 1, wrong);
    setups::clear(root)
}

/// A scenario of the suite beside the cells.
struct Scenario {
    /// As it is shown, and as the result has it.
    shown: &'static str,
    name: &'static str,
    /// Runs of dio-trace.
    runs: u64,
    check: Check,
}

/// Those that use a folder which is direct, and one that takes direct reads through the page cache.
const WITH_JOURNAL: &[Scenario] = &[
    Scenario { shown: "run --fail-on", name: "fail-on", runs: gate::RUNS, check: gate::check },
    Scenario { shown: "top", name: "top", runs: live::RUNS, check: live::check },
    Scenario {
        shown: "io_uring's rarer ways",
        name: "rings",
        runs: rings::RUNS,
        check: rings::check,
    },
    Scenario {
        shown: "who is not blamed of mixed access",
        name: "innocents",
        runs: innocents::RUNS,
        check: innocents::check,
    },
    Scenario { shown: "run --stack", name: "stack", runs: stacks::RUNS, check: stacks::check },
];

/// Those to which a folder that is direct is enough.
const PLAIN: &[Scenario] = &[
    Scenario {
        shown: "descendants at attach",
        name: "family",
        runs: family::RUNS,
        check: family::check,
    },
    Scenario { shown: "filters", name: "filters", runs: filters::RUNS, check: filters::check },
    Scenario { shown: "recording", name: "recording", runs: 1, check: recordings::check },
    Scenario {
        shown: "ordinary user",
        name: "ordinary-user",
        runs: unprivileged::RUNS,
        check: unprivileged::check,
    },
];

/// Those that depend on /proc and on user space more than on the kernel's way of probing.
const NAMES: &[Scenario] =
    &[Scenario { shown: "names", name: "names", runs: named::RUNS, check: named::check }];

/// Those that take their set-ups apart.
const LET_GO: &[Scenario] = &[Scenario {
    shown: "what was traced is let go",
    name: "released",
    runs: released::RUNS,
    check: released::check,
}];

/// Runs scenarios on these set-ups.
fn scenarios(
    args: &SuiteArgs,
    scenarios: &[Scenario],
    setups: &[&str],
    judge: &mut Judge,
) -> Result<()> {
    let places = setups::make_bare(setups)?;
    let out = args.out.parent().unwrap_or(Path::new("/"));
    for Scenario { shown, name, runs, check } in scenarios {
        let wrong = check(&args.tried, &places, out);
        let wrong = wrong.unwrap_or_else(|error| vec![format!("{error:#}")]);
        say(format!("{shown}: {}", if wrong.is_empty() { "right" } else { "NOT RIGHT" }));
        judge.verdict(name, *runs, wrong);
    }
    setups::clear(Path::new(ROOT))
}

struct Run<'a> {
    args: &'a SuiteArgs,
    /// Of the round.
    number: usize,
    places: &'a [(Place, Vec<Cell>)],
}

/// Files that one run leaves in the result's folder.
pub(super) struct Traces {
    pub(super) tally: PathBuf,
    pub(super) json: PathBuf,
    pub(super) talk: PathBuf,
}

impl Traces {
    pub(super) fn new(folder: &Path, name: &str) -> Self {
        let file = |end: &str| folder.join(format!("{name}.{end}"));
        Self { tally: file("tally"), json: file("jsonl"), talk: file("talk") }
    }

    fn report(&self) -> Result<Report> {
        let json = fs::read_to_string(&self.json).context("dio-trace wrote no JSON")?;
        judge::report(&json)
    }
}

impl Run<'_> {
    fn traces(&self, name: &str) -> Traces {
        let folder = self.args.out.parent().unwrap_or(Path::new("/"));
        Traces::new(folder, &format!("{name}-{}", self.number))
    }

    fn workload(&self, traces: &Traces) -> Result<Vec<String>> {
        let me = std::env::current_exe().context("xtask cannot find itself")?;
        let mut words = vec![text(&me)?.into(), "guest".into(), "workload".into()];
        words.extend(["--series".into(), self.args.tried.series.clone()]);
        words.extend(["--tally".into(), text(&traces.tally)?.into()]);
        for (place, _) in self.places {
            words.push("--place".into());
            words.push(format!("{}:{}", place.setup.name, text(&place.path)?));
        }
        Ok(words)
    }

    fn tool(&self, traces: &Traces) -> Result<Command> {
        let mut command = Command::new(&self.args.tried.tool);
        let talk = File::create(&traces.talk).context("cannot make a file for stderr")?;
        command.stderr(talk);
        Ok(command)
    }

    /// `attach -p` to a running process, every request, and a bystander that must not be seen.
    fn attached(&self, judge: &mut Judge) -> Result<()> {
        let traces = self.traces("attach-all");
        let words = self.workload(&traces)?;
        let mut program = Program::start(Command::new(&words[0]).args(&words[1..]))?;
        say("files are ready; attaching");
        let tool = self.attach(program.child.id(), &["--all"], &traces)?;
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

    /// Starts dio-trace on a process; returns once it traces.
    fn attach(&self, pid: u32, options: &[&str], traces: &Traces) -> Result<Child> {
        let start = Instant::now();
        let mut tool = self
            .tool(traces)?
            .args(["attach", "-p", &pid.to_string(), "--json"])
            .args(options)
            .args(["--attach", &self.args.tried.attach, "-o", text(&traces.json)?])
            .spawn()
            .context("cannot start dio-trace")?;
        wait_until_tracing(&mut tool, traces)?;
        say(format!("attached after {:.1} s", start.elapsed().as_secs_f32()));
        Ok(tool)
    }

    /// Where the bystander has its file.
    fn stage(&self) -> &Path {
        let disk =
            self.places.iter().find(|(place, _)| matches!(place.setup.kind, Kind::Made { .. }));
        disk.map_or(Path::new("/out"), |(place, _)| &place.path)
    }

    /// `run`, findings alone.
    fn findings(&self, judge: &mut Judge) -> Result<()> {
        let traces = self.traces("run-findings");
        let mut command = self.tool(&traces)?;
        command.args([
            "run",
            "--json",
            "--attach",
            &self.args.tried.attach,
            "-o",
            text(&traces.json)?,
        ]);
        command.arg("--").args(self.workload(&traces)?);
        let mut program = Program::start(&mut command)?;
        program.go()?;
        self.judge(judge, "run", &traces, Asked::Findings)
    }

    fn judge(&self, judge: &mut Judge, name: &str, traces: &Traces, asked: Asked) -> Result<()> {
        let tally = workload::tally(&traces.tally)?;
        let report = traces.report()?;
        let before = judge.complaints.len();
        let first = judge.scores.len();
        judge.cells(self.places, &tally, &report, asked);
        let counts = expected(self.places, &report);
        judge.summary(&report.summary, &self.args.tried.attach, &counts);
        judge.refusals(&tally, &report);
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

/// Requests by verdict, as the scenarios have it. Where the kernel may do either, dio-trace's own
/// word counts; that it is one of the two was judged before.
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

/// A process that says `ready`, and waits for a word on stdin.
pub(super) struct Program {
    pub(super) child: Child,
    talk: BufReader<ChildStdout>,
}

impl Program {
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the workload")?;
        let mut talk = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut line = String::new();
        talk.read_line(&mut line)?;
        if line.trim() != "ready" {
            let status = child.wait()?;
            bail!("the workload did not get ready ({status}): {line}");
        }
        Ok(Self { child, talk })
    }

    /// Lets it make its requests, and waits for its end.
    pub(super) fn go(&mut self) -> Result<()> {
        let mut stdin = self.child.stdin.take().context("no stdin")?;
        stdin.write_all(b"go\n")?;
        drop(stdin);
        let mut rest = String::new();
        self.talk.read_line(&mut rest)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("the workload failed ({status}) {rest}");
        }
        Ok(())
    }
}

/// The program's side of [`Program`]: says that it is ready, and waits for its word.
pub(super) fn wait_for_go() -> Result<()> {
    println!("ready");
    io::stdin().lock().read_line(&mut String::new()).map(drop).context("cannot read stdin")
}

/// Direct reads by somebody else: dio-trace must not say a word about them.
fn bystander(place: &Path, stop: &AtomicBool) -> Result<()> {
    let path = place.join("bystander");
    fs::write(&path, vec![1; 64 << 10])?;
    let file = open_direct(&path)?;
    // Refused or direct by luck of the buffer's address: a request either way.
    let mut buffer = vec![0; 8192];
    while !stop.load(Ordering::Relaxed) {
        // The result does not matter, only that a request is made.
        let _ = file.read_at(&mut buffer, 0);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Attaching takes a loaded machine minutes where it emulates.
const ATTACHING: Duration = Duration::from_secs(300);

pub(super) fn wait_until_tracing(tool: &mut Child, traces: &Traces) -> Result<()> {
    let start = Instant::now();
    loop {
        let talk = fs::read_to_string(&traces.talk).unwrap_or_default();
        if talk.contains("dio-trace: tracing") {
            return Ok(());
        }
        if let Some(status) = tool.try_wait()? {
            bail!("dio-trace ended ({status}): {}", talk.trim());
        }
        if start.elapsed() > ATTACHING {
            bail!("dio-trace did not attach within {} s: {}", ATTACHING.as_secs(), talk.trim());
        }
        thread::sleep(Duration::from_millis(50));
    }
}

/// The requests that dio-trace has lines for.
pub(super) fn requests<T: DeserializeOwned>(json: &str) -> Result<Vec<T>> {
    let lines = json.lines().filter(|line| line.contains("\"kind\":\"request\""));
    lines.map(|line| serde_json::from_str(line).context("no request as it was")).collect()
}

/// What is wrong with how a program ended, if it is not by this code.
pub(super) fn not_ended_with(output: &Output, code: i32) -> Option<String> {
    let talk = String::from_utf8_lossy(&output.stderr);
    (output.status.code() != Some(code))
        .then(|| format!("ended with {}, not {code}: {}", output.status, talk.trim()))
}

pub(super) fn end(mut tool: Child, traces: &Traces) -> Result<()> {
    let status = tool.wait()?;
    if !status.success() {
        let talk = fs::read_to_string(&traces.talk).unwrap_or_default();
        bail!("dio-trace failed ({status}): {}", talk.trim());
    }
    Ok(())
}
