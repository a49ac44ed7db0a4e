//! Fetches packages of PyPI, each into its own Python environment in the cache.
use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::host::{
    cmd::{output, say},
    packages, paths,
};

/// The programs that fetching a Python package needs.
const NEEDS: &[&[packages::Need]] = &[packages::PYTHON];

/// A package and the exact version to use.
#[derive(Clone, Copy)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

/// The folder of the Python environment with this package. The environment is made once.
pub(crate) fn environment(package: Package) -> Result<PathBuf> {
    let Package { name, version } = package;
    packages::ensure(NEEDS)?;
    let _lock = paths::lock(name)?;
    let folder = paths::cache()?.join(format!("{name}-{version}"));
    if !has(&python(&folder), package) {
        say(format!("fetching {name} {version} from PyPI"));
        paths::remove(&folder)?;
        output(Command::new("python3").args(["-m", "venv"]).arg(&folder))
            .context("cannot make a Python environment (Debian: python3-venv)")?;
        let wanted = format!("{name}=={version}");
        output(Command::new(python(&folder)).args(["-m", "pip", "install", "--quiet", &wanted]))
            .with_context(|| format!("cannot fetch {name}"))?;
    }
    Ok(folder)
}

/// The Python interpreter of an environment.
pub(crate) fn python(folder: &Path) -> PathBuf {
    folder.join("bin/python")
}

fn has(python: &Path, package: Package) -> bool {
    let Package { name, version } = package;
    let ask = format!("import importlib.metadata as m; assert m.version('{name}') == '{version}'");
    output(Command::new(python).args(["-c", &ask])).is_ok()
}
