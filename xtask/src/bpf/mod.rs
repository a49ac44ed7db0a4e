//! Builds the eBPF object reproducibly from source.
//!
//! The object is committed so that users need only stable Rust. Every checkout builds the same
//! bytes: paths are remapped, symbol hashes do not depend on paths (see [`rustc`]), and the release
//! profile is fixed here. [`strip`] removes the debug information.
pub(crate) mod rustc;
mod strip;

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::host::{
    apt::{self, Apt},
    cmd::{output, run, say, which},
    paths,
};

/// The path of the committed object, relative to the checkout.
pub(crate) const OBJECT: &str = "dio-trace/bpf/dio-trace.bpf.o";
const PINS: &str = "bpf-toolchain.toml";

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Pins {
    rustc: String,
    rust_src: String,
    bpf_linker: String,
    llvm: String,
}

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
    let pins = pins()?;
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
    let pins = pins()?;
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

fn pins() -> Result<Pins> {
    let path = paths::workspace()?.join(PINS);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))
}

/// A toolchain: rustc and its cargo.
struct Toolchain {
    /// As `rustc -V` prints it: `1.95.0`, `1.97.0-nightly`.
    version: String,
    sysroot: PathBuf,
    /// The name of a rustup toolchain, run by `rustup run NAME`; `None` for the default rustc.
    rustup: Option<String>,
}

impl Toolchain {
    fn pinned(pins: &Pins) -> Result<Self> {
        let running = Self::of(None)?;
        if running.version == pins.rustc {
            return Ok(running);
        }
        if which("rustup").is_none() {
            bail!(
                "the object is pinned to rustc {}, this is {}, and rustup is not installed to get \
                 the pinned version; install rustup, or use a machine with the pinned rustc",
                pins.rustc,
                running.version
            );
        }
        if let Ok(found) = Self::of(Some(&pins.rustc)) {
            return Ok(found);
        }
        say(format!("rustc is {}, the object is pinned to {}", running.version, pins.rustc));
        let name = pins.rustc.as_str();
        run(Command::new("rustup").args(["toolchain", "install", name, "--profile", "minimal"]))
            .with_context(|| {
                format!("the object needs rustc {name}, which cannot be installed here")
            })?;
        Self::of(Some(name))
    }

    fn named(name: &str) -> Result<Self> {
        Self::of(Some(name)).with_context(|| format!("rustup has no toolchain {name}"))
    }

    fn of(name: Option<&str>) -> Result<Self> {
        let mut found = Self {
            version: String::new(),
            sysroot: PathBuf::new(),
            rustup: name.map(str::to_owned),
        };
        let text = output(found.command("rustc").arg("-V"))?;
        let version = text.split_whitespace().nth(1);
        found.version = version.with_context(|| format!("rustc -V says `{text}`"))?.to_owned();
        found.sysroot = output(found.command("rustc").args(["--print", "sysroot"]))?.trim().into();
        Ok(found)
    }

    fn command(&self, program: &str) -> Command {
        match &self.rustup {
            Some(name) => {
                let mut command = Command::new("rustup");
                command.args(["run", name, program]);
                command
            }
            None => Command::new(program),
        }
    }

    /// The folder of the standard library's source for exactly this rustc.
    fn rust_src(&self, pins: &Pins) -> Result<PathBuf> {
        let own = self.sysroot.join("lib/rustlib/src/rust");
        if own.join("library/core/Cargo.toml").is_file() {
            return Ok(own);
        }
        if self.version != pins.rustc {
            bail!(
                "rustc {} has no rust-src: `rustup component add rust-src --toolchain {}`",
                self.version,
                self.rustup.as_deref().unwrap_or("NAME")
            );
        }
        let version = &pins.rust_src;
        let folder = paths::cache()?.join("bpf").join(format!("rust-src-{version}"));
        if folder.join("library/core/Cargo.toml").is_file() {
            return Ok(folder);
        }
        let hint = "or get it with `rustup component add rust-src`";
        let apt = Apt::open().context(hint)?;
        if folder.join("library/core/Cargo.toml").is_file() {
            return Ok(folder);
        }
        let full = apt
            .versions("rust-src")?
            .into_iter()
            .find(|full| full.starts_with(&format!("{version}+")))
            .with_context(|| format!("Debian's archive has no rust-src {version}; {hint}"))?;
        let work = folder.with_extension("new");
        paths::fresh(&work)?;
        let deb = apt.download(&format!("rust-src={full}"), &work)?;
        apt::unpack(&deb, &work, Some(&format!("./usr/src/rustc-{version}/library")))?;
        paths::remove(&folder)?;
        fs::rename(work.join(format!("usr/src/rustc-{version}")), &folder)
            .with_context(|| format!("cannot move rust-src to {}", folder.display()))?;
        paths::remove(&work)?;
        Ok(folder)
    }

