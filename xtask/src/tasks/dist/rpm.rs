//! The RPM package, made by rpmbuild.
use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{
    Arch, VERSION,
    files::{self, Installed},
    write,
};
use crate::host::{
    cmd::{output, text},
    paths,
};

const SPEC: &str = include_str!("../../../../packaging/dio-trace.spec");
/// What of rpmbuild must not depend on this machine, and a compression that old versions read too.
const DEFINES: &[&str] = &[
    "_build_id_links none",
    "_buildhost localhost",
    "use_source_date_epoch_as_buildtime 1",
    "clamp_mtime_to_source_date_epoch 1",
    "_binary_payload w9.xzdio",
    // The program is stripped already, and may be of another architecture.
    "__os_install_post %{nil}",
    "debug_package %{nil}",
];

/// Writes `dio-trace-VERSION-1.ARCH.rpm`.
pub(super) fn make(arch: &Arch, installed: &[Installed], into: &Path, epoch: u64) -> Result<()> {
    let top = paths::target()?.join("dist-rpm").join(arch.name);
    paths::fresh(&top)?;
    let root = top.join("files");
    files::lay_out(installed, &root)?;
    let spec = top.join("dio-trace.spec");
    write(&spec, spec_of(installed).as_bytes())?;
    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild.args(["-bb", "--nodeps", "--target", &format!("{}-linux", arch.name)]);
    let own = [
        format!("_topdir {}", text(&top)?),
        format!("dio_version {VERSION}"),
        format!("dio_files {}", text(&root)?),
    ];
    for define in DEFINES.iter().map(|define| (*define).to_owned()).chain(own) {
        rpmbuild.args(["--define", &define]);
    }
    rpmbuild.arg(&spec).env("SOURCE_DATE_EPOCH", epoch.to_string());
    output(&mut rpmbuild)?;
    let name = format!("dio-trace-{VERSION}-1.{}.rpm", arch.name);
    let built = top.join("RPMS").join(arch.name).join(&name);
    fs::copy(&built, into.join(name))
        .map(drop)
        .with_context(|| format!("rpmbuild left no {}", built.display()))
}

/// The spec, with the list of files at its end.
fn spec_of(installed: &[Installed]) -> String {
    let mut spec = format!("{SPEC}\n%files\n");
    for file in installed {
        let kind = if file.path.starts_with("usr/share/doc/") || file.path.contains("/man/") {
            "%doc "
        } else {
            ""
        };
        let _ = writeln!(spec, "%attr({:o}, root, root) {kind}/{}", file.mode, file.path);
    }
    spec
}
