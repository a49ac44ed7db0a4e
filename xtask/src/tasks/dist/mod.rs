//! `cargo xtask dist`: makes the artefacts of a release in target/dist: for each architecture a static
//! program, a tarball, a Debian and an RPM package; an OCI image of both; a bill of materials and
//! checksums.
//!
//! - [`files`]: what is installed where
//! - [`tarball`], [`deb`], [`rpm`], [`image`]: the forms it is shipped in
//! - [`sbom`]: the bill of materials
//! - [`proof`]: installs the artefacts in virtual machines
mod deb;
mod files;
mod image;
mod proof;
mod rpm;
mod sbom;
mod tarball;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    cross,
    host::{
        arch::{self, ARCHES, Arch},
        build,
        cmd::{is_static, output, run, say},
        digest::sha256,
        packages, paths,
        step_runner::Outcome,
    },
    vm::interrupts,
};

/// The version of all artefacts.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const SUMS: &str = "SHA256SUMS";
/// The largest program, in bytes.
const LARGEST: u64 = 12 << 20;

/// Build the artefacts of a release in target/dist
///
/// For x86-64 and arm64: a static program, a tarball with man pages and completions, a Debian and
/// an RPM package. For both: an OCI image, a bill of materials (CycloneDX) and checksums.
#[derive(Args)]
pub(crate) struct DistArgs {
    /// Only these architectures: x86_64, aarch64
    #[arg(long, value_name = "ARCH")]
    arch: Vec<String>,
    /// Build nothing; install the artefacts of target/dist in virtual machines and use them
    #[arg(long)]
    check: bool,
    /// With --check: only these proofs, such as debian-12
    #[arg(long, value_name = "NAME", requires = "check")]
    only: Vec<String>,
    /// Build everything a second time in another folder, and compare
    #[arg(long, conflicts_with = "check")]
    twice: bool,
}

pub(crate) fn main(args: &DistArgs) -> Result<u8> {
    interrupts::catch_interrupts();
    let folder = folder()?;
    if args.check {
        return proof::main(&folder, &args.only);
    }
    let arches = chosen(&args.arch)?;
    let start = Instant::now();
    make(&arches, &folder)?;
    table(&folder)?;
    say(format!("built in {} s; now `cargo xtask dist --check`", start.elapsed().as_secs()));
    if args.twice {
        again(args, &folder)?;
    }
    Ok(0)
}

/// Builds the artefacts for this machine's architecture, and installs and uses the Debian package in
/// a virtual machine: for `cargo xtask test`.
pub(crate) fn installed() -> Result<Outcome> {
    let arch = arch::find(proof::ARCH)?;
    let folder = paths::target()?.join("dist-test");
    make(&[arch], &folder)?;
    proof::one("debian-12", &folder)
}

/// The folder of the artefacts.
fn folder() -> Result<PathBuf> {
    Ok(paths::target()?.join("dist"))
}

fn chosen(names: &[String]) -> Result<Vec<&'static Arch>> {
    match names {
        [] => Ok(ARCHES.iter().collect()),
        names => names.iter().map(|name| arch::find(name)).collect(),
    }
}

fn make(arches: &[&Arch], folder: &Path) -> Result<()> {
    packages::ensure(&[packages::DIST])?;
    paths::fresh(folder)?;
    let epoch = epoch()?;
    let mut programs = Vec::new();
    for arch in arches {
        programs.push((*arch, program(arch)?));
    }
    let documents = documents(&programs)?;
    for (arch, program) in &programs {
        let installed = files::installed(program, &documents)?;
        tarball::make(arch, &installed, folder, epoch)?;
        deb::make(arch, &installed, folder, epoch)?;
        rpm::make(arch, &installed, folder, epoch)?;
        sbom::make(arch, folder, epoch)?;
    }
    image::make(&programs, folder, epoch)?;
    sums(folder)
}

/// Builds the program that is shipped, and returns its path.
fn program(arch: &Arch) -> Result<PathBuf> {
    let program = cross::release(arch, &["dio-trace"], "symbols")?.join("dio-trace");
    examine(&program)?;
    Ok(program)
}

/// Fails if the program needs shared libraries or is larger than promised.
fn examine(program: &Path) -> Result<()> {
    let size = fs::metadata(program).context("cargo left no program")?.len();
    if !is_static(program) {
        bail!("{} needs shared libraries", program.display());
    }
    if size > LARGEST {
        bail!("{} has {size} bytes, more than {LARGEST}", program.display());
    }
    Ok(())
}

/// Man pages and completions, written by a program that runs on this machine.
fn documents(programs: &[(&Arch, PathBuf)]) -> Result<files::Documents> {
    match programs.iter().find(|(arch, _)| arch.is_host()) {
        Some((_, program)) => files::Documents::make(program),
        None => files::Documents::make(&build::release(&["dio-trace"])?.join("dio-trace")),
    }
}

/// The time of everything in the artefacts, in seconds since 1970: SOURCE_DATE_EPOCH, or the time of
/// the commit.
fn epoch() -> Result<u64> {
    let text = match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            let mut git = Command::new("git");
            git.args(["log", "-1", "--format=%ct"]).current_dir(paths::workspace()?);
            output(&mut git).context("outside a git checkout set SOURCE_DATE_EPOCH")?
        }
    };
    text.trim().parse().with_context(|| format!("`{text}` is not a number of seconds"))
}

/// Writes SHA256SUMS, as `sha256sum -c` reads it.
fn sums(folder: &Path) -> Result<()> {
    let mut text = String::new();
    for path in artefacts(folder)? {
        text += &format!("{}  {}\n", sha256(&read(&path)?), file_name(&path));
    }
    write(&folder.join(SUMS), text.as_bytes())
}

/// The files of target/dist, by name.
fn artefacts(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| {
        format!("cannot read {}: run `cargo xtask dist` first", folder.display())
    })?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .collect();
    found.sort();
    Ok(found)
}

fn table(folder: &Path) -> Result<()> {
    for path in artefacts(folder)? {
        let bytes = fs::metadata(&path).with_context(|| format!("no {}", path.display()))?.len();
        println!("{bytes:>10}  {}", file_name(&path));
    }
    Ok(())
}

/// Builds the same commit in a clone in another folder, and compares the checksums.
fn again(args: &DistArgs, folder: &Path) -> Result<()> {
    let clone = env::temp_dir().join(format!("dio-trace-dist-{}", std::process::id()));
    paths::remove(&clone)?;
    let mut git = Command::new("git");
    output(git.args(["clone", "-q"]).arg(paths::workspace()?).arg(&clone))?;
    let mut xtask = Command::new(paths::own_program()?);
    xtask
        .arg("dist")
        .args(args.arch.iter().map(|arch| format!("--arch={arch}")))
        .current_dir(&clone)
        .env("CARGO_MANIFEST_DIR", &clone)
        .env_remove("CARGO_TARGET_DIR");
    run(&mut xtask).context("the second build failed")?;
    let (first, second) = (read(&folder.join(SUMS))?, read(&clone.join("target/dist").join(SUMS))?);
    if first != second {
        bail!(
            "two builds of this commit differ: compare {} with {}",
            folder.display(),
            clone.join("target/dist").display()
        );
    }
    say("a second build in another folder is equal byte for byte");
    paths::remove(&clone)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
