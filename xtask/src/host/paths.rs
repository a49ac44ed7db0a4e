//! The folders that xtask works in: the checkout, the build folder and the cache.
use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::host::cmd::say;

/// The root of the checkout. It is looked up at run time, because the checkout may have moved since
/// xtask was built.
pub(crate) fn workspace() -> Result<PathBuf> {
    let start = match env::var_os("CARGO_MANIFEST_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => env::current_dir().context("no current directory")?,
    };
    for folder in start.ancestors() {
        if folder.join("bpf-toolchain.toml").is_file() && folder.join("xtask").is_dir() {
            return Ok(folder.to_owned());
        }
    }
    bail!("{} is not inside a dio-trace checkout: run xtask there", start.display())
}

/// The file of this program. `cargo test` replaces it while it runs: with the dependencies of the
/// tests xtask is built with other features. The new file is built from the same source. Linux
/// appends " (deleted)" to the name of a file that was replaced (proc_pid_exe(5)).
pub(crate) fn own_program() -> Result<PathBuf> {
    let path = env::current_exe().context("xtask cannot find its own file")?;
    let replaced = path.to_str().and_then(|text| text.strip_suffix(" (deleted)"));
    Ok(replaced.map(PathBuf::from).filter(|new| new.is_file()).unwrap_or(path))
}

/// The target folder of `cargo build` in the checkout.
pub(crate) fn target() -> Result<PathBuf> {
    let workspace = workspace()?;
    Ok(match env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace.join(folder),
        None => workspace.join("target"),
    })
}

/// The folder for everything that is fetched or built once: kernels, rust-src, bpf-linker.
pub(crate) fn cache() -> Result<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = if let Some(folder) = set("DIO_TRACE_CACHE") {
        folder
    } else if let Some(folder) = set("XDG_CACHE_HOME") {
        folder.join("dio-trace")
    } else if let Some(home) = set("HOME") {
        home.join(".cache/dio-trace")
    } else {
        bail!("nowhere to keep kernels: set DIO_TRACE_CACHE, XDG_CACHE_HOME or HOME");
    };
    fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make the cache folder {}", folder.display()))?;
    folder.canonicalize().with_context(|| format!("cannot resolve {}", folder.display()))
}

/// Takes the lock named `what`, which one xtask holds while it makes `what`. Waits while another
/// xtask holds it. Dropping the file releases the lock.
pub(crate) fn lock(what: &str) -> Result<File> {
    let folder = cache()?.join("locks");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(what);
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    if file.try_lock().is_err() {
        say(format!("waiting for another xtask, which works on {what}"));
        file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    }
    Ok(file)
}

/// Creates `folder`, or empties it if it exists.
pub(crate) fn fresh(folder: &Path) -> Result<()> {
    remove(folder)?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// Removes a folder if it exists.
pub(crate) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}
