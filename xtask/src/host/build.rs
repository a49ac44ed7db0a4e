//! Builds on the host the binaries that VMs run.
use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::host::{cmd, paths};

/// A command for cargo in the checkout: the cargo that runs xtask, if cargo runs it.
pub(crate) fn cargo() -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace()?).stdin(Stdio::null());
    Ok(command)
}

/// Builds these packages in the release profile, and returns the folder with their binaries.
pub(crate) fn release(packages: &[&str]) -> Result<PathBuf> {
    let mut command = cargo()?;
    command.args(["build", "--release", "--locked"]);
    for package in packages {
        command.args(["--package", package]);
    }
    cmd::run(&mut command).context("the release build failed")?;
    Ok(paths::target()?.join("release"))
}
