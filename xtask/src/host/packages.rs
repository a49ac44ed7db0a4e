//! What the host must have, and getting it.
use std::process::Command;

use anyhow::{Result, bail};

use crate::host::cmd::{is_static, output, quote, say, shown, which};

/// A program and the Debian package it comes in.
pub(crate) struct Need {
    tool: &'static str,
    package: &'static str,
}

const fn need(tool: &'static str, package: &'static str) -> Need {
    Need { tool, package }
}

/// To boot a VM at all.
pub(crate) const VM: &[Need] = &[
    need("qemu-system-x86_64", "qemu-system-x86"),
    need("busybox", "busybox-static"),
    need("depmod", "kmod"),
    need("xz", "xz-utils"),
];

/// What the scenarios use; the guest sees the host's programs.
pub(crate) const SCENARIOS: &[Need] = &[
    need("mkfs.ext4", "e2fsprogs"),
    need("mkfs.xfs", "xfsprogs"),
    need("mkfs.btrfs", "btrfs-progs"),
    need("mkfs.f2fs", "f2fs-tools"),
    need("mkfs.vfat", "dosfstools"),
    need("mksquashfs", "squashfs-tools"),
    need("mkfs.erofs", "erofs-utils"),
    need("bindfs", "bindfs"),
    need("dmsetup", "dmsetup"),
    need("sfdisk", "fdisk"),
    need("mount", "mount"),
    need("bash", "bash"),
    need("tmux", "tmux"),
];

/// What the rare set-ups use besides.
pub(crate) const RARE: &[Need] = &[
    need("mkfs.exfat", "exfatprogs"),
    need("mkntfs", "ntfs-3g"),
    need("mkfs.jfs", "jfsutils"),
    need("mkfs.nilfs2", "nilfs-tools"),
    need("mkfs.udf", "udftools"),
    need("mkfs.gfs2", "gfs2-utils"),
    need("mkfs.ocfs2", "ocfs2-tools"),
    need("xorrisofs", "xorriso"),
    need("fsverity", "fsverity"),
    need("exportfs", "nfs-kernel-server"),
    need("mount.nfs4", "nfs-common"),
];

/// What dio-trace is compared with, and what lists programs.
pub(crate) const PEERS: &[Need] =
    &[need("bpftrace", "bpftrace"), need("perf", "linux-perf"), STRACE, need("bpftool", "bpftool")];

/// Of `cargo xtask apps`, a group for each program.
pub(crate) const FIO: &[Need] = &[need("fio", "fio")];
pub(crate) const QEMU: &[Need] = &[need("qemu-img", "qemu-utils"), STRACE];
pub(crate) const ROCKSDB: &[Need] = &[need("db_bench", "rocksdb-tools"), STRACE];
pub(crate) const MARIADB: &[Need] =
    &[need("mariadbd", "mariadb-server-core"), need("mariadb", "mariadb-client-core"), STRACE];
pub(crate) const TRACED: &[Need] = &[STRACE];
const STRACE: Need = need("strace", "strace");

/// To look at a page.
pub(crate) const BROWSER: &[Need] = &[need("chromium-headless-shell", "chromium-headless-shell")];

/// For packages of PyPI.
pub(crate) const PYTHON: &[Need] = &[need("python3", "python3-venv")];

/// libFuzzer is C++.
pub(crate) const FUZZ: &[Need] = &[need("c++", "g++")];

/// To fetch Debian packages without touching the system's apt.
pub(crate) const APT: &[Need] =
    &[need("apt-get", "apt"), need("dpkg-deb", "dpkg"), need("tar", "tar")];

/// Makes sure that all of these are there, installing what is missing where that is possible
/// without a question; else says what to install, and stops.
pub(crate) fn ensure(needs: &[&[Need]]) -> Result<()> {
    let mut packages: Vec<&str> = needs
        .iter()
        .flat_map(|group| group.iter())
        .filter(|need| !present(need.tool))
        .map(|need| need.package)
        .collect();
    packages.sort_unstable();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let Some(apt) = which("apt-get") else {
        bail!(
            "missing on this machine (by their Debian package names): {}. \
             Install them with this distribution's package manager and run it again.",
            packages.join(" ")
        );
    };
    let apt = apt.to_string_lossy().into_owned();
    let mut install = vec![apt.as_str(), "install", "-y", "--no-install-recommends"];
    install.extend(&packages);
    if !is_root() && !sudo_is_free() {
        let words: Vec<String> = install.iter().map(|word| quote(word)).collect();
        bail!(
            "missing on this machine: {}. Install it and run this again:\n  sudo {}",
            packages.join(" "),
            words.join(" ")
        );
    }
    say(format!("missing on this machine: {}", packages.join(" ")));
    // The lists may be empty, as on a new machine, or too old to install from.
    if packages.iter().any(|package| !is_listed(package)) {
        as_root(&[&apt, "update", "-q"])?;
        as_root(&install)?;
    } else if let Err(error) = as_root(&install) {
        say(format!("{error:#}"));
        say("again with fresh package lists");
        as_root(&[&apt, "update", "-q"])?;
        as_root(&install)?;
    }
    let still: Vec<&str> = needs
        .iter()
        .flat_map(|group| group.iter())
        .filter(|need| !present(need.tool))
        .map(|need| need.tool)
        .collect();
    if !still.is_empty() {
        bail!("apt installed {}, yet still missing: {}", packages.join(" "), still.join(" "));
    }
    Ok(())
}

fn present(tool: &str) -> bool {
    match which(tool) {
        // Debian's package `busybox` is linked dynamically and useless in an initramfs.
        Some(path) if tool == "busybox" => is_static(&path),
        Some(_) => true,
        None => false,
    }
}

/// Whether apt knows a version of it to install.
fn is_listed(package: &str) -> bool {
    let listed = Command::new("apt-cache").args(["show", "--no-all-versions", package]).output();
    listed.is_ok_and(|out| out.status.success() && !out.stdout.is_empty())
}

fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// sudo that asks nothing.
fn sudo_is_free() -> bool {
    output(Command::new("sudo").args(["-n", "true"])).is_ok()
}

fn as_root(words: &[&str]) -> Result<()> {
    let mut command = Command::new(if is_root() { "env" } else { "sudo" });
    if !is_root() {
        command.args(["-n", "env"]);
    }
    command.arg("DEBIAN_FRONTEND=noninteractive").args(words);
    say(format!("+ {}", shown(&command)));
    // Quiet: apt names its mirrors in every line, and those are this machine's own business. An
    // error shows what it said.
    output(&mut command).map(drop)
}
