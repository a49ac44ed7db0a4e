//! The bill of materials: every crate in the program, as CycloneDX, by cargo-cyclonedx.
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{Arch, VERSION, write};
use crate::host::{build, cmd::output, crates, paths};

/// The version of cargo-cyclonedx.
const TOOL: &str = "0.5.9";

/// Writes `dio-trace-VERSION-ARCH.cdx.json`.
pub(super) fn make(arch: &Arch, into: &Path, epoch: u64) -> Result<()> {
    let tool = crates::installed("cargo-cyclonedx", TOOL)?;
    let checkout = paths::workspace()?;
    let name = format!("dio-trace-{VERSION}-{}.cdx", arch.name);
    let mut command = build::cargo()?;
    // cargo finds its subcommands in PATH.
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = tool.parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(&path));
    command
        .args(["cyclonedx", "--format", "json", "--target", arch.target])
        .args(["--override-filename", &name, "--no-build-deps", "-q"])
        .env("PATH", std::env::join_paths(folders).context("PATH is odd")?)
        // Without it the bill would have a random serial number and this moment.
        .env("SOURCE_DATE_EPOCH", epoch.to_string());
    output(&mut command)?;
    // It writes one beside each member's Cargo.toml.
    let file = format!("{name}.json");
    let written: Vec<PathBuf> = fs::read_dir(&checkout)
        .context("cannot read the checkout")?
        .filter_map(|entry| Some(entry.ok()?.path().join(&file)))
        .filter(|path| path.is_file())
        .collect();
    let own = checkout.join("dio-trace").join(&file);
    let bill = fs::read_to_string(&own).context("cargo-cyclonedx left no bill of materials")?;
    // It names the checkout by this machine's path.
    let here = format!("file://{}", checkout.display());
    write(&into.join(&file), bill.replace(&here, "file:///dio-trace").as_bytes())?;
    for path in written {
        fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}
