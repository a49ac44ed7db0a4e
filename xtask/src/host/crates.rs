//! Programs of crates.io that tasks use, each installed once into the cache.
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::host::{
    build,
    cmd::{run, say},
    paths,
};

/// A program, named as its crate, and the exact version to use.
#[derive(Clone, Copy)]
pub(crate) struct Tool {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
}

/// The path of the program, which is built once.
pub(crate) fn installed(tool: Tool) -> Result<PathBuf> {
    let Tool { name, version } = tool;
    let _lock = paths::lock(name)?;
    let folder = paths::cache()?.join(format!("{name}-{version}"));
    let program = folder.join("bin").join(name);
    if !program.is_file() {
        say(format!("building {name} {version} (once)"));
        let mut cargo = build::cargo()?;
        cargo
            .args(["install", "--locked", &format!("{name}@{version}"), "--root"])
            .arg(&folder)
            .env("CARGO_TARGET_DIR", folder.join("build"))
            // Not in the checkout, whose .cargo/config.toml must not apply.
            .current_dir(paths::cache()?);
        run(&mut cargo).with_context(|| format!("cannot build {name}"))?;
        paths::remove(&folder.join("build"))?;
    }
    Ok(program)
}
