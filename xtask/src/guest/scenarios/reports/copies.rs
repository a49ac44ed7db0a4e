//! A btrfs whose data profile keeps copies: some kernels write even files without checksums through
//! the page cache. The fix is a profile without copies.
use std::{fs, path::Path, process::Command};

use anyhow::Result;

use super::{Seen, Trial, on};
use crate::host::cmd::{self, text};

/// Kernel series that write such files through the page cache: Debian's 6.12 is later than 6.12.75
/// (fs/btrfs/direct-io.c:btrfs_direct_write).
const CACHED_ON: &[&str] = &["6.12"];

pub(super) fn check(trial: &Trial<'_>, folder: &Path) -> Result<Vec<String>> {
    let own = folder.join("without-checksums");
    fs::create_dir_all(&own)?;
    cmd::output(Command::new("chattr").args(["+C", text(&own)?]))?;
    let before = write(trial, &own.join("before"))?;
    let cached = before.verdict == "fallback";
    let mut wrong = Vec::new();
    if cached {
        wrong.extend(before.explained(
            "btrfs-copies",
            "the data profile is dup",
            "-dconvert=single",
        ));
    } else if before.verdict != "direct" || CACHED_ON.contains(&trial.tried.series.as_str()) {
        wrong.push(format!("not written through the page cache: {before:?}"));
    }
    // The fix.
    let words = ["balance", "start", "-f", "-dconvert=single", text(folder)?];
    cmd::output(Command::new("btrfs").args(words))?;
    let after = write(trial, &own.join("after"))?;
    if after.verdict != "direct" {
        wrong.push(format!("the fix failed: {after:?}"));
    }
    Ok(wrong)
}

/// The first of four direct writes of 64 KiB.
fn write(trial: &Trial<'_>, file: &Path) -> Result<Seen> {
    let to = format!("of={}", text(file)?);
    let seen = trial.run(&["dd", "if=/dev/zero", &to, "bs=64k", "count=4", "oflag=direct"])?;
    let seen = on(&seen, file, 4).map_err(anyhow::Error::msg)?;
    Ok(seen[0].clone())
}
