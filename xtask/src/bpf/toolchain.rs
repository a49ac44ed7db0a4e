//! The pinned toolchain: rustc, the standard library's source for it, and bpf-linker. What is missing
//! is fetched or built once.
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

const PINS: &str = "bpf-toolchain.toml";

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Pins {
    rustc: String,
    rust_src: String,
    bpf_linker: String,
    llvm: String,
}

/// The versions in bpf-toolchain.toml.
pub(crate) fn pins() -> Result<Pins> {
    let path = paths::workspace()?.join(PINS);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))
}

/// A toolchain: rustc and its cargo.
pub(crate) struct Toolchain {
    /// As `rustc -V` prints it: `1.95.0`, `1.97.0-nightly`.
    version: String,
    sysroot: PathBuf,
    /// The name of a rustup toolchain, run by `rustup run NAME`; `None` for the default rustc.
    rustup: Option<String>,
}

impl Toolchain {
    /// The pinned version of rustc, installed by rustup if another one runs this.
    pub(crate) fn pinned(pins: &Pins) -> Result<Self> {
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

    /// A toolchain of rustup.
    pub(crate) fn named(name: &str) -> Result<Self> {
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

    /// A command for a program of this toolchain: `cargo`, `rustc`.
    pub(crate) fn command(&self, program: &str) -> Command {
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
    pub(crate) fn rust_src(&self, pins: &Pins) -> Result<PathBuf> {
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
    pub(super) fn bpf_linker(&self, pins: &Pins) -> Result<PathBuf> {
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
pub(crate) fn clean_env(command: &mut Command) {
    for name in
        ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC", "RUSTC_WRAPPER", "CARGO_BUILD_TARGET"]
    {
        command.env_remove(name);
    }
}

/// Links `target/bpf-rust-src` in the checkout to `rust_src`, and returns the link: rust-src is in
/// different folders on different machines, and the link is the same path in every checkout.
pub(crate) fn linked(rust_src: &Path) -> Result<PathBuf> {
    linked_at(rust_src, paths::workspace()?.join("target/bpf-rust-src"))
}

/// Links `link` to `rust_src`, and returns the link.
pub(crate) fn linked_at(rust_src: &Path, link: PathBuf) -> Result<PathBuf> {
    if fs::read_link(&link).is_ok_and(|now| now == rust_src) {
        return Ok(link);
    }
    match fs::remove_file(&link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot replace {}", link.display()));
        }
        _ => {}
    }
    if let Some(folder) = link.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    symlink(rust_src, &link).with_context(|| format!("cannot link {}", link.display()))?;
    Ok(link)
}

/// Compiler flags that keep this machine's paths out of what is built: of the checkout, of rust-src
/// with its `link`, and of the folders into which cargo unpacks crates.
pub(crate) fn remapped(rust_src: &Path, link: &Path) -> Result<Vec<String>> {
    // rustc uses the last remapping that matches, so the more specific ones come later.
    let mut pairs = vec![
        (paths::workspace()?, "/dio-trace"),
        (rust_src.to_owned(), "/rust-src"),
        (link.to_owned(), "/rust-src"),
    ];
    pairs.extend(registries().into_iter().map(|registry| (registry, "/registry")));
    let flag = |(from, to): (PathBuf, &str)| format!("--remap-path-prefix={}={to}", from.display());
    Ok(pairs.into_iter().map(flag).collect())
}

/// cargo's own folder, with everything that it downloads.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
}

/// The folders into which cargo unpacks crates. Their names depend on the registry's address.
fn registries() -> Vec<PathBuf> {
    cargo_home()
        .and_then(|home| fs::read_dir(home.join("registry/src")).ok())
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect()
}
