//! A recorder that is killed: its file must have every request that completed until about a second
//! before the kill, and nothing that was not requested.
//!
//! Only `xtask guest cut` runs this scenario; the suite does not include it yet.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{
    guest::{
        direct_io::{
            files::{fill, open_direct},
            memory::Buffer,
            request::{Call, positioned},
        },
        fixtures::Place,
        harness::{
            Program, Traces, Tried, not_ended_with, requests, wait_for_go, wait_until_tracing,
        },
    },
    host::cmd::text,
};

/// The fixtures of the scenario.
pub(crate) const SETUPS: &[&str] = &["ext4-512"];
const THREADS: usize = 2;
const BLOCK: usize = 4096;
/// Bytes of each file. The end lies inside a block.
const BYTES: usize = (1 << 20) + 1808;
/// How long the program reads.
const LOAD: Duration = Duration::from_secs(6);
/// How long the recorder runs before it is killed.
const RECORDED: Duration = Duration::from_secs(4);
/// The time before the kill whose requests may be missing: the second that dio-trace promises, and
/// another one because here two threads and the recorder share an emulated CPU.
const LOST: Duration = Duration::from_secs(2);

#[derive(Args, Clone, Debug)]
pub(crate) struct CutLoadArgs {
    /// One file for each thread
    #[arg(long, required = true)]
    file: Vec<PathBuf>,
    /// File to write the tally to
    #[arg(long)]
    tally: PathBuf,
}

/// A request and its result, from the tally or from the recording.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
struct Line {
    tid: u32,
    offset: i64,
    len: u64,
    ret: i64,
}

/// A line of the tally, and when its request had completed (since the epoch).
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Ended {
    line: Line,
    at: Duration,
}

/// The program: reads its files repeatedly. Some reads are past the end, some are misaligned.
pub(crate) fn load(args: &CutLoadArgs) -> Result<()> {
    let files = args.file.iter().map(|path| open_direct(path)).collect::<Result<Vec<_>>>()?;
    wait_for_go()?;
    let until = Instant::now() + LOAD;
    let done: Vec<Result<Vec<Ended>>> = thread::scope(|scope| {
        let run = |file| scope.spawn(move || reads(file, until));
        let threads: Vec<_> = files.iter().map(run).collect();
        let ended = threads.into_iter().map(thread::ScopedJoinHandle::join);
        ended.map(|done| done.unwrap_or_else(|_| anyhow::bail!("a thread died"))).collect()
    });
    let lines: Vec<Ended> = done.into_iter().collect::<Result<Vec<_>>>()?.concat();
    fs::write(&args.tally, serde_json::to_vec(&lines)?).context("cannot write the tally")
}

fn reads(file: &File, until: Instant) -> Result<Vec<Ended>> {
    use std::os::fd::AsRawFd as _;
    const REFUSED_EACH: usize = 10;
    let mut buffer = Buffer::new(BLOCK)?;
    // SAFETY: no preconditions.
    let tid = unsafe { libc::gettid() } as u32;
    let mut lines = Vec::new();
    while Instant::now() < until {
        let number = lines.len();
        let len = if number.is_multiple_of(REFUSED_EACH) { 100 } else { BLOCK };
        let offset = (number * BLOCK % BYTES.next_multiple_of(BLOCK)) as i64;
        let fd = file.as_raw_fd();
        let call = Call { write: false, fd, buffer: buffer.at(0), len, offset, cut: 0, flags: 0 };
        let line = Line { tid, offset, len: len as u64, ret: positioned(&call) };
        lines.push(Ended { line, at: SystemTime::now().duration_since(UNIX_EPOCH)? });
    }
    Ok(lines)
}

/// Kills a recorder while the program that it traces continues; returns the mismatches between the
/// recording and the tally.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    // On the guest's own file system: a process that is killed while it writes to the shared (9p)
    // folder may leave the mount waiting for an answer.
    let traces = Traces::new(Path::new("/tmp"), "cut");
    let recording = "/tmp/cut.dio";
    let mut load = program(&places[0].path, &traces)?;
    let mut tool = Command::new(&tried.tool)
        .args(["record", "--force", "--all", "-o", recording])
        .args(["attach", "-p", &load.child.id().to_string(), "--attach", &tried.attach])
        .stderr(File::create(&traces.talk)?)
        .spawn()
        .context("cannot start dio-trace")?;
    wait_until_tracing(&mut tool, &traces)?;
    let killed = thread::scope(|scope| -> Result<Duration> {
        let load = scope.spawn(|| load.go());
        thread::sleep(RECORDED);
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        tool.kill().context("cannot kill the recorder")?;
        tool.wait()?;
        load.join().unwrap_or_else(|_| anyhow::bail!("the thread died"))?;
        Ok(now)
    })?;
    let tally: Vec<Ended> = serde_json::from_slice(&fs::read(&traces.tally)?)?;
    let run =
        |words: &[&str]| Command::new(&tried.tool).args(words).output().context("no dio-trace");
    let exported = run(&["export", "--format", "jsonl", recording])?;
    let lines: Vec<Line> = requests(&String::from_utf8_lossy(&exported.stdout))?;
    fs::copy(recording, out.join("cut.dio")).context("cannot copy the recording")?;
    let mut wrong = judge(&tally, &lines, killed);
    can_fail(&tally, &lines, killed)?;
    wrong.extend(not_ended_with(&exported, 0));
    wrong.extend(reported(&run(&["report", recording])?, &lines));
    Ok(wrong)
}

