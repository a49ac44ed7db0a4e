//! Userlands of Debian releases, made by mmdebstrap and kept in the cache.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::host::{
    apt,
    cmd::{mask_hosts, output, say, text},
    paths,
};

/// What the proofs use, beside what every Debian system has.
const PACKAGES: &str = "kmod,man-db,bash-completion,systemd,procps,e2fsprogs,rpm,zstd";

/// The folder of a release's userland, which is made once. It is a guest's root, never this
/// machine's.
pub(super) fn made(suite: &str) -> Result<PathBuf> {
    let _lock = paths::lock(&format!("userland-{suite}"))?;
    let folder = paths::cache()?.join("userlands").join(suite);
    // Written last: its presence says that the rest is complete.
    let complete = folder.with_extension("packages");
    if fs::read_to_string(&complete).is_ok_and(|now| now == PACKAGES) {
        return Ok(folder);
    }
    say(format!("making a userland of Debian {suite} (once)"));
    paths::fresh(&folder)?;
    let mirror = format!("deb {} {suite} main", apt::main_mirror()?);
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", &format!("--include={PACKAGES}")]).args([
        suite,
        text(&folder)?,
        &mirror,
    ]);
    output(&mut command)
        .map_err(|error| anyhow::anyhow!("{}", mask_hosts(&format!("{error:#}"))))
        .with_context(|| format!("cannot make a userland of Debian {suite}"))?;
    forget_mirror(&folder)?;
    fs::write(&complete, PACKAGES).context("cannot write into the cache")?;
    Ok(folder)
}

/// A guest has no network, and needs no address of a mirror.
fn forget_mirror(userland: &Path) -> Result<()> {
    let sources = userland.join("etc/apt/sources.list");
    fs::write(&sources, "").with_context(|| format!("cannot empty {}", sources.display()))
}
