//! A VM that is up: runs commands in it, and stops it.
use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::Child,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    host::{cmd::say, paths},
    vm::{
        interrupts::interrupted,
        qemu,
        run_folder::{Tail, put, qemu_pid, run_folder, script},
    },
};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Receives a command's output while it runs.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(Stream, &[u8]);

/// A [`Sink`] that writes to our own stdout and stderr.
pub(crate) fn to_terminal(stream: Stream, bytes: &[u8]) {
    // A closed pipe on our side must not stop the command in the guest.
    let _ = match stream {
        Stream::Out => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
        Stream::Err => io::stderr().write_all(bytes),
    };
}

/// A virtual machine that is up or coming up.
pub(crate) struct Vm {
    pub(crate) name: String,
    /// How messages name it.
    pub(super) title: String,
    /// The run folder, see [`run_folder`](super::run_folder).
    pub(super) run: PathBuf,
    /// The host's folder that the guest has as /out.
    pub(crate) out: PathBuf,
    pub(super) pid: i32,
    /// The QEMU process; `None` if another xtask started it.
    pub(super) child: Option<Child>,
    /// Whether the VM keeps running when xtask exits.
    pub(super) kept: bool,
}

impl Vm {
    /// Finds a VM that an earlier `--keep` booted.
    pub(crate) fn kept(name: &str) -> Result<Self> {
        let run = run_folder(name)?;
        let Some(pid) = qemu_pid(&run) else {
            bail!("no VM named {name} is running: cargo xtask vm --kernel 6.12 --keep {name}");
        };
        let out = fs::read_to_string(run.join("out-is")).unwrap_or_default().into();
        let title = format!("the VM {name}");
        Ok(Self { name: name.to_owned(), title, run, out, pid, child: None, kept: true })
    }

    fn jobs(&self) -> PathBuf {
        self.run.join("control/jobs")
    }

    /// Runs a command in a kept VM.
    pub(crate) fn run(
        &mut self,
        command: &[String],
        timeout: Option<Duration>,
        sink: Sink<'_>,
    ) -> Result<u8> {
        let script = script(command, timeout)?;
        // Unique without a counter that two xtasks would have to share.
        let id = format!("{}-{}", std::process::id(), unix_nanos());
        put(&self.jobs().join(format!("{id}.sh")), &script)?;
        let code = self.follow(&id, timeout, sink);
        if code.is_ok() {
            for end in ["sh", "begun", "pid", "out", "err", "rc"] {
                // A file that remains is removed with the run folder.
                let _ = fs::remove_file(self.jobs().join(format!("{id}.{end}")));
            }
        }
        code
    }

    /// Passes a job's output to `sink` until its exit code arrives, and returns that.
    pub(super) fn follow(
        &mut self,
        id: &str,
        timeout: Option<Duration>,
        sink: Sink<'_>,
    ) -> Result<u8> {
        let file = |end: &str| self.run.join(format!("control/jobs/{id}.{end}"));
        let (result, kill) = (file("rc"), file("kill"));
        let mut tails =
            [(Stream::Out, Tail::new(file("out"))), (Stream::Err, Tail::new(file("err")))];
        // `timeout` in the guest ends the command first; this deadline is for a guest that hangs.
        let deadline = timeout.map(|timeout| Instant::now() + timeout + Duration::from_secs(30));
        let mut asked = None;
        loop {
            let done = fs::read_to_string(&result).ok();
            let alive = self.alive();
            for (stream, tail) in &mut tails {
                tail.read(|bytes| sink(*stream, bytes));
            }
            if let Some(code) = done {
                let code = code.trim().parse::<u8>();
                return code
                    .with_context(|| format!("{} does not hold an exit code", result.display()));
            }
            if !alive {
                bail!("the VM ended before the command did{}", self.console_tail());
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                self.end();
                bail!("the VM does not respond{}", self.console_tail());
            }
            if interrupted() {
                if !self.kept || asked.is_some_and(|at: Instant| at.elapsed().as_secs() > 10) {
                    bail!("interrupted");
                }
                if asked.is_none() {
                    put(&kill, "")?;
                    asked = Some(Instant::now());
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until init in the guest reports that it is up.
    pub(super) fn wait_until_up(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        let marker = self.run.join("control/up");
        while !marker.exists() {
            if !self.alive() {
                let stderr = fs::read_to_string(self.run.join("qemu.err")).unwrap_or_default();
                bail!(
                    "QEMU ended before the guest was up: {}{}",
                    stderr.trim(),
                    self.console_tail()
                );
            }
            if start.elapsed() > limit {
                self.end();
                bail!("the guest was not up after {} s{}", limit.as_secs(), self.console_tail());
            }
            if interrupted() {
                bail!("interrupted");
            }
            thread::sleep(Duration::from_millis(100));
        }
        say(format!("{} is up after {:.0} s", self.title, start.elapsed().as_secs_f32()));
        Ok(())
    }

    /// Waits until QEMU has exited, and kills it after `limit`.
    pub(super) fn wait_for_end(&mut self, limit: Duration) {
        let start = Instant::now();
        while self.alive() && start.elapsed() < limit {
            thread::sleep(Duration::from_millis(20));
        }
        self.end();
    }

    fn alive(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => qemu_pid(&self.run) == Some(self.pid),
        }
    }

    /// Kills QEMU and removes its scratch disks.
    fn end(&mut self) {
        match &mut self.child {
            Some(child) => {
                // Fails only if the process has ended already.
                let _ = child.kill();
                let _ = child.wait();
            }
            None => signal(self.pid, libc::SIGKILL),
        }
        let _ = fs::remove_file(self.run.join("pid"));
        qemu::drop_disks(&self.run);
    }

    /// Removes the run folder of a VM, unless the guest's /out is in it and is not empty.
    pub(super) fn sweep(&self) -> Result<()> {
        if self.out.starts_with(&self.run) && fs::remove_dir(&self.out).is_err() {
            say(format!("the guest's /out is {}", self.out.display()));
            return Ok(());
        }
        paths::remove(&self.run)
    }

    fn console_tail(&self) -> String {
        let log = self.run.join("console.log");
        let bytes = fs::read(&log).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(15)..];
        if tail.is_empty() {
            return String::new();
        }
        // The guest's console is untrusted text: control characters must not reach our terminal.
        let clean: String =
            tail.join("\n    ").chars().filter(|c| *c == '\n' || !c.is_control()).collect();
        format!("\n  the end of {}:\n    {clean}", log.display())
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if !self.kept {
            self.end();
        }
    }
}

/// Stops a VM that was kept.
pub(crate) fn stop(name: &str) -> Result<()> {
    let mut vm = Vm::kept(name)?;
    put(&vm.run.join("control/stop"), "")?;
    vm.wait_for_end(Duration::from_secs(10));
    say(format!("{name} is stopped"));
    Ok(())
}

fn unix_nanos() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos())
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: kill does not touch memory; the pid was checked to be our QEMU.
    unsafe {
        libc::kill(pid, signal);
    }
}
