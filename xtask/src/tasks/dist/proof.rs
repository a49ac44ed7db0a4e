//! `cargo xtask dist --check`: installs each artefact where it will be used, traces there, and removes
//! it. Each proof is a script that runs in a virtual machine and fails at the first wrong answer.
use std::{env, fs, path::Path, process::Command, time::Duration};

use anyhow::{Result, bail};

use super::{VERSION, artefacts};
use crate::{
    host::{
        arch::ARCHES,
        build,
        cmd::{output, run, text},
        packages, paths,
        step_runner::{self, Outcome, Step, timed},
    },
    vm::{boot::Setup, interrupts, kernels, running, userland},
};

/// How long one proof may take.
const LIMIT: Duration = Duration::from_secs(15 * 60);
const SCRIPTS: &str = "xtask/src/tasks/dist/proofs";

/// What the proofs use, beside what every Debian system has.
const PACKAGES: &str = "kmod,man-db,bash-completion,systemd,procps,e2fsprogs,rpm,zstd";

/// The architecture of the virtual machines.
pub(super) const ARCH: &str = "x86_64";

/// A proof in a virtual machine.
struct Proof {
    name: &'static str,
    /// The kernel of that release.
    kernel: &'static str,
    /// The Debian release whose userland is the guest's root; `None`: this machine's.
    suite: Option<&'static str>,
    /// True if that release's systemd is the guest's first process.
    systemd: bool,
    /// The script in [`SCRIPTS`].
    script: &'static str,
}

const fn proof(name: &'static str, kernel: &'static str, script: &'static str) -> Proof {
    Proof { name, kernel, suite: None, systemd: false, script }
}

const PROOFS: &[Proof] = &[
    Proof { suite: Some("bullseye"), ..proof("debian-11", "5.10", "debian.sh") },
    Proof { suite: Some("bookworm"), ..proof("debian-12", "6.1", "debian.sh") },
    Proof { suite: Some("trixie"), ..proof("debian-13", "6.12", "debian.sh") },
    Proof { suite: Some("bookworm"), ..proof("rpm", "6.12", "rpm.sh") },
    Proof { suite: Some("bookworm"), systemd: true, ..proof("service", "6.12", "service.sh") },
    proof("tarball", "6.12", "tarball.sh"),
    proof("image", "6.12", "image.sh"),
];
/// A proof that needs no virtual machine; it takes the folder of the artefacts.
type OnHost = fn(&Path) -> Result<Outcome>;

const ON_HOST: &[(&str, OnHost)] = &[("cargo", cargo), ("aarch64", aarch64)];

/// Runs the proofs, or those of `only`, on the artefacts in `folder`.
pub(super) fn main(folder: &Path, only: &[String]) -> Result<u8> {
    let known: Vec<&str> = names().collect();
    if let Some(unknown) = only.iter().find(|name| !known.contains(&name.as_str())) {
        bail!("no proof is called `{unknown}`; there are {}", known.join(", "));
    }
    if artefacts(folder)?.is_empty() {
        bail!("{} is empty: run `cargo xtask dist` first", folder.display());
    }
    packages::ensure(&[packages::VM, packages::USERLAND, packages::PROOFS])?;
    let start = std::time::Instant::now();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|one| one == name);
    let mut steps: Vec<Step> = Vec::new();
    for (name, proof) in ON_HOST.iter().filter(|(name, _)| wanted(name)) {
        steps.push(timed(name, || proof(folder)));
    }
    for proof in PROOFS.iter().filter(|proof| wanted(proof.name)) {
        interrupts::stop_if_interrupted()?;
        steps.push(timed(proof.name, || carry_out(proof, folder)));
    }
    step_runner::table(&steps, start.elapsed());
    Ok(step_runner::close(&steps))
}

