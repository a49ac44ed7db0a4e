//! Prometheus and its tool, from Debian's package. The package is unpacked, not installed: that
//! would start a server.
use std::path::PathBuf;

use anyhow::Result;

use crate::host::{
    apt::{self, Apt},
    cmd::say,
    packages, paths,
};

const PACKAGE: &str = "prometheus";

/// The folder with `prometheus` and `promtool`.
pub(crate) fn folder() -> Result<PathBuf> {
    packages::ensure(&[packages::APT])?;
    let _lock = paths::lock(PACKAGE)?;
    let folder = paths::cache()?.join(PACKAGE);
    let programs = folder.join("usr/bin");
    if !programs.join("promtool").exists() {
        say("fetching prometheus from Debian");
        paths::fresh(&folder)?;
        let deb = Apt::open()?.download(PACKAGE, &folder)?;
        apt::unpack(&deb, &folder, Some("./usr/bin"))?;
    }
    Ok(programs)
}
