//! Attaching to a process whose children already run, like those of a database server: the requests
//! of every descendant must be reported.
use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::{fs::FileExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;

use crate::{
    guest::{
        direct_io::{
            files::{fill, open_direct},
            memory::Buffer,
        },
        fixtures::Place,
        harness::{Program, Traces, Tried, end, wait_for_go, wait_until_tracing},
    },
    host::cmd::{quote, say, text},
};

/// The number of runs of dio-trace.
pub(crate) const RUNS: u64 = 1;
pub(crate) const SETUPS: &[&str] = &["ext4-512"];

/// Direct reads that each process of the family makes.
const READS: u64 = 5;
const BLOCK: usize = 4096;
/// The process name (comm) that the processes set.
const NAME: &str = "dio-family";
/// Processes that run before dio-trace attaches, in addition to the parent: two readers, a child
/// with a child of its own, that grandchild, and an orphan.
const DESCENDANTS: usize = 5;
/// Limit for waiting, for a slow machine.
const PATIENCE: Duration = Duration::from_secs(900);

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    /// Starts the other processes, and reads.
    Parent,
    /// Only reads.
    Reader,
    /// Starts a reader, and then reads.
    Middle,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct FamilyArgs {
    #[arg(long)]
    path: PathBuf,
    /// Folder for the files by which the processes signal that they are ready or done
    #[arg(long)]
    signs: PathBuf,
    #[arg(long)]
    role: Role,
}

/// The program: one process of the family.
pub(crate) fn member(args: &FamilyArgs) -> Result<()> {
    // SAFETY: sets this thread's name from a C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, c"dio-family".as_ptr()) };
    let signs = Signs(&args.signs);
    let mut children = Vec::new();
    match args.role {
        Role::Parent => {
            for role in [Role::Reader, Role::Reader, Role::Middle] {
                children.push(command(args, role)?.spawn()?);
            }
            leave_orphan(args)?;
            signs.wait_for("ready", DESCENDANTS)?;
            wait_for_go()?;
            signs.give("go")?;
            // A child that starts while dio-trace traces.
            children.push(command(args, Role::Reader)?.spawn()?);
        }
        Role::Middle => {
            children.push(command(args, Role::Reader)?.spawn()?);
            signs.ready()?;
        }
        Role::Reader => signs.ready()?,
    }
    signs.wait_for("go", 1)?;
    read(&args.path)?;
    for mut child in children {
        let status: std::process::ExitStatus = Child::wait(&mut child)?;
        if !status.success() {
            bail!("a child failed: {status}");
        }
    }
    signs.done()?;
    if matches!(args.role, Role::Parent) {
        // All descendants, the parent and the new child. The parent cannot wait(2) for the orphan.
        signs.wait_for("done", DESCENDANTS + 2)?;
    }
    Ok(())
}

fn command(args: &FamilyArgs, role: Role) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("xtask cannot find itself")?);
    command.args(["guest", "family-member", "--path"]).arg(&args.path);
    command.arg("--signs").arg(&args.signs);
    let role = role.to_possible_value().context("no such role")?;
    command.args(["--role", role.get_name()]);
    Ok(command)
}

/// Starts a reader whose own parent, a shell, exits at once. Its parent is then init or the nearest
/// subreaper, and only the session shows whose descendant it is.
fn leave_orphan(args: &FamilyArgs) -> Result<()> {
    let reader = command(args, Role::Reader)?;
    let mut words = vec![quote(text(Path::new(reader.get_program()))?)];
    for word in reader.get_args() {
        words.push(quote(text(Path::new(word))?));
    }
    let script = format!("{} &", words.join(" "));
    let status = Command::new("sh").args(["-c", &script]).status()?;
    if !status.success() {
        bail!("the shell failed: {status}");
    }
    Ok(())
}

fn read(path: &Path) -> Result<()> {
    let file = open_direct(path)?;
    let mut buffer = Buffer::new(BLOCK)?;
    for n in 0..READS {
        let got = file.read_at(buffer.bytes(), n * BLOCK as u64)?;
        if got != BLOCK {
            bail!("read {got} bytes");
        }
    }
    Ok(())
}

/// A folder of empty files by which the processes signal each other.
struct Signs<'a>(&'a Path);

impl Signs<'_> {
    fn give(&self, name: &str) -> Result<()> {
        File::create(self.0.join(name)).map(drop).with_context(|| format!("cannot sign {name}"))
    }

    fn ready(&self) -> Result<()> {
        self.give(&format!("ready.{}", std::process::id()))
    }

    fn done(&self) -> Result<()> {
        self.give(&format!("done.{}", std::process::id()))
    }

    /// The ids of the processes that have given this signal.
    fn of(&self, name: &str) -> Result<Vec<String>> {
        let names = fs::read_dir(self.0)?.map(|entry| Ok(entry?.file_name()));
        let names = names.collect::<std::io::Result<Vec<_>>>()?;
        Ok(names
            .iter()
            .filter_map(|file| {
                Some(file.to_str()?.strip_prefix(name)?.trim_matches('.').to_owned())
            })
            .collect())
    }

    fn wait_for(&self, name: &str, n: usize) -> Result<()> {
        let start = Instant::now();
        while self.of(name)?.len() < n {
            if start.elapsed() > PATIENCE {
                bail!("fewer than {n} signals {name}: {:?}", self.of(name)?);
            }
            // Seven processes poll this folder, on a slow CPU that they share with dio-trace.
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }
}

