//! Roots of guests that are not this machine's own: userlands of Debian releases, made by
//! mmdebstrap and kept in the cache.
use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::host::{
    apt,
    arch::{self, Arch},
    cmd::{mask_hosts, output, say, text},
    packages, paths,
};

/// The release of the userland for guests of another architecture: that of the programs with which
/// the cells were measured.
const SUITE: &str = "bookworm";
/// What the guests' scripts use, beside the programs of the scenarios. mmdebstrap adds no essential
/// package to what it only unpacks.
const BASICS: &[&str] = &[
    "base-files",
    "base-passwd",
    "busybox-static",
    "coreutils",
    "dash",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "kmod",
    "libc-bin",
    "login",
    "mawk",
    "ncurses-base",
    "ncurses-bin",
    "perl-base",
    "procps",
    "sed",
    "tar",
    "util-linux",
];

/// The root of a guest for an architecture: this machine's own where it can be.
pub(crate) fn root(arch: &Arch) -> Result<PathBuf> {
    if arch.is_host() {
        return Ok("/".into());
    }
    let groups = [packages::SCENARIOS, packages::RARE];
    let mut wanted: Vec<&str> = packages::names(&groups).chain(BASICS.iter().copied()).collect();
    wanted.sort_unstable();
    made(SUITE, arch, &wanted.join(","))
}

/// The folder of a release's userland for this machine's architecture, with these packages (comma
/// between two) beside what every Debian system has.
pub(crate) fn of_release(suite: &str, packages: &str) -> Result<PathBuf> {
    made(suite, arch::host()?, packages)
}

/// Makes a userland once. It is a guest's root, never this machine's.
fn made(suite: &str, arch: &Arch, packages: &str) -> Result<PathBuf> {
    packages::ensure(&[packages::USERLAND])?;
    let name = if arch.is_host() { suite.to_owned() } else { format!("{suite}-{}", arch.debian) };
    let _lock = paths::lock(&format!("userland-{name}"))?;
    let folder = paths::cache()?.join("userlands").join(&name);
    // Written last: its presence says that the rest is complete.
    let complete = folder.with_extension("packages");
    if fs::read_to_string(&complete).is_ok_and(|now| now == packages) {
        return Ok(folder);
    }
    say(format!("making a userland of Debian {suite} for {} (once)", arch.debian));
    paths::fresh(&folder)?;
    let mirror = format!("deb {} {suite} main", apt::main_mirror()?);
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", &format!("--include={packages}")]);
    match arch.is_host() {
        true => command.arg("--variant=minbase"),
        // Packages' scripts cannot run here, so that they are only unpacked.
        false => command.args([
            "--variant=extract",
            &format!("--architectures={}", arch.debian),
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        ]),
    };
    output(command.args([suite, text(&folder)?, &mirror]))
        .map_err(|error| anyhow::anyhow!("{}", mask_hosts(&format!("{error:#}"))))
        .with_context(|| format!("cannot make a userland of Debian {suite}"))?;
    forget_mirror(&folder)?;
    if !arch.is_host() {
        configure(&folder)?;
    }
    fs::write(&complete, packages).context("cannot write into the cache")?;
    Ok(folder)
}

/// A guest has no network, and needs no address of a mirror.
fn forget_mirror(userland: &Path) -> Result<()> {
    let sources = userland.join("etc/apt/sources.list");
    if !sources.exists() {
        return Ok(());
    }
    fs::write(&sources, "").with_context(|| format!("cannot empty {}", sources.display()))
}

/// Does what the packages' scripts would have done, as far as guests need it.
fn configure(userland: &Path) -> Result<()> {
    for name in ["passwd", "group"] {
        let master = userland.join(format!("usr/share/base-passwd/{name}.master"));
        fs::copy(&master, userland.join("etc").join(name))
            .with_context(|| format!("cannot copy {}", master.display()))?;
    }
    let awk = userland.join("usr/bin/awk");
    if !awk.exists() {
        symlink("mawk", &awk).context("cannot link awk")?;
    }
    Ok(())
}
