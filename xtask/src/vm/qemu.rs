//! Builds QEMU's command line: emulation or KVM, the shared folders, the scratch disks.
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{
    host::{arch::Arch, cmd::which},
    vm::{kernels::Kernel, platform::Platform},
};

/// A machine to boot.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) kernel: Kernel,
    pub(crate) cpus: u32,
    /// As in QEMU's `-m`, for example `2G`.
    pub(crate) memory: String,
    /// `-icount`: each instruction takes one virtual nanosecond. Slow and deterministic.
    pub(crate) icount: bool,
    /// The emulated CPUs share one thread of the host and run in turn.
    pub(crate) turns: bool,
    /// Further parameters for the kernel's command line.
    pub(crate) append: String,
}

/// A folder of the host that the guest mounts over 9p.
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

/// The scratch disks. In this order the guest has them as vda, vdb, vdc and nvme0n1.
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
/// Reserves address space above the machine's memory, for the pmem device.
const ADDRESSES: &str = "maxmem=64G";

/// How the guest's instructions are run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accel {
    Kvm,
    Tcg,
}

impl Accel {
    /// The accelerator for guests of an architecture on this machine. On x86-64 /dev/kvm may exist
    /// without being able to run a kernel (nested or filtered), so KVM is used only if a vendor
    /// module is loaded too.
    pub(crate) fn here(arch: &Arch) -> Self {
        let modules = ["/sys/module/kvm_intel", "/sys/module/kvm_amd"];
        let loaded = arch.name != "x86_64" || modules.iter().any(|path| Path::new(path).exists());
        let opens = || File::options().read(true).write(true).open("/dev/kvm").is_ok();
        if arch.is_host() && loaded && opens() { Self::Kvm } else { Self::Tcg }
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

/// The command that boots a machine. The scratch disks are created in the folder `run`.
pub(crate) fn command(
    machine: &Machine,
    initrd: &Path,
    run: &Path,
    shares: &[Share],
    console: &Console<'_>,
) -> Result<Command> {
    let platform = Platform::of(machine.kernel.arch)?;
    let name = platform.qemu;
    let mut command = Command::new(which(name).with_context(|| format!("{name} is missing"))?);
    command.args(platform.machine);
    let accel = if machine.icount { Accel::Tcg } else { Accel::here(machine.kernel.arch) };
    match (machine.icount, accel) {
        (true, _) => command.args([
            "-accel",
            "tcg,thread=single,tb-size=512",
            "-icount",
            "shift=0,sleep=off",
            "-cpu",
            platform.cpu,
        ]),
        (false, Accel::Kvm) => command.args(["-accel", "kvm", "-cpu", "host"]),
        (false, Accel::Tcg) => {
            let threads = if machine.turns { "single" } else { "multi" };
            let accel = format!("tcg,thread={threads},tb-size=512");
            command.args(["-accel", &accel, "-cpu", platform.cpu])
        }
    };
    let cpus = if machine.icount { 1 } else { machine.cpus };
    command
        .args(["-m", &format!("{},{ADDRESSES}", machine.memory), "-smp", &cpus.to_string()])
        // Only the devices below, so that there is no network.
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
    // panic=-1 with -no-reboot: a panic ends QEMU at once. nokaslr and mitigations=off: each boot
    // has the same addresses, and the kernel is faster.
    let line = format!(
        "console={} quiet loglevel=4 panic=-1 oops=panic mitigations=off nokaslr audit=0 selinux=0 \
         apparmor=0 lsm= {} {}",
        platform.console, platform.parameters, machine.append
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
    if !platform.pmem {
        return Ok(command);
    }
    let path = scratch(run, "pmem", PMEM_GIB)?;
    let memory = format!("memory-backend-file,id=pmem,share=on,size={PMEM_GIB}G,mem-path={path}");
    command.args(["-object", &memory, "-device", "virtio-pmem-pci,memdev=pmem"]);
    Ok(command)
}

/// Makes a sparse file for a scratch disk, and returns its path escaped for QEMU's options.
fn scratch(run: &Path, name: &str, gib: u64) -> Result<String> {
    let file = image(run, name);
    let made = File::create(&file).and_then(|new| new.set_len(gib << 30));
    made.with_context(|| format!("cannot make the scratch disk {}", file.display()))?;
    escaped(&file)
}

fn image(run: &Path, name: &str) -> PathBuf {
    run.join(format!("{name}.img"))
}

/// Removes the files of the scratch disks, to free their space.
pub(crate) fn drop_disks(run: &Path) {
    for name in DISKS.iter().map(|disk| disk.name).chain(["pmem"]) {
        // The file may be gone already; one that remains only takes space.
        let _ = fs::remove_file(image(run, name));
    }
}

/// A path in a QEMU option list, where each comma must be doubled.
fn escaped(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) => Ok(text.replace(',', ",,")),
        None => bail!("{} is not UTF-8: QEMU cannot share it", path.display()),
    }
}
