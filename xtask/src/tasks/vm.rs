//! `cargo xtask vm`: boots a kernel in QEMU and runs a command or a shell in it.
use std::{path::PathBuf, time::Duration};

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    host::arch,
    vm::{
        boot::{Mode, Setup},
        interrupts,
        kernels::{self, Kernel},
        qemu::Machine,
        running::{self, Vm, to_terminal},
    },
};

/// Boot a kernel in QEMU and run a command in it, or a shell
///
/// The guest sees this machine's / (read-only, with a throwaway layer on top), the current state of
/// the checkout, a writable /out, and four empty disks: /dev/vda (512-byte sectors), /dev/vdb
/// (4096), /dev/vdc (512 logical, 4096 physical) and /dev/nvme0n1; also /dev/pmem0 after
/// virtio_pmem and nd_pmem are loaded. It has no network. KVM is used if kvm_intel or kvm_amd is
/// loaded, else emulation. The command starts in the checkout as root, and xtask exits with its
/// exit code. A command of one word is run by bash -c.
///
///   cargo xtask vm --kernel 6.12 -- uname -a
///   cargo xtask vm --kernel 6.1                      # a shell on the console; `exit` ends it
///   cargo xtask vm --kernel 6.12 --keep dev          # boots and keeps running…
///   cargo xtask vm --in dev -- 'mkfs.ext4 /dev/vda'  # …to run several commands in it
///   cargo xtask vm --stop dev
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct VmArgs {
    /// A Debian series (5.10, 6.1, 6.12, 6.18, 7.3, or another that its archive has), possibly with
    /// an architecture and a flavour (6.12-rt, 6.12-arm64-16k), or a kernel image with --modules
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// The architecture of the kernel: amd64, arm64 [default: this machine's]
    ///
    /// A guest of another architecture is emulated, and its root is a userland of Debian packages.
    #[arg(long, conflicts_with = "modules")]
    arch: Option<String>,
    /// The modules of the kernel image: a folder like /lib/modules/VERSION
    #[arg(long, value_name = "DIR")]
    modules: Option<PathBuf>,
    /// The number of CPUs
    ///
    /// The default is one, because with more QEMU's emulation occasionally crashes a guest whose
    /// kernel patches its own code, which attaching a probe makes it do.
    #[arg(long, default_value_t = 1)]
    smp: u32,
    /// Run the emulated CPUs in turn on one CPU of the host: slower, but avoids the crash of --smp
    #[arg(long)]
    turns: bool,
    /// Memory, as in QEMU's -m
    #[arg(long, default_value = "2G")]
    mem: String,
    /// Each instruction takes 1 ns of the guest's time, on one CPU: slow and deterministic, for
    /// measuring
    #[arg(long)]
    icount: bool,
    /// Further parameters for the kernel's command line
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Stop the command after this many seconds (exit code 124)
    #[arg(long, value_name = "S")]
    timeout: Option<u64>,
    /// The folder that is the guest's /out [default: out/ in the VM's run folder]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// A name for the run folder, which is then kept
    #[arg(long)]
    name: Option<String>,
    /// Only boot, and keep the VM running under this name
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "stop", "inside", "timeout"])]
    keep: Option<String>,
    /// The folder that is the guest's root, under an overlay
    /// [default: this machine's /, or a userland of the architecture]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["stop", "inside"])]
    root: Option<PathBuf>,
    /// Run the command in a VM that --keep booted
    #[arg(long = "in", value_name = "NAME", conflicts_with_all = ["name", "stop", "out"])]
    inside: Option<String>,
    /// Stop a VM that --keep booted
    #[arg(long, value_name = "NAME")]
    stop: Option<String>,
    /// The command [default: a shell on the console]
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

fn kernel(args: &VmArgs) -> Result<Kernel> {
    let Some(arch) = &args.arch else {
        return kernels::find(&args.kernel, args.modules.as_deref());
    };
    kernels::debian(&format!("{}-{}", args.kernel, arch::find(arch)?.debian))
}

pub(crate) fn main(args: &VmArgs) -> Result<u8> {
    interrupts::catch_interrupts();
    let timeout = args.timeout.map(Duration::from_secs);
    if let Some(name) = &args.stop {
        return running::stop(name).map(|()| 0);
    }
    if let Some(name) = &args.inside {
        if args.command.is_empty() {
            bail!("--in {name} needs a command: cargo xtask vm --in {name} -- CMD");
        }
        return Vm::kept(name)?.run(&args.command, timeout, &mut to_terminal);
    }
    let kernel = kernel(args)?;
    let setup = Setup {
        machine: Machine {
            kernel: kernel.clone(),
            cpus: args.smp,
            memory: args.mem.clone(),
            icount: args.icount,
            turns: args.turns,
            append: args.append.clone(),
        },
        name: args.keep.clone().or_else(|| args.name.clone()),
        out: args.out.clone(),
        root: args.root.clone(),
        ..Setup::new(kernel)
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
