//! Names: of files in a mount namespace whose processes have exited when dio-trace reports them,
//! and of processes and threads that set their own names.
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;

use crate::{
    guest::{
        direct_io::{
            files::{fill, open_direct},
            memory::Buffer,
        },
        fixtures::Place,
        harness::{Program, Traces, Tried, end, requests, wait_until_tracing},
        scenarios::stacks::read_known,
    },
    host::cmd::{quote, text},
};

/// The number of runs of dio-trace.
pub(crate) const RUNS: u64 = 4;
const SIZE: usize = 16 << 10;
/// The folder where only the namespace has the files.
const PRIVATE: &str = "/mnt/private data";
const FILES: usize = 8;
const TITLE: &str = "postgres: checkpointer";
const THREAD: &str = "MergeMutate";
/// How long the program stays, so that dio-trace can look at the process.
const LINGER: Duration = Duration::from_secs(2);

#[derive(Args, Clone, Debug)]
pub(crate) struct NamedUserArgs {
    file: PathBuf,
}

/// The program: sets its title, and reads the file with O_DIRECT from the main thread and from a
/// named thread.
pub(crate) fn user(args: &NamedUserArgs) -> Result<()> {
    take_title(TITLE)?;
    let read = |path: &Path| -> Result<()> {
        let file = open_direct(path)?;
        let mut buffer = Buffer::new(SIZE)?;
        if read_known(&file, &mut buffer, SIZE) != SIZE as isize {
            bail!("cannot read");
        }
        Ok(())
    };
    read(&args.file)?;
    let path = args.file.clone();
    let worker = thread::Builder::new().name(THREAD.to_owned()).spawn(move || read(&path))?;
    worker.join().map_err(|_| anyhow::anyhow!("the thread died"))??;
    thread::sleep(LINGER);
    Ok(())
}

/// Replaces the process's command line by the title (prctl(2), PR_SET_MM).
fn take_title(title: &str) -> Result<()> {
    let title = Box::leak(format!("{title}\0").into_bytes().into_boxed_slice());
    let start = title.as_ptr() as libc::c_ulong;
    let end = start + title.len() as libc::c_ulong;
    // The start first: it lies below the stack, where the command line was.
    for (what, address) in [(libc::PR_SET_MM_ARG_START, start), (libc::PR_SET_MM_ARG_END, end)] {
        // SAFETY: both are addresses of leaked memory, which is never freed.
        if unsafe { libc::prctl(libc::PR_SET_MM, what, address, 0, 0) } != 0 {
            return Err(io::Error::last_os_error()).context("PR_SET_MM");
        }
    }
    Ok(())
}

/// Runs both parts; returns the mismatches.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let folder = &places[0].path;
    let mut wrong = gone_from_a_namespace(tried, folder, out)?;
    wrong.extend(titles(tried, folder, out)?);
    Ok(wrong)
}

/// Attaches to a process in a separate mount namespace. Its children read files there, and all
/// processes have exited before dio-trace, which is stopped meanwhile, handles the events.
fn gone_from_a_namespace(tried: &Tried, folder: &Path, out: &Path) -> Result<Vec<String>> {
    for n in 0..FILES {
        fill(&folder.join(format!("c{n}.bin")), SIZE)?;
    }
    fs::create_dir_all(PRIVATE)?;
    let (from, to) = (quote(text(folder)?), quote(PRIVATE));
    let read = format!("dd if={to}/c$n.bin of=/dev/null iflag=direct bs=4096 count=1 status=none");
    let script = format!(
        "mount --bind {from} {to}; echo ready; read go; \
         for n in $(seq 0 {}); do {read}; done; echo done",
        FILES - 1
    );
    let mut program = Program::start(Command::new("unshare").args(["-m", "sh", "-ec", &script]))?;
    let traces = Traces::new(out, "named");
    let mut tool = Command::new(&tried.tool)
        .args(["attach", "-p", &program.child.id().to_string(), "--all", "--json"])
        .args(["--attach", &tried.attach, "-o", text(&traces.json)?])
        .stderr(File::create(&traces.talk)?)
        .spawn()
        .context("cannot start dio-trace")?;
    wait_until_tracing(&mut tool, &traces)?;
    // dio-trace reads its first file only after it has printed that it traces: give it time for
    // that before it is stopped.
    thread::sleep(Duration::from_secs(1));
    let signal = |number| {
        // SAFETY: our own child, which has not been waited for.
        unsafe { libc::kill(tool.id() as libc::pid_t, number) };
    };
    signal(libc::SIGSTOP);
    let gone = program.go();
    signal(libc::SIGCONT);
    gone?;
    end(tool, &traces)?;
    let json = fs::read_to_string(&traces.json)?;
    let mut paths: Vec<String> = requests::<Value>(&json)?
        .iter()
        .map(|request| request["path"].as_str().unwrap_or_default().to_owned())
        .collect();
    paths.sort();
    let wanted: Vec<String> = (0..FILES).map(|n| format!("{PRIVATE}/c{n}.bin")).collect();
    let wrong = (paths != wanted).then(|| format!("in a namespace: {paths:?}, not {wanted:?}"));
    Ok(wrong.into_iter().collect())
}

/// Checks that a process's title and a thread's name are reported, live and from a recording.
fn titles(tried: &Tried, folder: &Path, out: &Path) -> Result<Vec<String>> {
    let file = folder.join("titles");
    fill(&file, SIZE)?;
    let me = std::env::current_exe().context("xtask cannot find itself")?;
    let user = [text(&me)?, "guest", "named-user", text(&file)?];
    let run = |words: &[&str]| -> Result<String> {
        let output = Command::new(&tried.tool)
            .args(words)
            .stdin(Stdio::null())
            .output()
            .context("cannot start dio-trace")?;
        if !output.status.success() {
            bail!("{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let attach = ["--attach", &tried.attach, "--"];
    let live = run(&[&["run", "--all", "--json"], &attach[..], &user].concat())?;
    let recording = out.join("named.dio");
    let record = ["record", "--force", "--all", "-o", text(&recording)?, "run"];
    run(&[&record[..], &attach, &user].concat())?;
    let shown = run(&[&["run", "--all"], &attach[..], &user].concat())?;
    let exported = run(&["export", "--format", "jsonl", text(&recording)?])?;
    let mut wrong = Vec::new();
    for (what, json) in [("live", live), ("recorded", exported)] {
        let names: Vec<(Value, Value)> = requests::<Value>(&json)?
            .iter()
            .map(|r| (r["cmdline"].clone(), r["thread"].clone()))
            .collect();
        let wanted = [(TITLE.into(), Value::Null), (TITLE.into(), THREAD.into())];
        if names != wanted {
            wrong.push(format!("titles, {what}: {names:?}"));
        }
    }
    for (line, name) in
        [(TITLE.to_owned(), "process"), (format!("{TITLE}, thread {THREAD}"), "thread")]
    {
        if !shown.lines().any(|shown| shown.trim_end() == format!("  by:  {line}")) {
            wrong.push(format!("the {name} is not shown as `{line}`: {shown}"));
        }
    }
    Ok(wrong)
}
