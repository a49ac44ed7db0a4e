//! The Debian package, made by dpkg-deb.
use std::{path::Path, process::Command};

use anyhow::Result;

use super::{
    Arch, VERSION,
    files::{self, Installed},
};
use crate::host::{cmd::output, paths};

const PRERM: &str = include_str!("../../../../packaging/prerm");
const POSTRM: &str = include_str!("../../../../packaging/postrm");

/// Writes `dio-trace_VERSION_ARCH.deb`.
pub(super) fn make(arch: &Arch, installed: &[Installed], into: &Path, epoch: u64) -> Result<()> {
    let root = paths::target()?.join("dist-deb").join(arch.name);
    paths::fresh(&root)?;
    files::lay_out(installed, &root)?;
    let script = |name: &str, text: &str| Installed {
        path: format!("DEBIAN/{name}"),
        mode: 0o755,
        content: text.into(),
    };
    let mut control = script("control", &control(arch, installed));
    control.mode = 0o644;
    files::lay_out(&[control, script("prerm", PRERM), script("postrm", POSTRM)], &root)?;
    let mut dpkg = Command::new("dpkg-deb");
    dpkg
        // Debian 11's dpkg cannot read zstd.
        .args(["--root-owner-group", "-Zxz", "--build"])
        .arg(&root)
        .arg(into.join(format!("dio-trace_{VERSION}_{}.deb", arch.debian)))
        .env("SOURCE_DATE_EPOCH", epoch.to_string());
    output(&mut dpkg).map(drop)
}

fn control(arch: &Arch, installed: &[Installed]) -> String {
    let bytes: usize = installed.iter().map(|file| file.content.len()).sum();
    format!(
        "Package: dio-trace\n\
         Version: {VERSION}\n\
         Architecture: {}\n\
         Maintainer: dio-trace developers <{}>\n\
         Installed-Size: {}\n\
         Section: admin\n\
         Priority: optional\n\
         Homepage: {}\n\
         Description: tracer that tells whether O_DIRECT reads and writes were direct\n \
         For each read and write of a file that is open with O_DIRECT dio-trace shows\n \
         whether it really bypassed the page cache, which file it was, why not, and\n \
         what to do. It observes the kernel with eBPF: a command, a running process\n \
         or the whole system. Linux 5.10 or newer with BTF.\n",
        arch.debian,
        "noreply@dio-trace.invalid",
        bytes.div_ceil(1024),
        env!("CARGO_PKG_REPOSITORY"),
    )
}
