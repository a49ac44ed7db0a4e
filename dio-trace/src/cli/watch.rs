//! What a trace watches until it ends: a command that it starts, running processes, a cgroup; and the
//! signals that end it.

use std::{
    collections::HashSet,
    ffi::{OsStr, OsString},
    os::{
        fd::FromRawFd as _,
        unix::{fs::MetadataExt as _, process::ExitStatusExt as _},
    },
    path::PathBuf,
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use tokio::{
    io::{Interest, unix::AsyncFd},
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep_until},
};

use crate::{
    cli::{subject::Subject, trace::Trace},
    flow::summary::Scope,
    system::processes,
    tracer::Tracer,
    util::{escape::escape, stdio::note},
};

/// Time limit without `-d`: a year.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Time for a command to exit after Ctrl-C before tracing ends without it.
const GRACE: Duration = Duration::from_secs(2);

/// Everything that ends a run.
pub(super) struct Ending {
    pub(super) watch: Watch,
    ends: EndSignals,
    end: Instant,
    interrupted: bool,
}

impl Ending {
    /// The time limit, if there is one, begins now.
    pub(super) fn new(watch: Watch, limit: Option<Duration>, ends: EndSignals) -> Self {
        let end = Instant::now() + limit.unwrap_or(FOREVER);
        Self { watch, ends, end, interrupted: false }
    }

    /// Waits until the run has to end: at the time limit, at a signal, or because what is watched has
    /// ended. Returns the exit code of the command; `None` if there is none or it has not ended. Cancel
    /// safe.
    pub(super) async fn reached(&mut self) -> Result<Option<u8>> {
        loop {
            tokio::select! {
                () = sleep_until(self.end) => return Ok(None),
                exited = ended(&mut self.watch) => {
                    let status = exited?;
                    if !matches!(self.watch, Watch::Processes { children: true, .. }) {
                        return Ok(status.map(exit_code));
                    }
                    self.watch = Watch::Descendants;
                }
                signal = self.ends.next() => {
                    let Watch::Child(child) = &self.watch else { return Ok(None) };
                    if self.interrupted {
                        return Ok(None);
                    }
                    // Let the command exit cleanly.
                    forward(signal, child);
                    self.interrupted = true;
                    self.end = self.end.min(Instant::now() + GRACE);
                }
            }
        }
    }
}

/// What ends the run, in addition to the time limit and signals.
pub(super) enum Watch {
    Nothing,
    /// The command exits.
    Child(Box<Child>),
    /// The named processes have ended and, if `children`, their descendants as well.
    Processes {
        named: Vec<AsyncFd<std::fs::File>>,
        children: bool,
    },
    /// All descendants have ended.
    Descendants,
    /// No process is left in the cgroup of this directory.
    Cgroup(PathBuf),
}

/// True if one of these processes runs.
pub(super) fn any_runs(pids: &[u32]) -> bool {
    pids.iter().any(|pid| processes::one(*pid).is_some_and(|process| !process.ended))
}

/// The processes that are traced by id: the named ones and their descendants.
#[derive(Default)]
pub(super) struct Family {
    named: Vec<u32>,
    descendants: Vec<u32>,
    /// Number of descendants that are not traced because of `--no-children`.
    left_out: usize,
}

impl Family {
    /// The processes that exist now.
    pub(super) fn of(subject: &Subject, tracer: &Tracer) -> Result<Self> {
        let Subject::Processes { pids, children } = subject else { return Ok(Self::default()) };
        let named: HashSet<u32> = pids.iter().copied().collect();
        if *children {
            let mut descendants = tracer.processes()?;
            descendants.retain(|pid| !named.contains(pid));
            descendants.sort_unstable();
            return Ok(Self { named: pids.clone(), descendants, left_out: 0 });
        }
        let left_out = processes::descendants(&processes::all(), &named).len();
        Ok(Self { named: pids.clone(), descendants: Vec::new(), left_out })
    }

    pub(super) fn all(&self) -> Vec<u32> {
        self.named.iter().chain(&self.descendants).copied().collect()
    }

    pub(super) fn scope(&self, text: String) -> Scope {
        Scope { text, children_left_out: self.left_out as u64 }
    }

    /// Updates the descendants from the processes that are traced now, and notes the new ones on
    /// stderr.
    pub(super) fn update(&mut self, now: &[u32]) {
        let known: HashSet<u32> = self.all().into_iter().collect();
        for pid in now.iter().filter(|pid| !known.contains(pid)) {
            self.descendants.push(*pid);
            if let Some(process) = processes::one(*pid) {
                let comm = escape(process.comm.as_bytes());
                note!("also traced: process {pid} ({comm}), a descendant");
            }
        }
        self.descendants.retain(|pid| now.contains(pid));
    }
}

