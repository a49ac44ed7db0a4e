//! Boots a VM: a kernel, its shares and its console, and the command that it runs.
use std::{
    env, fs,
    io::{self, IsTerminal},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    host::{cmd::say, packages, paths},
    vm::{
        initrd,
        interrupts::interrupted,
        kernels::Kernel,
        qemu::{self, Accel, Console, Machine, Share},
        run_folder::{put, qemu_pid, run_folder, script},
        running::{Sink, Vm},
    },
};

/// A guest that has not said `up` by then hangs.
const BOOT: Duration = Duration::from_secs(120);
const BOOT_ICOUNT: Duration = Duration::from_secs(300);
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
pub(crate) enum Mode<'a> {
    Once(&'a str),
    Keep,
    Shell,
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
    pub(crate) fn shell(&self) -> Result<u8> {
        if !io::stdin().is_terminal() {
            bail!("no command, and no terminal for a shell: add -- CMD");
        }
        packages::ensure(&[packages::VM])?;
        let mut vm = self.launch(&Mode::Shell)?;
        let child = vm.child.as_mut().context("QEMU is gone")?;
        let status = child.wait().context("cannot wait for QEMU")?;
        if self.name.is_none() {
            vm.sweep()?;
        }
        Ok(if status.success() { 0 } else { 1 })
    }

    /// Boots it, a second time where the first hangs: emulated kernels rarely do, early on.
    pub(crate) fn boot(&self, mode: Mode<'_>) -> Result<Vm> {
        packages::ensure(&[packages::VM])?;
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
        if let Some(pid) = qemu_pid(&run) {
            bail!("a VM named {name} is running (pid {pid}): cargo xtask vm --stop {name}");
        }
        paths::fresh(&run)?;
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
        let workspace = paths::workspace()?;
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
    let target = paths::target()?;
    if !target.starts_with(workspace) && target.is_dir() {
        folders.push(target);
    }
    Ok(folders
        .into_iter()
        .enumerate()
        .map(|(number, path)| Share { tag: format!("fresh{number}"), path, writable: false })
        .collect())
}

/// QEMU must not outlive an xtask that is killed.
fn die_with_us(command: &mut Command) {
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and touches
    // no memory of the parent.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
}
