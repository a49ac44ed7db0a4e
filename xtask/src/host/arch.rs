//! The architectures that dio-trace runs on, by the names that each tool has for them.
use std::env;

use anyhow::{Context, Result};

use crate::host::packages::{self, Need};

#[derive(Debug)]
pub(crate) struct Arch {
    /// As `uname -m` prints it, and as rustc and RPM have it.
    pub(crate) name: &'static str,
    /// rustc's target: musl, so that the program is static and free of copyleft.
    pub(crate) target: &'static str,
    /// Debian's name.
    pub(crate) debian: &'static str,
    /// The name in OCI images, which is Go's.
    pub(crate) oci: &'static str,
    /// The C compiler, which also links.
    pub(crate) gcc: &'static str,
    /// Debian packages with that compiler.
    pub(crate) compiler: &'static [Need],
    /// The folder of musl's files in Debian's packages.
    pub(crate) musl: &'static str,
}

pub(crate) const ARCHES: &[Arch] = &[
    Arch {
        name: "x86_64",
        target: "x86_64-unknown-linux-musl",
        debian: "amd64",
        oci: "amd64",
        gcc: "x86_64-linux-gnu-gcc",
        compiler: packages::GCC_X86_64,
        musl: "x86_64-linux-musl",
    },
    Arch {
        name: "aarch64",
        target: "aarch64-unknown-linux-musl",
        debian: "arm64",
        oci: "arm64",
        gcc: "aarch64-linux-gnu-gcc",
        compiler: packages::GCC_AARCH64,
        musl: "aarch64-linux-musl",
    },
];

impl Arch {
    /// True for the architecture of this machine, whose programs a guest can run.
    pub(crate) fn is_host(&self) -> bool {
        self.name == env::consts::ARCH
    }
}

/// The architecture of this machine.
///
/// # Errors
///
/// If dio-trace does not run on it.
pub(crate) fn host() -> Result<&'static Arch> {
    find(env::consts::ARCH)
}

/// The architecture of this name, Debian's or that of `uname -m`.
///
/// # Errors
///
/// If there is none; the error lists them.
pub(crate) fn find(name: &str) -> Result<&'static Arch> {
    ARCHES.iter().find(|arch| [arch.name, arch.debian].contains(&name)).with_context(|| {
        let known: Vec<String> =
            ARCHES.iter().map(|arch| format!("{} ({})", arch.name, arch.debian)).collect();
        format!("no architecture is called `{name}`; there are {}", known.join(" and "))
    })
}
