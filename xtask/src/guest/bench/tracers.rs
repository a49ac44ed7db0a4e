//! The tracers that are compared: dio-trace with different options, and its peers.
use std::{
    fs::{self, File},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    guest::bench::{programs, usage::cpu_ticks},
    host::cmd::text,
};

/// A tracer and its options. In `words`, `TOOL` stands for the dio-trace binary and `PID` for the
/// process that is measured.
pub(crate) struct Tracer {
    pub(crate) name: &'static str,
    words: &'static [&'static str],
    ready: Ready,
    /// The kinds of request that are measured; empty: all.
    pub(super) kinds: &'static [&'static str],
    /// Whether the tracer's eBPF programs are measured instead of the requests.
    pub(crate) programs: bool,
}

/// How to detect that a tracer traces.
enum Ready {
    /// The text appears on stderr.
    Says(&'static str),
    /// The text appears on stdout.
    Prints(&'static str),
    /// The tracer prints nothing, but becomes idle once it traces.
    Rests,
    /// The tracer becomes idle and has a descriptor of this name open; it may be idle before,
    /// while it waits for the disk.
    RestsWith(&'static str),
}

/// A tracer that uses no CPU time for this long is idle.
const REST: Duration = Duration::from_secs(4);

/// bpftrace prints nothing before all of its probes are attached (src/bpftrace.cpp:BPFtrace::run).
/// Idleness does not show that it traces: it is also idle while it waits for the disk.
const READY: Ready = Ready::Prints("ready");
const TRACING: Ready = Ready::Says("dio-trace: tracing");

const fn tracer(name: &'static str, words: &'static [&'static str], ready: Ready) -> Tracer {
    Tracer { name, words, ready, kinds: &[], programs: false }
}

impl Tracer {
    const fn only(mut self, kinds: &'static [&'static str]) -> Self {
        self.kinds = kinds;
        self
    }

    /// The name as one word.
    pub(crate) fn id(&self) -> String {
        self.name.replace([' ', ','], "-").replace("--", "-")
    }
}

/// The kinds for perf trace and strace, which trace only one system call.
const PREAD: &[&str] = &["direct-read", "buffered-read"];

/// All tracers, in the order of the table. The first one is no tracer.
pub(crate) const TRACERS: &[Tracer] = &[
    tracer("none", &[], Ready::Rests),
    tracer("dio-trace", &["TOOL", "audit", "--attach", "fentry"], TRACING),
    tracer("dio-trace all", &["TOOL", "audit", "--all", "--attach", "fentry"], TRACING),
    tracer(
        "dio-trace record",
        &["TOOL", "record", "-o", "/tmp/bench.dio", "audit", "--all", "--attach", "fentry"],
        TRACING,
    ),
    tracer(
        "dio-trace expect-direct",
        &["TOOL", "audit", "--expect-direct", "/nothing", "--attach", "fentry"],
        TRACING,
    ),
    tracer("dio-trace cached", &["TOOL", "audit", "--cached", "--attach", "fentry"], TRACING),
    tracer("dio-trace cache", &["TOOL", "cache", "--attach", "fentry"], TRACING),
    tracer("dio-trace kprobe", &["TOOL", "audit", "--attach", "kprobe"], TRACING),
    tracer("bpftrace fentry", &["bpftrace", "-q", "-B", "line", "xtask/bench/fentry.bt"], READY),
    tracer("bpftrace kprobe", &["bpftrace", "-q", "-B", "line", "xtask/bench/kprobe.bt"], READY),
    tracer(
        "perf trace",
        &["perf", "trace", "-o", "/dev/null", "-e", "pread64", "-p", "PID"],
        Ready::RestsWith("anon_inode:[perf_event]"),
    )
    .only(PREAD),
    tracer(
        "strace",
        &["strace", "-f", "-o", "/dev/null", "-e", "pread64", "-p", "PID"],
        Ready::Rests,
    )
    .only(PREAD),
    Tracer {
        programs: true,
        ..tracer("programs", &["TOOL", "audit", "--attach", "fentry"], TRACING)
    },
];

/// The file for the tracer's output.
const TALK: &str = "/tmp/bench.talk";

/// A running tracer.
pub(super) struct Running {
    child: Option<Child>,
}

impl Running {
    pub(super) fn start(tracer: &Tracer, tool: &Path, pid: u32) -> Result<Self> {
        // A recording of an earlier run would make `record` fail.
        let _ = fs::remove_file("/tmp/bench.dio");
        programs::measure(tracer.programs)?;
        let Some((program, words)) = tracer.words.split_first() else {
            thread::sleep(Duration::from_secs(1));
            return Ok(Self { child: None });
        };
        let pid = pid.to_string();
        let program = if *program == "TOOL" { text(tool)? } else { program };
        let words = words.iter().map(|word| if *word == "PID" { pid.as_str() } else { word });
        let talk = File::create(TALK)?;
        let mut child = Command::new(program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(match tracer.ready {
                Ready::Prints(_) => Stdio::from(talk.try_clone()?),
                _ => Stdio::null(),
            })
            .stderr(talk)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        wait(&mut child, &tracer.ready)?;
        Ok(Self { child: Some(child) })
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Stops the tracer; returns its exit status, or `None` if there is no tracer.
    pub(super) fn stop(mut self) -> Result<Option<ExitStatus>> {
        let Some(mut child) = self.child.take() else { return Ok(None) };
        if let Some(status) = child.try_wait()? {
            bail!("it exited before it was asked to ({status}): {}", talk());
        }
        // SAFETY: our own child, not waited for yet.
        unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
        Ok(Some(child.wait()?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Fails only if it has exited already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn wait(child: &mut Child, ready: &Ready) -> Result<()> {
    let start = Instant::now();
    let (mut used, mut since) = (0, start);
    loop {
        if let Some(status) = child.try_wait()? {
            bail!("it ended ({status}): {}", talk());
        }
        match ready {
            Ready::Says(words) | Ready::Prints(words) if talk().contains(words) => return Ok(()),
            Ready::Rests if since.elapsed() > REST => return Ok(()),
            Ready::RestsWith(what) if since.elapsed() > REST && holds(child.id(), what)? => {
                return Ok(());
            }
            _ if start.elapsed() > Duration::from_secs(900) => bail!("it is not ready: {}", talk()),
            _ => thread::sleep(Duration::from_millis(100)),
        }
        let now = cpu_ticks(child.id())?;
        if now != used {
            (used, since) = (now, Instant::now());
        }
    }
}

/// Whether the process has a descriptor of this name open.
fn holds(pid: u32, what: &str) -> Result<bool> {
    let mut fds = fs::read_dir(format!("/proc/{pid}/fd"))?.filter_map(Result::ok);
    Ok(fds.any(|fd| fs::read_link(fd.path()).is_ok_and(|name| name == Path::new(what))))
}

fn talk() -> String {
    fs::read_to_string(Path::new(TALK)).unwrap_or_default().trim().to_owned()
}
