//! Virtual machines: boot, run commands inside, stop.
//!
//! A run folder (`vms/NAME` in the cache) is shared with the guest as its control folder:
//! `jobs/N.sh` goes in, `N.out`, `N.err` and at last `N.rc` come back; `up` says that it booted.
//! See init.sh for the other side.
use std::{
    env, fs,
    io::{self, IsTerminal, Read, Seek, SeekFrom, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    cmd::{quote, say},
    host, initrd,
    kernels::{self, Kernel},
    places,
    qemu::{self, Accel, Console, Machine, Share},
};

/// A guest that has not said `up` by then hangs.
const BOOT: Duration = Duration::from_secs(120);
const BOOT_ICOUNT: Duration = Duration::from_secs(300);
/// `timeout`'s own exit code.
const TIMED_OUT: u8 = 124;

/// Boot a kernel in QEMU and run a command in it, or a shell
///
/// The guest sees this machine's / (read-only, with a throwaway layer above), the checkout as it is
/// at this moment, a writable /out, and four empty disks: /dev/vda (512-byte sectors), /dev/vdb
/// (4096), /dev/vdc (512 logical, 4096 physical), /dev/nvme0n1; and /dev/pmem0 once virtio_pmem and
/// nd_pmem are loaded. No network. KVM is used where kvm_intel or kvm_amd is loaded, emulation
/// elsewhere. The command starts in the checkout as root; its exit code is xtask's. One word with spaces goes to a shell.
///
///   cargo xtask vm --kernel 6.12 -- uname -a
///   cargo xtask vm --kernel 6.1                      # a shell on the console; `exit` ends it
///   cargo xtask vm --kernel 6.12 --keep dev          # boots and stays…
///   cargo xtask vm --in dev -- 'mkfs.ext4 /dev/vda'  # …to run command after command in it
///   cargo xtask vm --stop dev
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct VmArgs {
    /// A Debian series (5.10, 6.1, 6.12, 6.18, 7.3), or a kernel image with --modules
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// The modules of a kernel image: a folder like /lib/modules/VERSION
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// CPUs
    ///
    /// One by default: with more, QEMU's emulation is known to crash a guest now and then while
    /// its kernel patches its own code, as attaching a probe makes it do.
    #[arg(long, default_value_t = 1)]
    smp: u32,
    /// Emulated CPUs take turns on one of the host's: slower, and no such crash
    #[arg(long)]
    turns: bool,
    /// Memory, as QEMU takes it
    #[arg(long, default_value = "2G")]
    mem: String,
    /// One instruction = 1 ns, one CPU: slow and deterministic, for measuring
    #[arg(long)]
    icount: bool,
    /// More words for the kernel's command line
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Seconds until the command is given up (exit code 124)
    #[arg(long, value_name = "S")]
    timeout: Option<u64>,
    /// The guest's /out; default: out/ in the VM's run folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A name for the run folder
    #[arg(long)]
    name: Option<String>,
    /// Boot and stay, under this name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "stop", "inside", "timeout"])]
    keep: Option<String>,
    /// Run the command in a VM that was kept
    #[arg(long = "in", value_name = "NAME", conflicts_with_all = ["name", "stop", "out"])]
    inside: Option<String>,
    /// End a VM that was kept
    #[arg(long, value_name = "NAME")]
    stop: Option<String>,
    /// The command; none: a shell on the console
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

pub(crate) fn main(args: &VmArgs) -> Result<u8> {
    catch_interrupts();
    let timeout = args.timeout.map(Duration::from_secs);
    if let Some(name) = &args.stop {
        return stop(name).map(|()| 0);
    }
    if let Some(name) = &args.inside {
        if args.command.is_empty() {
            bail!("--in {name} needs a command: cargo xtask vm --in {name} -- CMD");
        }
        return Vm::kept(name)?.run(&args.command, timeout, &mut to_terminal);
    }
    let kernel = kernels::find(&args.kernel, args.modules.as_deref())?;
    let setup = Setup {
        machine: Machine {
            kernel,
            cpus: args.smp,
            memory: args.mem.clone(),
            icount: args.icount,
            turns: args.turns,
            append: args.append.clone(),
        },
        name: args.keep.clone().or_else(|| args.name.clone()),
        out: args.out.clone(),
    };
    if args.keep.is_some() {
        if !args.command.is_empty() {
            bail!("--keep only boots; run the command with --in NAME -- CMD");
        }
        let vm = setup.boot(Mode::Keep)?;
        let name = &vm.name;
        println!("kept as `{name}`; its /out is {}", vm.out.display());
        println!("  cargo xtask vm --in {name} -- CMD\n  cargo xtask vm --stop {name}");
        return Ok(0);
    }
    if args.command.is_empty() {
        return setup.shell();
    }
    setup.once(&args.command, timeout, &mut to_terminal)
}

/// A VM to be.
pub(crate) struct Setup {
    pub(crate) machine: Machine,
    pub(crate) name: Option<String>,
    pub(crate) out: Option<PathBuf>,
}

impl Setup {
    pub(crate) fn new(kernel: Kernel) -> Self {
        let machine = Machine {
            kernel,
            // See --smp.
            cpus: 1,
            memory: "2G".to_owned(),
            icount: false,
            turns: false,
            append: String::new(),
        };
        Self { machine, name: None, out: None }
    }
}

/// What the guest does once it is up.
enum Mode<'a> {
    Once(&'a str),
    Keep,
    Shell,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
}

/// Takes a command's output as it comes.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(Stream, &[u8]);

pub(crate) fn to_terminal(stream: Stream, bytes: &[u8]) {
    // A closed pipe on our side ends nothing in the guest.
    let _ = match stream {
        Stream::Out => io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()),
        Stream::Err => io::stderr().write_all(bytes),
    };
}

/// A machine that is up.
struct Vm {
    name: String,
    /// For messages.
    title: String,
    run: PathBuf,
    out: PathBuf,
    pid: i32,
    /// Ours to wait for; none when another xtask booted it.
    child: Option<Child>,
    /// Whether it outlives us.
    kept: bool,
}

impl Setup {
    /// Boots it, runs one command, ends it.
    pub(crate) fn once(
        &self,
        command: &[String],
        timeout: Option<Duration>,
        sink: Sink<'_>,
    ) -> Result<u8> {
        let script = script(command, timeout)?;
        let mut vm = self.boot(Mode::Once(&script))?;
        let code = vm.follow("1", timeout, sink)?;
        vm.wait_for_end(Duration::from_secs(20));
        if self.name.is_none() {
            vm.sweep()?;
        }
        Ok(code)
    }

    /// An interactive shell on the console.
    fn shell(&self) -> Result<u8> {
        if !io::stdin().is_terminal() {
            bail!("no command, and no terminal for a shell: add -- CMD");
        }
        host::ensure(&[host::VM])?;
        let mut vm = self.launch(&Mode::Shell)?;
        let child = vm.child.as_mut().context("QEMU is gone")?;
        let status = child.wait().context("cannot wait for QEMU")?;
        if self.name.is_none() {
            vm.sweep()?;
        }
        Ok(if status.success() { 0 } else { 1 })
    }

    /// Boots it, a second time where the first hangs: emulated kernels rarely do, early on.
    fn boot(&self, mode: Mode<'_>) -> Result<Vm> {
        host::ensure(&[host::VM])?;
        let mut vm = self.launch(&mode)?;
        if let Err(error) = vm.wait_until_up(self.limit()) {
            // What init itself gave up on would fail again.
            if interrupted() || vm.run.join("control/died").exists() {
                return Err(error);
            }
            say(format!("{error:#}"));
            say("booting once more");
            drop(vm);
            vm = self.launch(&mode)?;
            vm.wait_until_up(self.limit()).context("the kernel did not come up, twice")?;
        }
        vm.kept = matches!(mode, Mode::Keep);
        Ok(vm)
    }

    fn limit(&self) -> Duration {
        if self.machine.icount { BOOT_ICOUNT } else { BOOT }
    }

    /// Starts QEMU; the guest comes up on its own.
    fn launch(&self, mode: &Mode<'_>) -> Result<Vm> {
        let kernel = &self.machine.kernel;
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                static NEXT: AtomicU32 = AtomicU32::new(1);
                let number = NEXT.fetch_add(1, Ordering::Relaxed);
                format!("{}-{}-{number}", kernel.name, std::process::id())
            }
        };
        let run = run_folder(&name)?;
        if let Some(pid) = running(&run) {
            bail!("a VM named {name} is running (pid {pid}): cargo xtask vm --stop {name}");
        }
        places::fresh(&run)?;
        let control = run.join("control");
        let out = self.out.clone().unwrap_or_else(|| run.join("out"));
        for folder in [&control.join("jobs"), &out] {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let out =
            out.canonicalize().with_context(|| format!("cannot resolve {}", out.display()))?;
        let word = match mode {
            Mode::Once(script) => {
                put(&control.join("jobs/1.sh"), script)?;
                "once"
            }
            Mode::Keep => "keep",
            Mode::Shell => "shell",
        };
        let workspace = places::workspace()?;
        let fresh = fresh_folders(&workspace)?;
        let words: Vec<String> =
            fresh.iter().map(|share| format!("{}={}", share.tag, share.path.display())).collect();
        if words.iter().any(|word| word.contains(char::is_whitespace)) {
            bail!("the checkout's path has a space in it, which the guest cannot mount");
        }
        let term = env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
        let settings = [
            ("MODE", word.to_owned()),
            ("WORKSPACE", workspace.display().to_string()),
            ("FRESH", words.join(" ")),
            ("TERM_OF_HOST", term),
        ];
        let image = run.join("initrd.img");
        fs::write(&image, initrd::build(kernel, &settings)?)
            .with_context(|| format!("cannot write {}", image.display()))?;
        let share = |tag: &str, path: &Path, writable| Share {
            tag: tag.to_owned(),
            path: path.to_owned(),
            writable,
        };
        let mut shares = vec![
            share("root", Path::new("/"), false),
            share("control", &control, true),
            share("modules", &kernel.modules, false),
            share("out", &out, true),
            // A tag can be mounted once: this one is for other cache modes.
            share("again", &out, true),
        ];
        shares.extend(fresh);
        let log = run.join("console.log");
        let shell = matches!(mode, Mode::Shell);
        let console = if shell { Console::Terminal } else { Console::Log(&log) };
        let mut command = qemu::command(&self.machine, &image, &run, &shares, &console)?;
        let title = format!("Linux {}", kernel.version);
        let accel = if self.machine.icount { Accel::Tcg } else { Accel::here() };
        say(format!("booting {title} ({})", accel.name()));
        if !shell {
            let errors = fs::File::create(run.join("qemu.err")).context("cannot make qemu.err")?;
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        }
        if !shell {
            // Its own group: Ctrl-C at this terminal is for us, who end it in order.
            command.process_group(0);
        }
        if !matches!(mode, Mode::Keep) {
            die_with_us(&mut command);
        }
        let child = command.spawn().context("cannot start QEMU")?;
        let pid = i32::try_from(child.id()).context("QEMU's pid is too large")?;
        put(&run.join("pid"), &pid.to_string())?;
        put(&run.join("out-is"), &out.display().to_string())?;
        Ok(Vm { name, title, run, out, pid, child: Some(child), kept: false })
    }
}

