//! The machine that QEMU emulates for each architecture.
use anyhow::{Context, Result};

use crate::host::{
    arch::Arch,
    packages::{self, Need},
};

/// A machine of QEMU for an architecture.
pub(crate) struct Platform {
    /// The architecture, by [`Arch::name`].
    arch: &'static str,
    /// QEMU's program, and the host's package with it.
    pub(super) qemu: &'static str,
    pub(crate) needs: &'static [Need],
    /// Arguments that choose the machine.
    pub(super) machine: &'static [&'static str],
    /// The CPU where it is emulated.
    pub(super) cpu: &'static str,
    /// The console's device in the guest.
    pub(super) console: &'static str,
    /// Parameters of the kernel that only this architecture needs.
    pub(super) parameters: &'static str,
    /// True if the machine takes a virtio-pmem device.
    pub(super) pmem: bool,
}

const PLATFORMS: &[Platform] = &[
    Platform {
        arch: "x86_64",
        qemu: "qemu-system-x86_64",
        needs: packages::QEMU_X86_64,
        machine: &[],
        cpu: "max",
        console: "ttyS0",
        // Emulation may serve a timer late, which must not make the kernel think that it is broken.
        parameters: "no_timer_check tsc=reliable",
        pmem: true,
    },
    Platform {
        arch: "aarch64",
        qemu: "qemu-system-aarch64",
        needs: packages::QEMU_AARCH64,
        machine: &["-machine", "virt,gic-version=3"],
        // The architecture's own algorithm for pointer authentication is slow to emulate.
        cpu: "max,pauth-impdef=on",
        console: "ttyAMA0",
        parameters: "",
        pmem: false,
    },
];

impl Platform {
    pub(crate) fn of(arch: &Arch) -> Result<&'static Self> {
        let found = PLATFORMS.iter().find(|platform| platform.arch == arch.name);
        found.with_context(|| format!("no machine is known for {}", arch.name))
    }
}
