//! The programs that xtask needs on the host, and their installation from Debian packages.
use std::process::Command;

use anyhow::{Result, bail};

use crate::host::cmd::{is_static, output, quote, say, shown, which};

/// A program and the Debian package that contains it.
#[derive(Debug)]
pub(crate) struct Need {
    tool: &'static str,
    package: &'static str,
}

const fn need(tool: &'static str, package: &'static str) -> Need {
    Need { tool, package }
}

/// Needed to boot VMs of an architecture.
pub(crate) const QEMU_X86_64: &[Need] = &[need("qemu-system-x86_64", "qemu-system-x86")];
/// As [`QEMU_X86_64`], with the firmware that the machine's devices load.
pub(crate) const QEMU_AARCH64: &[Need] = &[need("qemu-system-aarch64", "qemu-system-arm")];

/// Needed to boot any VM.
pub(crate) const VM: &[Need] =
    &[need("busybox", "busybox-static"), need("depmod", "kmod"), need("xz", "xz-utils")];

/// Needed by the scenarios: the guest runs the host's programs.
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

/// Needed in addition by the rare fixtures, which only `cargo xtask truth` runs.
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

/// Needed by `cargo xtask bench`: the tracers that dio-trace is compared with, and bpftool, which
/// lists eBPF programs.
pub(crate) const PEERS: &[Need] =
    &[need("bpftrace", "bpftrace"), need("perf", "linux-perf"), STRACE, need("bpftool", "bpftool")];

/// Needed by `cargo xtask apps` for fio.
pub(crate) const FIO: &[Need] = &[need("fio", "fio")];
/// Needed by `cargo xtask apps` for QEMU.
pub(crate) const QEMU: &[Need] = &[need("qemu-img", "qemu-utils"), STRACE];
/// Needed by `cargo xtask apps` for RocksDB.
pub(crate) const ROCKSDB: &[Need] = &[need("db_bench", "rocksdb-tools"), STRACE];
/// Needed by `cargo xtask apps` for MariaDB.
pub(crate) const MARIADB: &[Need] =
    &[need("mariadbd", "mariadb-server-core"), need("mariadb", "mariadb-client-core"), STRACE];
/// Needed by `cargo xtask apps` for programs that come from PyPI and are counted by strace.
pub(crate) const TRACED: &[Need] = &[STRACE];
const STRACE: Need = need("strace", "strace");

/// Needed to show an HTML page.
pub(crate) const BROWSER: &[Need] = &[need("chromium-headless-shell", "chromium-headless-shell")];

/// Needed by Spark.
pub(crate) const JAVA: &[Need] = &[need("java", "openjdk-17-jre-headless")];

/// Needed for packages of PyPI.
pub(crate) const PYTHON: &[Need] = &[need("python3", "python3-venv")];

/// Needed to build the fuzz targets: libFuzzer is C++.
pub(crate) const FUZZ: &[Need] = &[need("c++", "g++")];

/// Needed by `cargo xtask dist` to compile for an architecture.
pub(crate) const GCC_X86_64: &[Need] = &[need("x86_64-linux-gnu-gcc", "gcc-x86-64-linux-gnu")];
/// As [`GCC_X86_64`], with the C library's headers, for arm64.
pub(crate) const GCC_AARCH64: &[Need] = &[need("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu")];
/// Needed by `cargo xtask dist` to make packages.
pub(crate) const DIST: &[Need] = &[need("dpkg-deb", "dpkg"), need("rpmbuild", "rpm")];
/// Needed for the userlands of Debian releases.
pub(crate) const USERLAND: &[Need] = &[need("mmdebstrap", "mmdebstrap")];
/// Needed by `cargo xtask dist --check`, in addition to [`VM`] and [`USERLAND`]: the tools that unpack
/// an OCI image, and a container runtime.
pub(crate) const PROOFS: &[Need] = &[
    need("skopeo", "skopeo"),
    need("umoci", "umoci"),
    need("crun", "crun"),
    need("qemu-aarch64-static", "qemu-user-static"),
];

/// Needed to fetch Debian packages without touching the system's apt.
pub(crate) const APT: &[Need] =
    &[need("apt-get", "apt"), need("dpkg-deb", "dpkg"), need("tar", "tar")];

/// The packages of these groups.
pub(crate) fn names(needs: &[&'static [Need]]) -> impl Iterator<Item = &'static str> {
    needs.iter().flat_map(|group| group.iter()).map(|need| need.package)
}

/// Installs the programs of these groups that are missing.
///
/// # Errors
///
/// If installing would need a password or apt is missing; the error says what to install.
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
             Install them with this distribution's package manager and run this again.",
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
        say("trying again with fresh package lists");
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

/// Whether apt knows a version of this package to install.
fn is_listed(package: &str) -> bool {
    let listed = Command::new("apt-cache").args(["show", "--no-all-versions", package]).output();
    listed.is_ok_and(|out| out.status.success() && !out.stdout.is_empty())
}

fn is_root() -> bool {
    // SAFETY: geteuid has no preconditions and cannot fail.
    unsafe { libc::geteuid() == 0 }
}

/// Whether sudo works without a password.
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
    // apt's output is not shown: each line names a mirror, which does not belong in a log. An error
    // contains it.
    output(&mut command).map(drop)
}
