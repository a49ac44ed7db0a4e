//! QEMU's command line: emulation or KVM, the shared folders, the scratch disks.
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{host::cmd::which, vm::kernels::Kernel};

/// A machine to boot.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) kernel: Kernel,
    pub(crate) cpus: u32,
    /// As QEMU's `-m`: `2G`.
    pub(crate) memory: String,
    /// One virtual nanosecond per instruction: slow, and the same at every run.
    pub(crate) icount: bool,
    /// Emulated CPUs take turns on one of the host's.
    pub(crate) turns: bool,
    /// More for the kernel's command line.
    pub(crate) append: String,
}

/// A folder of the host that the guest mounts.
pub(crate) struct Share {
    pub(crate) tag: String,
    pub(crate) path: PathBuf,
    pub(crate) writable: bool,
}

struct Disk {
    name: &'static str,
    gib: u64,
    device: &'static str,
}

/// In this order vda, vdb, vdc, nvme0n1.
const DISKS: &[Disk] = &[
    Disk { name: "a512", gib: 48, device: "virtio-blk-pci,serial=A512" },
    Disk {
        name: "b4kn",
        gib: 16,
        device: "virtio-blk-pci,serial=B4KN,logical_block_size=4096,physical_block_size=4096",
    },
    Disk {
        name: "c512e",
        gib: 1,
        device: "virtio-blk-pci,serial=C512E,logical_block_size=512,physical_block_size=4096",
    },
    Disk { name: "nvme", gib: 1, device: "nvme,serial=NVME" },
];

/// Size of the memory behind /dev/pmem0.
const PMEM_GIB: u64 = 1;
/// Addresses for the machine's memory and that.
const ADDRESSES: &str = "maxmem=64G";

/// How the guest's instructions are run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accel {
    Kvm,
    Tcg,
}

impl Accel {
    /// /dev/kvm alone says little: a nested or filtered one may exist and run no kernel. With a
    /// vendor module loaded it is the real thing.
    pub(crate) fn here() -> Self {
        let module = ["/sys/module/kvm_intel", "/sys/module/kvm_amd"];
        let loaded = module.iter().any(|path| Path::new(path).exists());
        let opens = || File::options().read(true).write(true).open("/dev/kvm").is_ok();
        if loaded && opens() { Self::Kvm } else { Self::Tcg }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kvm => "KVM",
            Self::Tcg => "emulated",
        }
    }
}

/// Where the guest's serial console goes.
pub(crate) enum Console<'a> {
    Log(&'a Path),
    Terminal,
}

/// The command that boots it. `run` keeps the initramfs and the disks.
pub(crate) fn command(
    machine: &Machine,
    initrd: &Path,
    run: &Path,
    shares: &[Share],
    console: &Console<'_>,
) -> Result<Command> {
    let qemu = which("qemu-system-x86_64")
        .context("qemu-system-x86_64 is missing (package qemu-system-x86)")?;
    let mut command = Command::new(qemu);
    let accel = if machine.icount { Accel::Tcg } else { Accel::here() };
    match (machine.icount, accel) {
        (true, _) => command.args([
            "-accel",
            "tcg,thread=single,tb-size=512",
            "-icount",
            "shift=0,sleep=off",
            "-cpu",
            "max",
        ]),
        (false, Accel::Kvm) => command.args(["-accel", "kvm", "-cpu", "host"]),
        (false, Accel::Tcg) => {
            let threads = if machine.turns { "single" } else { "multi" };
            let accel = format!("tcg,thread={threads},tb-size=512");
            command.args(["-accel", &accel, "-cpu", "max"])
        }
    };
    let cpus = if machine.icount { 1 } else { machine.cpus };
    command
        .args(["-m", &format!("{},{ADDRESSES}", machine.memory), "-smp", &cpus.to_string()])
        // No devices but those below: no network either.
        .args([
            "-nodefaults",
            "-no-user-config",
            "-no-reboot",
            "-display",
            "none",
            "-monitor",
            "none",
        ])
        .args(["-device", "virtio-rng-pci"]);
    match console {
        Console::Log(path) => command.arg("-serial").arg(format!("file:{}", escaped(path)?)),
        Console::Terminal => {
            command.args(["-chardev", "stdio,id=tty,signal=off", "-serial", "chardev:tty"])
        }
    };
    // panic=-1 with -no-reboot: a panic ends QEMU at once. no_timer_check: a timer that emulation
    // serves late is no broken timer. nokaslr and mitigations=off: the same, quick kernel each
    // time.
    let line = format!(
        "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic mitigations=off nokaslr no_timer_check \
         tsc=reliable audit=0 selinux=0 apparmor=0 lsm= {}",
        machine.append
    );
    command.arg("-kernel").arg(&machine.kernel.image).arg("-initrd").arg(initrd);
    command.args(["-append", line.trim_end()]);
    for (number, share) in shares.iter().enumerate() {
        let path = escaped(&share.path)?;
        let readonly = if share.writable { "" } else { ",readonly=on" };
        command
            .arg("-fsdev")
            .arg(format!(
                "local,id=fs{number},path={path},security_model=none,multidevs=remap{readonly}"
            ))
            .arg("-device")
            .arg(format!("virtio-9p-pci,fsdev=fs{number},mount_tag={}", share.tag));
    }
    for disk in DISKS {
        let (name, path) = (disk.name, scratch(run, disk.name, disk.gib)?);
        command
            .arg("-drive")
            .arg(format!("if=none,id={name},file={path},format=raw,cache=unsafe,discard=unmap"))
            .arg("-device")
            .arg(format!("{},drive={name}", disk.device));
    }
    let path = scratch(run, "pmem", PMEM_GIB)?;
    let memory = format!("memory-backend-file,id=pmem,share=on,size={PMEM_GIB}G,mem-path={path}");
    command.args(["-object", &memory, "-device", "virtio-pmem-pci,memdev=pmem"]);
    Ok(command)
}

/// An empty file for the guest's bytes, as QEMU takes it.
fn scratch(run: &Path, name: &str, gib: u64) -> Result<String> {
    let file = image(run, name);
    let made = File::create(&file).and_then(|new| new.set_len(gib << 30));
    made.with_context(|| format!("cannot make the scratch disk {}", file.display()))?;
    escaped(&file)
}

fn image(run: &Path, name: &str) -> PathBuf {
    run.join(format!("{name}.img"))
}

/// Gives the scratch disks' space back.
pub(crate) fn drop_disks(run: &Path) {
    for name in DISKS.iter().map(|disk| disk.name).chain(["pmem"]) {
        // Gone already is fine, and a stay costs only space.
        let _ = fs::remove_file(image(run, name));
    }
}

/// In QEMU's option lists a comma is doubled.
fn escaped(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) => Ok(text.replace(',', ",,")),
        None => bail!("{} is not UTF-8: QEMU cannot share it", path.display()),
    }
}
