//! Builds static programs for an architecture: the program of a release, and what guests of another
//! architecture run.
mod musl;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::{
    bpf::{
        rustc,
        toolchain::{self, Toolchain},
    },
    host::{
        arch::Arch,
        build,
        cmd::{run, say},
        packages, paths,
    },
};

use musl::Musl;

/// The standard library's source, by a path that is the same in every checkout and for every user:
/// cargo hashes it into the names of files, by which link-time optimization orders functions.
const RUST_SRC: &str = "/tmp/dio-trace-rust-src";
/// cargo's folder for these builds, in the target folder.
const BUILD: &str = "dist-build";
const FLAGS: &[&str] = &["-Ctarget-feature=+crt-static", "-Clink-self-contained=yes"];

/// Builds what guests of an architecture run, dio-trace and xtask, and returns the folder with them.
pub(crate) fn programs(arch: &Arch) -> Result<PathBuf> {
    const PACKAGES: &[&str] = &["dio-trace", "xtask"];
    // The scenario of stacks needs the names of functions.
    if arch.is_host() { build::release(PACKAGES) } else { release(arch, PACKAGES, "debuginfo") }
}

/// The folder of what [`programs`] builds.
pub(crate) fn folder(arch: &Arch) -> Result<PathBuf> {
    let target = paths::target()?;
    Ok(match arch.is_host() {
        true => target.join("release"),
        false => target.join(BUILD).join(arch.target).join("release"),
    })
}

/// Builds the programs of these packages and returns the folder with them.
///
/// `strip` is what is left out of them, as cargo's profile setting has it.
pub(crate) fn release(arch: &Arch, packages: &[&str], strip: &str) -> Result<PathBuf> {
    packages::ensure(&[arch.compiler])?;
    let pins = toolchain::pins()?;
    let rustc = Toolchain::pinned(&pins)?;
    let musl = musl::unpacked(arch)?;
    let rust_src = rustc.rust_src(&pins)?;
    let link = toolchain::linked_at(&rust_src, RUST_SRC.into())?;
    let target = paths::target()?.join(BUILD);
    let variable = |prefix: &str| format!("{prefix}_{}", arch.target.replace('-', "_"));
    let mut command = rustc.command("cargo");
    toolchain::clean_env(&mut command);
    command
        .args(["build", "--locked", "--release"])
        .args(packages.iter().flat_map(|package| ["--package", package]))
        .args(["-Z", "build-std=std,panic_unwind", "--target", arch.target, "--target-dir"])
        .arg(&target)
        .current_dir(paths::workspace()?)
        // build-std is not stable, and rustc asks for this variable to allow it.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC_WRAPPER", paths::own_program()?)
        .env(rustc::MARK, "1")
        .env("__CARGO_TESTS_ONLY_SRC_ROOT", link.join("library"))
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        .env(rustc::FLAGS, paths_in(&musl, &rust_src, &link, &target)?.join("\u{1f}"))
        .env("CARGO_PROFILE_RELEASE_STRIP", strip)
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env(variable("CARGO_TARGET").to_uppercase() + "_LINKER", arch.gcc)
        .env(variable("CC"), arch.gcc)
        .env(variable("CFLAGS"), c_flags(arch, &musl, &target)?.join(" "));
    let named = packages.join(" and ");
    say(format!("building {named} for {}", arch.name));
    run(&mut command).with_context(|| format!("{named} does not build for {}", arch.name))?;
    Ok(target.join(arch.target).join("release"))
}

/// Flags that have absolute paths.
fn paths_in(musl: &Musl, rust_src: &Path, link: &Path, target: &Path) -> Result<Vec<String>> {
    let mut flags = vec![
        format!("-Lnative={}", musl.libraries.display()),
        format!("--remap-path-prefix={}=/dio-trace/target", target.display()),
    ];
    flags.extend(toolchain::remapped(rust_src, link)?);
    Ok(flags)
}

fn c_flags(arch: &Arch, musl: &Musl, target: &Path) -> Result<Vec<String>> {
    let mut flags = musl::flags(arch, musl)?;
    let hidden = [Some(target.to_owned()), toolchain::cargo_home()];
    flags.extend(
        hidden.into_iter().flatten().map(|path| format!("-ffile-prefix-map={}=/", path.display())),
    );
    Ok(flags)
}
