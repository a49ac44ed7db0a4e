//! Short reads: makes direct reads return less than they asked for, by every cause, and checks what
//! dio-trace reports.
mod judge;
pub(crate) mod reader;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::Args;
use serde_json::Value;

use crate::{
    guest::fixtures::{self, Served},
    host::cmd::{self, say, text},
};
use judge::judge;
use reader::Read;

/// A FUSE server that answers each read with at most 1000 bytes.
const SERVER: &[&str] = &["xtask", "guest", "fuse-server", "--direct-io", "--short", "1000"];

#[derive(Args, Clone, Debug)]
pub(crate) struct ShortsArgs {
    /// Path of the dio-trace binary
    #[arg(long)]
    tool: PathBuf,
    /// fentry or kprobe: how dio-trace must attach
    #[arg(long)]
    attach: String,
    /// Folder for dio-trace's output
    #[arg(long)]
    out: PathBuf,
}

pub(crate) fn main(args: &ShortsArgs) -> Result<u8> {
    let (reads, wrong) = check(&args.tool, &args.attach, &args.out)?;
    wrong.iter().for_each(say);
    say(format!("{reads} reads, {} wrong", wrong.len()));
    Ok(u8::from(!wrong.is_empty()))
}

/// Makes the reads under dio-trace; returns their number and the mismatches.
pub(crate) fn check(tool: &Path, attach: &str, out: &Path) -> Result<(usize, Vec<String>)> {
    let root = Path::new("/mnt");
    let names =
        ["ext4-512", "xfs-512", "btrfs", "f2fs", "vfat", "bdev-512", "ext4-journal", "err-ext4"];
    let places = fixtures::make_bare(&names)?;
    journal_data(&root.join("err-ext4"))?;
    let served = root.join("fuse-short");
    let server = Served::start(SERVER, &root.join("ext4-512"), &served)?;
    let (json, tally) = (out.join("shorts.jsonl"), out.join("shorts.tally"));
    let me = std::env::current_exe().context("xtask cannot find itself")?;
    let mut command = Command::new(tool);
    command.args(["run", "--all", "--json", "--attach", attach, "-o", text(&json)?, "--"]);
    command.arg(me).args(["guest", "shorts-reader", "--tally", text(&tally)?]);
    for place in &places {
        command.args(["--place", &format!("{}:{}", place.setup.name, text(&place.path)?)]);
    }
    command.args(["--place", &format!("fuse-short:{}", text(&served)?)]);
    cmd::run(&mut command)?;
    server.end()?;
    let reads: Vec<Read> = serde_json::from_slice(&fs::read(&tally)?)?;
    let events = fs::read_to_string(&json)?;
    let events: Vec<Value> = events.lines().map(serde_json::from_str).collect::<Result<_, _>>()?;
    fixtures::clear(root)?;
    Ok((reads.len(), judge(&reads, &events)))
}

/// Mounts the file system with a bad sector again with data=journal, so that O_DIRECT reads go
/// through the page cache.
fn journal_data(folder: &Path) -> Result<()> {
    let folder = text(folder)?;
    cmd::output(Command::new("umount").arg(folder))?;
    let words = ["-t", "ext4", "-o", "data=journal", "/dev/mapper/err-ext4", folder];
    cmd::output(Command::new("mount").args(words)).map(drop)
}