fn program(folder: &Path, traces: &Traces) -> Result<Program> {
    let me = std::env::current_exe().context("xtask cannot find itself")?;
    let mut command = Command::new(me);
    command.args(["guest", "cut-load", "--tally", text(&traces.tally)?]);
    for number in 0..THREADS {
        let file = folder.join(format!("cut.{number}"));
        fill(&file, BYTES)?;
        command.args(["--file", text(&file)?]);
    }
    Program::start(&mut command)
}

/// Compares the recording with the tally, per thread. The recording must have a prefix of the
/// thread's requests, with all that completed more than [`LOST`] before the kill.
fn judge(tally: &[Ended], recorded: &[Line], killed: Duration) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut threads: BTreeMap<u32, (Vec<&Ended>, Vec<&Line>)> = BTreeMap::new();
    for ended in tally {
        threads.entry(ended.line.tid).or_default().0.push(ended);
    }
    for line in recorded {
        threads.entry(line.tid).or_default().1.push(line);
    }
    for (tid, (truth, said)) in threads {
        let pairs = truth.iter().zip(&said);
        let same = pairs.take_while(|(truth, said)| truth.line == ***said).count();
        if let Some(line) = said.get(same) {
            let truth = truth.get(same).map(|ended| &ended.line);
            wrong.push(format!("thread {tid}, request {same}: {line:?}, not {truth:?}"));
        } else if let Some(first) = truth.get(same) {
            let before = killed.saturating_sub(first.at);
            if before > LOST {
                wrong.push(format!("thread {tid} lost what ended {before:?} before the kill"));
            }
        }
    }
    wrong
}

/// Verifies that the comparison can fail: it must find a missing request in the middle, a changed
/// one, and a recording that lacks its last three quarters.
fn can_fail(tally: &[Ended], recorded: &[Line], killed: Duration) -> Result<()> {
    let spoilt = |spoil: fn(&mut Vec<Line>)| {
        let mut lines = recorded.to_vec();
        spoil(&mut lines);
        !judge(tally, &lines, killed).is_empty()
    };
    let found = [
        spoilt(|lines| {
            lines.remove(lines.len() / 2);
        }),
        spoilt(|lines| lines.iter_mut().take(1).for_each(|line| line.ret += 1)),
        spoilt(|lines| lines.truncate(lines.len() / 4)),
    ];
    ensure!(found == [true; 3], "the checker does not see a changed recording: {found:?}");
    Ok(())
}

/// The mismatches in the totals that `dio-trace report` prints.
fn reported(report: &Output, recorded: &[Line]) -> Vec<String> {
    let page = String::from_utf8_lossy(&report.stdout).replace(',', "");
    let page = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let findings = recorded.iter().filter(|line| line.ret != line.len as i64).count();
    let requests = recorded.len();
    let mut wrong: Vec<String> = not_ended_with(report, 0).into_iter().collect();
    for words in [
        "the recording has no end".to_owned(),
        format!("the {requests} requests recorded one by one"),
        format!("{findings} of {requests} requests have a finding"),
    ] {
        if !page.contains(&words) {
            wrong.push(format!("report does not say \"{words}\": {page}"));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(number: u64) -> Ended {
        let line = Line { tid: 7, offset: number as i64 * 4096, len: 4096, ret: 4096 };
        Ended { line, at: Duration::from_secs(number) }
    }

    #[test]
    fn only_the_last_seconds_may_be_missing() {
        let tally: Vec<Ended> = (0..10).map(ended).collect();
        let lines: Vec<Line> = tally.iter().map(|ended| ended.line.clone()).collect();
        let killed = Duration::from_secs(9);
        assert!(judge(&tally, &lines, killed).is_empty());
        assert!(judge(&tally, &lines[..7], killed).is_empty());
        assert_eq!(judge(&tally, &lines[..6], killed).len(), 1);
        assert_eq!(judge(&tally, &lines[1..], killed).len(), 1);
        assert_eq!(judge(&tally, &[], killed).len(), 1);
        assert_eq!(judge(&tally[..5], &lines, killed).len(), 1);
    }
}