/// Checks the command before the probes are attached, which takes seconds. If it cannot be run,
/// says so on stderr and returns the exit code that a shell has for it.
pub(super) fn cannot_run(command: &OsStr) -> Option<u8> {
    const NOT_EXECUTABLE: u8 = 126;
    const NOT_FOUND: u8 = 127;
    let shown = || escape(command.as_encoded_bytes());
    let found: Vec<PathBuf> = if command.as_encoded_bytes().contains(&b'/') {
        vec![PathBuf::from(command)]
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|folder| folder.join(command)).collect()
    };
    let files: Vec<_> = found
        .iter()
        .filter_map(|path| std::fs::metadata(path).ok())
        .filter(|m| m.is_file())
        .collect();
    if files.iter().any(|file| file.mode() & 0o111 != 0) {
        return None;
    }
    if files.is_empty() {
        note!(
            "cannot run `{}`: there is no such program (under sudo, PATH may differ: give the full \
             path)",
            shown()
        );
        return Some(NOT_FOUND);
    }
    note!("cannot run `{}`: it is not executable (chmod +x)", shown());
    Some(NOT_EXECUTABLE)
}

/// Returns what ends the run, and the subject in words. Starts the command, if there is one.
pub(super) fn watch(
    verb: &Trace,
    subject: &Subject,
    family: &Family,
    tracer: &mut Tracer,
) -> Result<(Watch, String)> {
    Ok(match (verb, subject) {
        (Trace::Run { command, .. }, _) => {
            let child = spawn(tracer, command)?;
            let text = command[0].to_string_lossy().into_owned();
            (Watch::Child(Box::new(child)), escape(text.as_bytes()))
        }
        (_, Subject::Processes { pids, children }) => {
            let named: Result<Vec<_>> = pids.iter().map(|pid| pidfd(*pid)).collect();
            let text = processes::in_words(pids, family.descendants.len());
            (Watch::Processes { named: named?, children: *children }, text)
        }
        (_, Subject::Cgroup { text, folder }) => (Watch::Cgroup(folder.clone()), text.clone()),
        (_, Subject::System | Subject::Command) => (Watch::Nothing, "the whole system".to_owned()),
    })
}

/// Starts the command. Meanwhile this process is traced itself, so that the kernel side adds the
/// child at its fork, before it can make a request.
fn spawn(tracer: &mut Tracer, command: &[OsString]) -> Result<Child> {
    let own = std::process::id();
    tracer.add_process(own)?;
    let child = Command::new(&command[0]).args(&command[1..]).spawn();
    tracer.remove_process(own)?;
    child.with_context(|| {
        let command = escape(command[0].as_encoded_bytes());
        format!("cannot start `{command}` (is it in PATH and executable?)")
    })
}

/// A descriptor that becomes readable when the process exits (pidfd_open(2), 5.3).
fn pidfd(pid: u32) -> Result<AsyncFd<std::fs::File>> {
    // SAFETY: passes no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        bail!("process {pid} ended before it could be traced");
    }
    // SAFETY: the descriptor was just opened and has no other owner.
    let file = unsafe { std::fs::File::from_raw_fd(fd as i32) };
    // SAFETY: the File owns the descriptor and keeps it open until it is dropped.
    Ok(unsafe { AsyncFd::register_with_interest(file, Interest::READABLE) }?)
}

/// The signals that end a run. They are caught from the time that this is made.
pub(super) struct EndSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl EndSignals {
    pub(super) fn new() -> Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Waits for either signal and returns its number.
    async fn next(&mut self) -> libc::c_int {
        tokio::select! {
            _ = self.interrupt.recv() => libc::SIGINT,
            _ = self.terminate.recv() => libc::SIGTERM,
        }
    }
}

/// Forwards SIGTERM to the command. SIGINT is not forwarded: at Ctrl-C the terminal sends it to the
/// command as well.
fn forward(signal: libc::c_int, child: &Child) {
    let Some(pid) = child.id().filter(|_| signal == libc::SIGTERM) else { return };
    // The result is ignored: a child that changed its user may not be signalled.
    // SAFETY: passes no pointers; the child was not waited for, so the pid is still its own.
    unsafe { libc::kill(pid as libc::pid_t, signal) };
}

/// Waits until the watched processes have ended; returns the exit status of a command.
async fn ended(watch: &mut Watch) -> Result<Option<ExitStatus>> {
    match watch {
        Watch::Nothing | Watch::Descendants | Watch::Cgroup(_) => std::future::pending().await,
        Watch::Child(child) => Ok(Some(child.wait().await?)),
        Watch::Processes { named, .. } => {
            for fd in named {
                // A pidfd stays readable once its process has ended.
                let _ = fd.readable().await?;
            }
            Ok(None)
        }
    }
}

/// The exit code as a shell reports it: the command's code, or 128 + signal.
fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