/// Attaches to a running family, by id and by name; returns the mismatches.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let path = places[0].path.join("family");
    fill(&path, READS as usize * BLOCK)?;
    let signs = out.join("family-signs");
    let _ = fs::remove_dir_all(&signs);
    fs::create_dir_all(&signs)?;
    let args = FamilyArgs { path, signs, role: Role::Parent };
    let mut parent = command(&args, Role::Parent)?;
    // SAFETY: setsid(2) is async-signal-safe. Like a daemon, the parent then leads a session.
    unsafe {
        parent.pre_exec(|| {
            if libc::setsid() < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
        })
    };
    let mut program = Program::start(&mut parent)?;
    let pid = program.child.id();

    let traces = Traces::new(out, "family");
    let talk = File::create(&traces.talk).context("cannot make a file for stderr")?;
    let mut tool = Command::new(&tried.tool)
        .args(["attach", "-p", &pid.to_string(), "--json", "--attach", &tried.attach])
        .args(["-o", text(&traces.json)?])
        .stderr(talk)
        .spawn()
        .context("cannot start dio-trace")?;
    wait_until_tracing(&mut tool, &traces)?;
    let named = crate::host::cmd::output(Command::new(&tried.tool).args([
        "attach",
        "-d",
        "1ms",
        "--no-children",
        NAME,
        "--json",
    ]));
    program.go()?;
    end(tool, &traces)?;

    let mut wrong = Vec::new();
    let talk = fs::read_to_string(&traces.talk)?;
    let wanted = format!("process {pid} and {DESCENDANTS} descendants");
    if !talk.contains(&wanted) {
        wrong.push(format!("it does not say `{wanted}`: {}", talk.trim()));
    }
    let done = Signs(&args.signs).of("done")?;
    let expected: BTreeMap<u64, u64> =
        done.iter().map(|pid| Ok((pid.parse()?, READS))).collect::<Result<_>>()?;
    let summary = summary(&fs::read_to_string(&traces.json)?)?;
    let seen = reads_by_process(&summary)?;
    if !is_all(&seen, &expected, hidden(&summary)) {
        let skipped = &summary["skipped_runs"];
        wrong.push(format!("reads by process are {seen:?}, not {expected:?}; skipped: {skipped}"));
    }
    match named {
        Ok(_) => {}
        Err(error) => wrong.push(format!("attach {NAME}: {error:#}")),
    }
    say(format!("a family of {} processes", expected.len()));
    Ok(wrong)
}

/// Whether every process was seen, and at most `hidden` reads are missing: those that the kernel
/// reports as skipped runs of a probe.
fn is_all(seen: &BTreeMap<u64, u64>, expected: &BTreeMap<u64, u64>, hidden: u64) -> bool {
    if !seen.keys().eq(expected.keys()) {
        return false;
    }
    let missing: u64 = expected.iter().map(|(pid, n)| n.saturating_sub(seen[pid])).sum();
    seen.values().all(|n| *n <= READS) && missing <= hidden
}

/// Upper bound of the reads whose issue or completion all redundant attachments of a probe missed:
/// when the kernel preempts a task inside a BPF program, BPF skips that program for all other tasks
/// of the CPU, and counts the skipped runs.
fn hidden(summary: &Value) -> u64 {
    let skipped = |program: &str| summary["skipped_runs"][program].as_u64().unwrap_or(0);
    let by_all = |side: &str| {
        let copies = ["", "_2", "_3"].map(|copy| skipped(&format!("{side}_vfs_read{copy}")));
        copies.into_iter().min().unwrap_or(0)
    };
    by_all("fe") + by_all("fx")
}

fn summary(json: &str) -> Result<Value> {
    let last = json.lines().last().context("dio-trace wrote no JSON")?;
    Ok(serde_json::from_str(last)?)
}

fn reads_by_process(summary: &Value) -> Result<BTreeMap<u64, u64>> {
    let mut reads = BTreeMap::new();
    for row in summary["files"].as_array().into_iter().flatten() {
        let pid = row["pid"].as_u64().context("no pid")?;
        *reads.entry(pid).or_default() += row["requests"].as_u64().unwrap_or(0);
    }
    Ok(reads)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_kernel_hid_may_be_missing() {
        let of = |reads: &[(u64, u64)]| reads.iter().copied().collect::<BTreeMap<_, _>>();
        let expected = of(&[(1, READS), (2, READS)]);
        assert!(is_all(&expected, &expected, 0));
        assert!(!is_all(&of(&[(1, READS), (2, READS - 1)]), &expected, 0));
        assert!(is_all(&of(&[(1, READS), (2, READS - 1)]), &expected, 1));
        assert!(!is_all(&of(&[(1, READS)]), &expected, 100));
        assert!(!is_all(&of(&[(1, READS + 1), (2, READS)]), &expected, 100));
        let skipped = serde_json::json!({"skipped_runs": {
            "fe_vfs_read": 4, "fe_vfs_read_2": 15, "fe_vfs_read_3": 4, "fx_vfs_read": 2,
        }});
        assert_eq!(hidden(&skipped), 4);
    }
}
