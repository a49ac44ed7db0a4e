//! Builds the eBPF object reproducibly from source.
//!
//! The object is committed so that users need only stable Rust. Every checkout builds the same
//! bytes: paths are remapped, symbol hashes do not depend on paths (see [`rustc`]), and the release
//! profile is fixed here. [`strip`] removes the debug information.
pub(crate) mod rustc;
mod strip;
pub(crate) mod toolchain;

use std::{env, fs, path::Path};

use anyhow::{Context, Result, bail};

use crate::host::{
    cmd::{run, say},
    paths,
};

use toolchain::{Pins, Toolchain};

/// The path of the committed object, relative to the checkout.
pub(crate) const OBJECT: &str = "dio-trace/bpf/dio-trace.bpf.o";

/// The result of [`check`] if the object is not known to differ.
pub(crate) enum Checked {
    /// The committed object is what its source builds.
    Same,
    /// The pinned toolchain is not available here, for this reason.
    Unable(String),
}

/// Builds the object and writes it to `output`, or else to [`OBJECT`] in the checkout. `toolchain`
/// is the name of a rustup toolchain to use instead of the pinned one.
pub(crate) fn write(toolchain: Option<&str>, output: Option<&Path>) -> Result<()> {
    let pins = toolchain::pins()?;
    let toolchain = match toolchain {
        Some(name) => Toolchain::named(name)?,
        None => Toolchain::pinned(&pins)?,
    };
    let workspace = paths::workspace()?;
    let object = build(&pins, &toolchain, &workspace.join("target/bpf"))?;
    let committed = workspace.join(OBJECT);
    let into = output.unwrap_or(&committed);
    if let Some(folder) = into.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    // An unchanged object keeps its modification time, so that cargo does not rebuild the crate
    // that includes it.
    let same = fs::read(into).is_ok_and(|old| old == object);
    if !same {
        fs::write(into, &object).with_context(|| format!("cannot write {}", into.display()))?;
    }
    println!(
        "{} ({} bytes{})",
        into.display(),
        object.len(),
        if same { ", unchanged" } else { "" }
    );
    Ok(())
}

/// Rebuilds the object in target/bpf-check and compares it with the committed one.
///
/// # Errors
///
/// If they differ. With the variable `CI` set, also if the pinned toolchain is not available.
pub(crate) fn check() -> Result<Checked> {
    let pins = toolchain::pins()?;
    let toolchain = match Toolchain::pinned(&pins) {
        Ok(toolchain) => toolchain,
        Err(error) if env::var_os("CI").is_none() => {
            return Ok(Checked::Unable(format!("{error:#}")));
        }
        Err(error) => return Err(error.context("under CI the object must be checked")),
    };
    let workspace = paths::workspace()?;
    let built = build(&pins, &toolchain, &workspace.join("target/bpf-check"))?;
    let path = workspace.join(OBJECT);
    let committed = fs::read(&path)
        .with_context(|| format!("cannot read {OBJECT}: run `cargo xtask bpf` and commit it"))?;
    if committed != built {
        let aside = workspace.join("target/bpf-check/dio-trace.bpf.o");
        fs::write(&aside, &built).with_context(|| format!("cannot write {}", aside.display()))?;
        let at = committed.iter().zip(&built).position(|(a, b)| a != b);
        bail!(
            "{OBJECT} is not what its source builds ({} bytes committed, {} built, first difference \
             at {}). Run `cargo xtask bpf` and commit the object with its source. The rebuilt \
             object is {}",
            committed.len(),
            built.len(),
            at.unwrap_or(committed.len().min(built.len())),
            aside.display()
        );
    }
    Ok(Checked::Same)
}

fn build(pins: &Pins, toolchain: &Toolchain, target: &Path) -> Result<Vec<u8>> {
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
        .env("RUSTC_BOOTSTRAP", "1")
        .env("__CARGO_TESTS_ONLY_SRC_ROOT", link.join("library"))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        // The release profile of the workspace must not affect the object.
        .env("CARGO_PROFILE_RELEASE_LTO", "off")
        .env("CARGO_PROFILE_RELEASE_STRIP", "none")
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "2")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1");
    say("building the eBPF object");
    run(&mut command).context("the eBPF crate does not build")?;
    let linked = target.join(rustc::TARGET).join("release/dio-trace-ebpf");
    let bytes = fs::read(&linked).with_context(|| format!("cannot read {}", linked.display()))?;
    strip::debug(&bytes).with_context(|| format!("cannot strip {}", linked.display()))
}
