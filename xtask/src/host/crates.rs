//! Programs of crates.io that tasks use, each installed once into the cache.
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::host::{
    build,
    cmd::{run, say},
    paths,
};

/// The path of a program, which is named as its crate and built once, in exactly this version.
pub(crate) fn installed(name: &str, version: &str) -> Result<PathBuf> {
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
