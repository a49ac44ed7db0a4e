//! The architectures that releases are made for, by the names that each tool has for them.
use crate::host::packages::{self, Need};

pub(super) struct Arch {
    /// As `uname -m` prints it and RPM has it.
    pub(super) name: &'static str,
    /// rustc's target: musl, so that the program is static and free of copyleft.
    pub(super) target: &'static str,
    /// Debian's name.
    pub(super) debian: &'static str,
    /// The name in OCI images, which is Go's.
    pub(super) oci: &'static str,
    /// The C compiler, which also links.
    pub(super) gcc: &'static str,
    /// Debian packages with that compiler.
    pub(super) compiler: &'static [Need],
    /// The folder of musl's files in Debian's packages.
    pub(super) musl: &'static str,
}

pub(super) const ARCHES: &[Arch] = &[
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