/// The checkout, and the build folder where that is elsewhere: seen without a cache.
fn fresh_folders(workspace: &Path) -> Result<Vec<Share>> {
    let mut folders = vec![workspace.to_owned()];
    let target = places::target()?;
    if !target.starts_with(workspace) && target.is_dir() {
        folders.push(target);
    }
    Ok(folders
        .into_iter()
        .enumerate()
        .map(|(number, path)| Share { tag: format!("fresh{number}"), path, writable: false })
        .collect())
}

impl Vm {
    /// One that an earlier `--keep` booted.
    fn kept(name: &str) -> Result<Self> {
        let run = run_folder(name)?;
        let Some(pid) = running(&run) else {
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
    fn run(&mut self, command: &[String], timeout: Option<Duration>, sink: Sink<'_>) -> Result<u8> {
        let script = script(command, timeout)?;
        // Unique without a counter that two xtasks would have to share.
        let id = format!("{}-{}", std::process::id(), unix_nanos());
        put(&self.jobs().join(format!("{id}.sh")), &script)?;
        let code = self.follow(&id, timeout, sink);
        if code.is_ok() {
            for end in ["sh", "begun", "pid", "out", "err", "rc"] {
                // What stays is swept with the run folder.
                let _ = fs::remove_file(self.jobs().join(format!("{id}.{end}")));
            }
        }
        code
    }

    /// Passes a job's output on until its exit code is there.
    fn follow(&mut self, id: &str, timeout: Option<Duration>, sink: Sink<'_>) -> Result<u8> {
        let file = |end: &str| self.run.join(format!("control/jobs/{id}.{end}"));
        let (result, kill) = (file("rc"), file("kill"));
        let mut tails =
            [(Stream::Out, Tail::new(file("out"))), (Stream::Err, Tail::new(file("err")))];
        // The guest's own `timeout` comes first; this one is for a guest that hangs.
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
                return code.with_context(|| format!("{} holds no exit code", result.display()));
            }
            if !alive {
                bail!("the VM ended before the command did{}", self.console_tail());
            }
            if deadline.is_some_and(|deadline| Instant::now() > deadline) {
                self.end();
                bail!("the VM answers no more{}", self.console_tail());
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

    fn wait_until_up(&mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        let marker = self.run.join("control/up");
        while !marker.exists() {
            if !self.alive() {
                let talk = fs::read_to_string(self.run.join("qemu.err")).unwrap_or_default();
                bail!("QEMU ended before the guest was up: {}{}", talk.trim(), self.console_tail());
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

    fn wait_for_end(&mut self, limit: Duration) {
        let start = Instant::now();
        while self.alive() && start.elapsed() < limit {
            thread::sleep(Duration::from_millis(20));
        }
        self.end();
    }

    fn alive(&mut self) -> bool {
        match &mut self.child {
            Some(child) => matches!(child.try_wait(), Ok(None)),
            None => running(&self.run) == Some(self.pid),
        }
    }

    /// Ends QEMU, which is ours by pid.
    fn end(&mut self) {
        match &mut self.child {
            Some(child) => {
                // Fails only where it has ended already.
                let _ = child.kill();
                let _ = child.wait();
            }
            None => signal(self.pid, libc::SIGKILL),
        }
        let _ = fs::remove_file(self.run.join("pid"));
        qemu::drop_disks(&self.run);
    }

    /// Removes the run folder of a VM that ended well, but for what was put in /out.
    fn sweep(&self) -> Result<()> {
        if self.out.starts_with(&self.run) && fs::remove_dir(&self.out).is_err() {
            say(format!("the guest's /out is {}", self.out.display()));
            return Ok(());
        }
        places::remove(&self.run)
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
        // The guest's console is foreign text for our terminal.
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

fn stop(name: &str) -> Result<()> {
    let mut vm = Vm::kept(name)?;
    put(&vm.run.join("control/stop"), "")?;
    vm.wait_for_end(Duration::from_secs(10));
    say(format!("{name} is stopped"));
    Ok(())
}

fn run_folder(name: &str) -> Result<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        bail!("`{name}` is no name for a VM: letters, digits, `-`, `_`, `.`");
    }
    Ok(places::cache()?.join("vms").join(name))
}

/// The pid of the QEMU that runs in this folder. A pid may have been given to another program
/// since, so the command line must name the folder.
fn running(run: &Path) -> Option<i32> {
    let pid: i32 = fs::read_to_string(run.join("pid")).ok()?.trim().parse().ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let initrd = run.join("initrd.img");
    let initrd = initrd.as_os_str().as_encoded_bytes();
    line.split(|byte| *byte == 0).any(|word| word == initrd).then_some(pid)
}

/// What bash runs in the guest.
fn script(command: &[String], timeout: Option<Duration>) -> Result<String> {
    let workspace = places::workspace()?;
    let words: Vec<String> = match command {
        [line] => vec!["/bin/bash".to_owned(), "-c".to_owned(), quote(line)],
        words => words.iter().map(|word| quote(word)).collect(),
    };
    let limit = timeout.map(|t| format!("timeout -k 5 {} ", t.as_secs())).unwrap_or_default();
    let folder = quote(&workspace.display().to_string());
    let says = timeout.map_or(String::new(), |timeout| {
        format!(
            "[ $code = {TIMED_OUT} ] && echo 'xtask: timed out after {} s' >&2\n",
            timeout.as_secs()
        )
    });
    Ok(format!("cd {folder} || exit 125\n{limit}{}\ncode=$?\n{says}exit $code\n", words.join(" ")))
}

/// Writes a file so that a reader sees all of it or nothing.
fn put(path: &Path, text: &str) -> Result<()> {
    let half = path.with_extension("half");
    fs::write(&half, text)
        .and_then(|()| fs::rename(&half, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Reads what was added to a file since the last look.
struct Tail {
    path: PathBuf,
    file: Option<fs::File>,
    at: u64,
}

impl Tail {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, at: 0 }
    }

    fn read(&mut self, mut sink: impl FnMut(&[u8])) {
        if self.file.is_none() {
            self.file = fs::File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return };
        let mut bytes = Vec::new();
        // A failed look is made again at the next.
        let read = file.seek(SeekFrom::Start(self.at)).and_then(|_| file.read_to_end(&mut bytes));
        if read.is_ok() && !bytes.is_empty() {
            self.at += bytes.len() as u64;
            sink(&bytes);
        }
    }
}

fn unix_nanos() -> u128 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_nanos())
}

/// QEMU must not outlive an xtask that is killed.
fn die_with_us(command: &mut std::process::Command) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and touches
    // no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}

fn signal(pid: i32, signal: i32) {
    // SAFETY: kill has no memory effects; the pid was checked to be our QEMU.
    unsafe {
        libc::kill(pid, signal);
    }
}

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

pub(crate) fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// An error if it was.
pub(crate) fn stop_if_interrupted() -> Result<()> {
    if interrupted() {
        bail!("interrupted");
    }
    Ok(())
}

/// Ctrl-C and SIGTERM: end the VM, or the command in it, and clean up.
pub(crate) fn catch_interrupts() {
    extern "C" fn note(_signal: i32) {
        INTERRUPTED.store(true, Ordering::Relaxed);
    }
    let handler: extern "C" fn(i32) = note;
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        // SAFETY: the handler only stores into an atomic, which is async-signal-safe.
        unsafe {
            libc::signal(signal, handler as libc::sighandler_t);
        }
    }
}
