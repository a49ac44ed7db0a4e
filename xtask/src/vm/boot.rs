//! Boots a VM: prepares the run folder, the initramfs and the shared folders, starts QEMU and waits
//! until the guest is up.
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
        platform::Platform,
        qemu::{self, Accel, Console, Machine, Share},
        run_folder::{put, qemu_pid, run_folder, script},
        running::{Sink, Vm},
        userland,
    },
};

/// How long a guest may take until it is up. After that it counts as hung.
const BOOT: Duration = Duration::from_secs(120);
/// As [`BOOT`], with [`Machine::icount`].
const BOOT_ICOUNT: Duration = Duration::from_secs(300);

/// A VM to boot.
pub(crate) struct Setup {
    pub(crate) machine: Machine,
    /// The name of the run folder, which is then kept; `None`: a generated name.
    pub(crate) name: Option<String>,
    /// The host's folder that the guest has as /out; `None`: `out` in the run folder.
    pub(crate) out: Option<PathBuf>,
    /// The host's folder that is the guest's root, under an overlay: nothing in it changes. `None`:
    /// this machine's own root, or the userland of another architecture.
    pub(crate) root: Option<PathBuf>,
    /// Whether systemd of that root is the guest's first process.
    pub(crate) systemd: bool,
}

impl Setup {
    pub(crate) fn new(kernel: Kernel) -> Self {
        let machine = Machine {
            kernel,
            // The help text of `--smp` in tasks/vm.rs has the reason.
            cpus: 1,
            memory: "2G".to_owned(),
            icount: false,
            turns: false,
            append: String::new(),
        };
        Self { machine, name: None, out: None, root: None, systemd: false }
    }
}

/// What the guest does when it is up.
pub(crate) enum Mode<'a> {
    /// Runs this script and powers off.
    Once(&'a str),
    /// Runs jobs until it is stopped.
    Keep,
    /// Runs a shell on the console and powers off.
    Shell,
}

impl Setup {
    /// Boots the VM, runs one command and stops it. Returns the command's exit code.
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

    /// Boots the VM with an interactive shell on its console.
    pub(crate) fn shell(&self) -> Result<u8> {
        if !io::stdin().is_terminal() {
            bail!("no command, and no terminal for a shell: add -- CMD");
        }
        self.ensure()?;
        let mut vm = self.launch(&Mode::Shell)?;
        let child = vm.child.as_mut().context("QEMU is gone")?;
        let status = child.wait().context("cannot wait for QEMU")?;
        if self.name.is_none() {
            vm.sweep()?;
        }
        Ok(if status.success() { 0 } else { 1 })
    }

    /// Boots the VM. If it does not come up, boots it a second time, because an emulated kernel
    /// occasionally hangs early.
    pub(crate) fn boot(&self, mode: Mode<'_>) -> Result<Vm> {
        self.ensure()?;
        let mut vm = self.launch(&mode)?;
        if let Err(error) = vm.wait_until_up(self.limit()) {
            // If init itself gave up, a second boot would fail the same way.
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

    fn ensure(&self) -> Result<()> {
        packages::ensure(&[packages::VM, Platform::of(self.machine.kernel.arch)?.needs])
    }

    fn limit(&self) -> Duration {
        if self.machine.icount { BOOT_ICOUNT } else { BOOT }
    }

    /// Starts QEMU without waiting for the guest.
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
                if self.systemd { "systemd" } else { "once" }
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
            ("CONSOLE", Platform::of(kernel.arch)?.console.to_owned()),
        ];
        let image = run.join("initrd.img");
        let root = match &self.root {
            Some(root) => root.clone(),
            None => userland::root(kernel.arch)?,
        };
        fs::write(&image, initrd::build(kernel, &root, &settings)?)
            .with_context(|| format!("cannot write {}", image.display()))?;
        let share = |tag: &str, path: &Path, writable| Share {
            tag: tag.to_owned(),
            path: path.to_owned(),
            writable,
        };
        let mut shares = vec![
            share("root", &root, false),
            share("control", &control, true),
            share("modules", &kernel.modules, false),
            share("out", &out, true),
            // A tag can be mounted only once; this one is for mounting /out with another cache
            // mode.
            share("again", &out, true),
        ];
        shares.extend(fresh);
        let log = run.join("console.log");
        let shell = matches!(mode, Mode::Shell);
        let console = if shell { Console::Terminal } else { Console::Log(&log) };
        let mut command = qemu::command(&self.machine, &image, &run, &shares, &console)?;
        let title = format!("Linux {}", kernel.version);
        let accel = if self.machine.icount { Accel::Tcg } else { Accel::here(kernel.arch) };
        say(format!("booting {title} ({})", accel.name()));
        if !shell {
            let errors = fs::File::create(run.join("qemu.err")).context("cannot make qemu.err")?;
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        }
        if !shell {
            // Its own process group, so that Ctrl-C at this terminal reaches only xtask, which then
            // stops QEMU cleanly.
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

/// The folders that the guest must see without a cache: the checkout, and the build folder if it is
/// outside the checkout.
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

/// Makes the kernel kill QEMU when xtask dies, even by SIGKILL.
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
