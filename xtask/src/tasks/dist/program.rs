//! Builds the static program for an architecture.
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{
    arch::Arch,
    musl::{self, Musl},
};
use crate::{
    bpf::{
        rustc,
        toolchain::{self, Toolchain},
    },
    host::{
        cmd::{is_static, run, say},
        paths,
    },
};

/// The largest program, in bytes.
const LARGEST: u64 = 12 << 20;

/// The standard library's source, by a path that is the same in every checkout and for every user:
/// cargo hashes it into the names of files, by which link-time optimization orders functions.
const RUST_SRC: &str = "/tmp/dio-trace-rust-src";
const FLAGS: &[&str] = &["-Ctarget-feature=+crt-static", "-Clink-self-contained=yes"];

/// Builds the program and returns its path.
pub(super) fn build(arch: &Arch) -> Result<PathBuf> {
    let pins = toolchain::pins()?;
    let rustc = Toolchain::pinned(&pins)?;
    let musl = musl::unpacked(arch)?;
    let rust_src = rustc.rust_src(&pins)?;
    let link = toolchain::linked_at(&rust_src, RUST_SRC.into())?;
    let target = paths::target()?.join("dist-build");
    let variable = |prefix: &str| format!("{prefix}_{}", arch.target.replace('-', "_"));
    let mut command = rustc.command("cargo");
    toolchain::clean_env(&mut command);
    command
        .args(["build", "--locked", "--release", "--package", "dio-trace"])
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
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env(variable("CARGO_TARGET").to_uppercase() + "_LINKER", arch.gcc)
        .env(variable("CC"), arch.gcc)
        .env(variable("CFLAGS"), c_flags(arch, &musl, &target)?.join(" "));
    say(format!("building the static program for {}", arch.name));
    run(&mut command).with_context(|| format!("the program does not build for {}", arch.name))?;
    let program = target.join(arch.target).join("release/dio-trace");
    examine(&program)?;
    Ok(program)
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
