//! The host's binaries that VMs run.
use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::host::{cmd, paths};

/// cargo in the checkout, as the one that runs us.
pub(crate) fn cargo() -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(paths::workspace()?).stdin(Stdio::null());
    Ok(command)
}

/// Builds these packages for release; gives the folder their binaries are in.
pub(crate) fn release(packages: &[&str]) -> Result<PathBuf> {
    let mut command = cargo()?;
    command.args(["build", "--release", "--locked"]);
    for package in packages {
        command.args(["--package", package]);
    }
    cmd::run(&mut command).context("the release build failed")?;
    Ok(paths::target()?.join("release"))
}