/// Carries out one proof that needs a virtual machine and a Debian release's userland.
pub(super) fn one(name: &str, folder: &Path) -> Result<Outcome> {
    packages::ensure(&[packages::VM, packages::USERLAND])?;
    match PROOFS.iter().find(|proof| proof.name == name) {
        Some(proof) => carry_out(proof, folder),
        None => bail!("no proof is called `{name}`"),
    }
}

fn names() -> impl Iterator<Item = &'static str> {
    ON_HOST.iter().map(|(name, _)| *name).chain(PROOFS.iter().map(|proof| proof.name))
}

fn carry_out(proof: &Proof, folder: &Path) -> Result<Outcome> {
    let mut setup = Setup::new(kernels::find(proof.kernel, None)?);
    if let Some(suite) = proof.suite {
        setup.root = Some(userland::of_release(suite, PACKAGES)?);
    }
    setup.systemd = proof.systemd;
    let script = paths::workspace()?.join(SCRIPTS).join(proof.script);
    let command = ["bash", text(&script)?, text(folder)?, VERSION].map(str::to_owned);
    Ok(match setup.once(&command, Some(LIMIT), &mut running::to_terminal)? {
        0 => Outcome::Passed,
        code => Outcome::Failed(format!("{} ended with {code}", proof.script)),
    })
}

/// Packs the crates as crates.io would have them, and installs the program from the packed files.
fn cargo(_: &Path) -> Result<Outcome> {
    let target = paths::target()?.join("dist-cargo");
    let mut package = build::cargo()?;
    package
        .args(["package", "--locked", "--no-verify", "--allow-dirty"])
        .args(["--package", "dio-trace-common", "--package", "dio-trace", "--target-dir"])
        .arg(&target);
    run(&mut package)?;
    let folder = env::temp_dir().join(format!("dio-trace-cargo-{}", std::process::id()));
    paths::fresh(&folder)?;
    for name in ["dio-trace-common", "dio-trace"] {
        let packed = target.join("package").join(format!("{name}-{VERSION}.crate"));
        run(Command::new("tar").arg("-xzf").arg(&packed).arg("-C").arg(&folder))?;
    }
    let at = |name: &str| folder.join(format!("{name}-{VERSION}"));
    let common = at("dio-trace-common");
    let mut install = build::cargo()?;
    install
        .args(["install", "--locked", "--path"])
        .arg(at("dio-trace"))
        .arg("--root")
        .arg(folder.join("root"))
        // It is not on crates.io yet.
        .args(["--config", &format!("patch.crates-io.dio-trace-common.path={:?}", text(&common)?)])
        .env("CARGO_TARGET_DIR", target.join("build"))
        .current_dir(&folder);
    run(&mut install)?;
    let says = output(Command::new(folder.join("root/bin/dio-trace")).arg("--version"))?;
    if !says.contains(VERSION) {
        bail!("the installed program says `{says}`");
    }
    for arch in ARCHES {
        let name = format!("bpf/dio-trace.{}.bpf.o", arch.name);
        let object = fs::metadata(at("dio-trace").join(&name));
        if !object.is_ok_and(|object| object.len() > 0) {
            bail!("the packed crate has no {name}");
        }
    }
    paths::remove(&folder)?;
    Ok(Outcome::Passed)
}

/// Starts the arm64 program under QEMU's user emulation. It cannot trace there.
fn aarch64(folder: &Path) -> Result<Outcome> {
    let work = paths::target()?.join("dist-aarch64");
    paths::fresh(&work)?;
    let name = format!("dio-trace-{VERSION}-aarch64-linux");
    let tarball = folder.join(format!("{name}.tar.zst"));
    run(Command::new("tar").arg("--zstd").arg("-xf").arg(&tarball).arg("-C").arg(&work))?;
    let mut program = Command::new("qemu-aarch64-static");
    let says = output(program.arg(work.join(&name).join("dio-trace")).arg("--version"))?;
    if !says.contains(VERSION) {
        bail!("the arm64 program says `{says}`");
    }
    Ok(Outcome::Passed)
}
