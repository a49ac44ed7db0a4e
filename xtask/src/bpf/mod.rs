//! Builds the eBPF objects reproducibly from source, one for each architecture.
//!
//! They are committed so that users need only stable Rust. Every checkout builds the same
//! bytes: paths are remapped, symbol hashes do not depend on paths (see [`rustc`]), and the release
//! profile is fixed here. [`strip`] removes the debug information.
pub(crate) mod rustc;
mod strip;
pub(crate) mod toolchain;

use std::{env, fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::host::{
    arch::{ARCHES, Arch},
    cmd::{run, say},
    digest::sha256,
    paths,
};

use toolchain::{Pins, Toolchain};

/// The result of [`check`] if no object is known to differ.
pub(crate) enum Checked {
    /// The committed objects are what their source builds.
    Same,
    /// The pinned toolchain is not available here, for this reason.
    Unable(String),
}

/// The path of the committed object for an architecture, relative to the checkout.
fn object(arch: &Arch) -> String {
    format!("dio-trace/bpf/{}", file_name(arch))
}

/// The begin of the SHA-256 of the committed object for an architecture, to name a state of it.
pub(crate) fn digest(arch: &Arch) -> Result<String> {
    let name = object(arch);
    let bytes =
        fs::read(paths::workspace()?.join(&name)).with_context(|| format!("cannot read {name}"))?;
    Ok(sha256(&bytes)[..12].to_owned())
}

fn file_name(arch: &Arch) -> String {
    format!("dio-trace.{}.bpf.o", arch.name)
}

/// Builds the objects and writes them to the folder `into`, or else to their places in the
/// checkout. `toolchain` is the name of a rustup toolchain to use instead of the pinned one.
pub(crate) fn write(toolchain: Option<&str>, into: Option<&Path>) -> Result<()> {
    let pins = toolchain::pins()?;
    let toolchain = match toolchain {
        Some(name) => Toolchain::named(name)?,
        None => Toolchain::pinned(&pins)?,
    };
    let workspace = paths::workspace()?;
    for arch in ARCHES {
        let built = build(arch, &pins, &toolchain, &workspace.join("target/bpf"))?;
        let path = into.map_or_else(|| workspace.join(object(arch)), |it| it.join(file_name(arch)));
        put(&path, &built)?;
    }
    Ok(())
}

/// Writes an object, unless the file holds it already: an unchanged object keeps its modification
/// time, so that cargo does not rebuild the crate that includes it.
fn put(path: &Path, object: &[u8]) -> Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let same = fs::read(path).is_ok_and(|old| old == object);
    if !same {
        fs::write(path, object).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let unchanged = if same { ", unchanged" } else { "" };
    println!("{} ({} bytes{unchanged})", path.display(), object.len());
    Ok(())
}

/// Rebuilds the objects in target/bpf-check and compares them with the committed ones.
///
/// # Errors
///
/// If one differs. With the variable `CI` set, also if the pinned toolchain is not available.
pub(crate) fn check() -> Result<Checked> {
    let pins = toolchain::pins()?;
    let toolchain = match Toolchain::pinned(&pins) {
        Ok(toolchain) => toolchain,
        Err(error) if env::var_os("CI").is_none() => {
            return Ok(Checked::Unable(format!("{error:#}")));
        }
        Err(error) => return Err(error.context("under CI the objects must be checked")),
    };
    let folder = paths::workspace()?.join("target/bpf-check");
    for arch in ARCHES {
        compare(arch, &build(arch, &pins, &toolchain, &folder)?, &folder)?;
    }
    Ok(Checked::Same)
}

/// Fails if the committed object is not `built`, which is then kept in `folder`.
fn compare(arch: &Arch, built: &[u8], folder: &Path) -> Result<()> {
    let name = object(arch);
    let committed = fs::read(paths::workspace()?.join(&name))
        .with_context(|| format!("cannot read {name}: run `cargo xtask bpf` and commit it"))?;
    if committed == built {
        return Ok(());
    }
    let aside = folder.join(file_name(arch));
    fs::write(&aside, built).with_context(|| format!("cannot write {}", aside.display()))?;
    let at = committed.iter().zip(built).position(|(a, b)| a != b);
    bail!(
        "{name} is not what its source builds ({} bytes committed, {} built, first difference at \
         {}). Run `cargo xtask bpf` and commit the objects with their source. The rebuilt object is \
         {}",
        committed.len(),
        built.len(),
        at.unwrap_or(committed.len().min(built.len())),
        aside.display()
    )
}

/// Builds the object for an architecture in the cargo target folder `target`.
fn build(arch: &Arch, pins: &Pins, toolchain: &Toolchain, target: &Path) -> Result<Vec<u8>> {
    let workspace = paths::workspace()?;
    let linker = toolchain.bpf_linker(pins)?;
    let rust_src = toolchain.rust_src(pins)?;
    fs::create_dir_all(target).with_context(|| format!("cannot make {}", target.display()))?;
    let link = toolchain::linked(&rust_src)?;
    let mut flags = vec!["-Cdebuginfo=2".to_owned(), "-Clink-arg=--btf".to_owned()];
    flags.extend(toolchain::remapped(&rust_src, &link)?);
    let mut command = toolchain.command("cargo");
    toolchain::clean_env(&mut command);
    command
        .args(["build", "--locked", "--package", "dio-trace-ebpf", "--release"])
        .args(["-Z", "build-std=core", "--target", rustc::TARGET, "--target-dir"])
        .arg(target)
        .current_dir(&workspace)
        .env("RUSTC_WRAPPER", paths::own_program()?)
        .env(rustc::MARK, "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker)
        // What aya-ebpf reads the registers of a kprobe by.
        .env("AYA_BPF_TARGET_ARCH", arch.name)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("__CARGO_TESTS_ONLY_SRC_ROOT", link.join("library"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        // The release profile of the workspace must not affect the object.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    say(format!("building the eBPF object for {}", arch.name));
    run(&mut command).context("the eBPF crate does not build")?;
    let linked = target.join(rustc::TARGET).join("release/dio-trace-ebpf");
    let bytes = fs::read(&linked).with_context(|| format!("cannot read {}", linked.display()))?;
    strip::debug(&bytes).with_context(|| format!("cannot strip {}", linked.display()))
}