    /// The path of bpf-linker, built once into the cache against the LLVM that this rustc contains,
    /// so that no LLVM has to be installed.
    fn bpf_linker(&self, pins: &Pins) -> Result<PathBuf> {
        let name = format!("bpf-linker-{}-rustc-{}", pins.bpf_linker, self.version);
        let folder = paths::cache()?.join("bpf").join(&name);
        let linker = folder.join("bin/bpf-linker");
        // An existing bpf-linker fails to start if the toolchain with its LLVM has been removed.
        let works = |linker: &Path| output(Command::new(linker).arg("--version")).is_ok();
        if works(&linker) {
            return Ok(linker);
        }
        let _lock = paths::lock("bpf-linker")?;
        if works(&linker) {
            return Ok(linker);
        }
        let lib = self.sysroot.join("lib");
        let llvm = fs::read_dir(&lib)
            .with_context(|| format!("cannot read {}", lib.display()))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("libLLVM.so.")
            });
        let Some(llvm) = llvm else {
            bail!(
                "{} has no libLLVM (a distribution's rustc?): bpf-linker needs a rustc \
                 from rustup or rust-lang.org",
                lib.display()
            );
        };
        // bpf-linker looks for libLLVM.so when it is built, and for the full name at run time. This
        // path is kept in its binary.
        let prefix = folder.join("llvm");
        paths::fresh(&prefix.join("lib"))?;
        for name in [Some("libLLVM.so".as_ref()), llvm.file_name()].into_iter().flatten() {
            symlink(&llvm, prefix.join("lib").join(name)).context("cannot link libLLVM")?;
        }
        say(format!("building bpf-linker {} (once, about two minutes)", pins.bpf_linker));
        let spec = format!("bpf-linker@{}", pins.bpf_linker);
        let mut command = self.command("cargo");
        command
            .args(["install", &spec, "--locked", "--force", "--no-default-features", "--features"])
            .arg(&pins.llvm)
            .arg("--root")
            .arg(&folder)
            .env("LLVM_PREFIX", &prefix)
            .env("CARGO_TARGET_DIR", folder.join("build"))
            // Not in the checkout, whose .cargo/config.toml must not apply to bpf-linker.
            .current_dir(&folder);
        clean_env(&mut command);
        run(&mut command).context("cannot build bpf-linker")?;
        paths::remove(&folder.join("build"))?;
        output(Command::new(&linker).arg("--version"))
            .context("the new bpf-linker does not run")?;
        Ok(linker)
    }
}

/// Removes the settings that the outer cargo passes to its children: an inner cargo must not use
/// them.
fn clean_env(command: &mut Command) {
    for name in
        ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC", "RUSTC_WRAPPER", "CARGO_BUILD_TARGET"]
    {
        command.env_remove(name);
    }
}

fn build(pins: &Pins, toolchain: &Toolchain, target: &Path) -> Result<Vec<u8>> {
    let workspace = paths::workspace()?;
    let linker = toolchain.bpf_linker(pins)?;
    let rust_src = toolchain.rust_src(pins)?;
    // rust-src is in different folders on different machines; this link is the same path on all. It
    // is remapped below.
    let link = workspace.join("target/bpf-rust-src");
    fs::create_dir_all(target).with_context(|| format!("cannot make {}", target.display()))?;
    if fs::read_link(&link).ok().as_ref() != Some(&rust_src) {
        match fs::remove_file(&link) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {}", link.display()));
            }
            _ => {}
        }
        symlink(&rust_src, &link).with_context(|| format!("cannot link {}", link.display()))?;
    }
    let mut flags = vec!["-Cdebuginfo=2".to_owned(), "-Clink-arg=--btf".to_owned()];
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    // rustc uses the last remapping that matches, so the more specific ones come later.
    remap(&workspace, "/dio-trace");
    remap(&rust_src, "/rust-src");
    remap(&link, "/rust-src");
    for registry in registries() {
        remap(&registry, "/registry");
    }
    let mut command = toolchain.command("cargo");
    clean_env(&mut command);
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

/// The folders into which cargo unpacks crates. Their names depend on the registry's address.
fn registries() -> Vec<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    home.and_then(|home| fs::read_dir(home.join("registry/src")).ok())
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect()
}
