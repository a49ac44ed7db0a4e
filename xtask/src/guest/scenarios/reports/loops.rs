//! A loop device with sectors of 512 bytes on a file that needs 4096: `losetup --direct-io=on` is
//! refused, and the device must be attached anew with larger sectors.
use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result};

use super::{Trial, on};
use crate::{
    guest::direct_io::files::fill,
    host::cmd::{self, text},
};

const SIZE: usize = 16 << 20;

pub(super) fn check(trial: &Trial<'_>, folder: &Path) -> Result<Vec<String>> {
    let image = folder.join("image");
    fill(&image, SIZE)?;
    let mut wrong = Vec::new();
    let device = attach(&["-b", "512"], &image)?;
    let seen = read(trial, &device)?;
    match on(&seen, Path::new(&device), 4) {
        Ok(seen) => wrong.extend(seen[0].explained(
            "loop-buffered",
            "through the page cache (dio is 0)",
            "`losetup -b 4096 --direct-io=on -f FILE`",
        )),
        Err(why) => wrong.push(why),
    }
    if losetup(&["--direct-io=on", &device]).is_ok() && is_direct(&device)? {
        wrong.push(format!("`losetup --direct-io=on {device}` worked, and the fix says otherwise"));
    }
    losetup(&["-d", &device])?;
    // The fix.
    let device = attach(&["-b", "4096", "--direct-io=on"], &image)?;
    if !is_direct(&device)? {
        wrong.push(format!("{device} is not direct after the fix"));
    }
    let seen = read(trial, &device)?;
    match on(&seen, Path::new(&device), 4) {
        Ok(seen) => wrong.extend(
            seen.iter().filter(|seen| seen.cause.is_some()).map(|seen| format!("fixed: {seen:?}")),
        ),
        Err(why) => wrong.push(why),
    }
    losetup(&["-d", &device])?;
    fs::remove_file(&image)?;
    Ok(wrong)
}

fn attach(words: &[&str], image: &Path) -> Result<String> {
    let device = losetup(&[&["-f", "--show"], words, &[text(image)?]].concat())?;
    Ok(device.trim().to_owned())
}

fn losetup(words: &[&str]) -> Result<String> {
    cmd::output(Command::new("losetup").args(words))
}

/// Four direct reads of 64 KiB.
fn read(trial: &Trial<'_>, device: &str) -> Result<Vec<super::Seen>> {
    let from = format!("if={device}");
    trial.run(&["dd", &from, "of=/dev/null", "bs=64k", "count=4", "iflag=direct"])
}

fn is_direct(device: &str) -> Result<bool> {
    let name = device.trim_start_matches("/dev/");
    let dio = fs::read_to_string(format!("/sys/block/{name}/loop/dio")).context("no loop/dio")?;
    Ok(dio.trim() == "1")
}
