//! Who watches: dio-trace in its ways, and its peers.
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

/// A way of watching. In its words, `TOOL` is dio-trace and `PID` the program that is measured.
pub(crate) struct Tracer {
    pub(crate) name: &'static str,
    words: &'static [&'static str],
    ready: Ready,
    /// The kinds of request it is measured with; none: all.
    pub(super) kinds: &'static [&'static str],
    /// Each of its programs is measured, rather than the requests.
    pub(crate) programs: bool,
}

/// When it watches.
enum Ready {
    /// It says so on stderr.
    Says(&'static str),
    /// On stdout.
    Prints(&'static str),
    /// It does not say, but rests once it has started.
    Rests,
    /// The same, and has such a descriptor open by then: while it waits for the disk it rests too.
    RestsWith(&'static str),
}

/// As long without using the CPU is rest.
const REST: Duration = Duration::from_secs(4);

/// bpftrace prints nothing before all of its probes are attached (src/bpftrace.cpp:BPFtrace::run).
/// That it rests is no sign: it does while it waits for the disk.
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

    /// Its name as one word.
    pub(crate) fn id(&self) -> String {
        self.name.replace([' ', ','], "-").replace("--", "-")
    }
}

/// What perf trace and strace are given: one system call's.
const PREAD: &[&str] = &["direct-read", "buffered-read"];

/// In the order of the table. The first is none.
pub(crate) const TRACERS: &[Tracer] = &[
    tracer("none", &[], Ready::Rests),
    tracer("dio-trace", &["TOOL", "audit", "--attach", "fentry"], TRACING),
    tracer("dio-trace all", &["TOOL", "audit", "--all", "--attach", "fentry"], TRACING),
    tracer(
        "dio-trace record",
        &["TOOL", "record", "-o", "/tmp/bench.dio", "audit", "--all", "--attach", "fentry"],
        TRACING,
    ),
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

/// What it says goes here.
const TALK: &str = "/tmp/bench.talk";

/// A tracer at work.
pub(super) struct Running {
    child: Option<Child>,
}

impl Running {
    pub(super) fn start(tracer: &Tracer, tool: &Path, pid: u32) -> Result<Self> {
        // An old recording is no reason to fail.
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

    /// How it ended, if there is one.
    pub(super) fn stop(mut self) -> Result<Option<ExitStatus>> {
        let Some(mut child) = self.child.take() else { return Ok(None) };
        if let Some(status) = child.try_wait()? {
            bail!("it ended before it was told to ({status}): {}", talk());
        }
        // SAFETY: our own child, not waited for yet.
        unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
        Ok(Some(child.wait()?))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Fails only where it has ended already.
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

/// True if one of its descriptors is of that name.
fn holds(pid: u32, what: &str) -> Result<bool> {
    let mut fds = fs::read_dir(format!("/proc/{pid}/fd"))?.filter_map(Result::ok);
    Ok(fds.any(|fd| fs::read_link(fd.path()).is_ok_and(|name| name == Path::new(what))))
}

fn talk() -> String {
    fs::read_to_string(Path::new(TALK)).unwrap_or_default().trim().to_owned()
}
