//! Devices and file systems with sectors that fail (device-mapper's error target).
use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};

use crate::{
    guest::setups::{
        Setup,
        make::{self, mapped, mount, run},
    },
    host::cmd::text,
};

/// Half a partition, which xfs is content with, in bytes.
const SIZE: u64 = 350 << 20;
const SECTOR: u64 = 512;
/// Sectors that fail.
const BAD: u64 = 8;
/// Where they are in a file, and how long it is.
const AT: usize = 1 << 20;
const FILE: usize = 8 << 20;

/// A device on `below` that fails from this byte on.
pub(super) fn device(setup: &Setup, below: &Path, at: u64) -> Result<PathBuf> {
    let (below, all, bad) = (below.display(), SIZE / SECTOR, at / SECTOR);
    let after = bad + BAD;
    let table = format!(
        "0 {bad} linear {below} 0\n{bad} {BAD} error\n{after} {} linear {below} {after}",
        all - after
    );
    mapped(setup, &table)
}

/// A file system on `below` with one file, which cannot be read at 1 MiB; the file.
pub(super) fn file_system(
    setup: &Setup,
    mkfs: &[&str],
    below: &Path,
    folder: &Path,
) -> Result<PathBuf> {
    let whole = mapped(setup, &format!("0 {} linear {} 0", SIZE / SECTOR, below.display()))?;
    make::file_system(mkfs, setup.fs, "", &whole, folder)?;
    let file = folder.join("file");
    let mark = mark();
    let mut bytes = vec![b'.'; FILE];
    bytes[AT..AT + mark.len()].copy_from_slice(&mark);
    let mut new = File::create(&file)?;
    new.write_all(&bytes)?;
    new.sync_all()?;
    drop(new);
    run("umount", &[text(folder)?])?;
    let at = find(&whole, &mark)?;
    run("dmsetup", &["remove", "--retry", setup.name])?;
    let device = device(setup, below, at)?;
    mount(&["-t", setup.fs, text(&device)?], folder)?;
    Ok(file)
}

/// The same anew, after the file was written to: btrfs moves what is written.
pub(super) fn again(setup: &Setup, mkfs: &[&str], folder: &Path) -> Result<()> {
    run("umount", &[text(folder)?])?;
    let table = run("dmsetup", &["table", setup.name])?;
    // `0 SECTORS linear MAJOR:MINOR 0`, as the first of its lines.
    let below = table.split_whitespace().nth(3).context("no table of the device")?.to_owned();
    run("dmsetup", &["remove", "--retry", setup.name])?;
    file_system(setup, mkfs, Path::new(&below), folder).map(drop)
}

/// Bytes that were never on a disk before.
fn mark() -> [u8; 32] {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut mark = *b"dio-trace: these cannot be read ";
    mark[16..].copy_from_slice(&since.as_nanos().to_le_bytes());
    mark
}

/// Where a device holds these bytes, at the begin of a sector. Asking the file system (FIEMAP) gives
/// btrfs' own addresses, and nothing on vfat.
fn find(device: &Path, mark: &[u8]) -> Result<u64> {
    const PIECE: u64 = 1 << 20;
    let file = File::open(device)?;
    let mut piece = vec![0; PIECE as usize];
    for start in (0..SIZE).step_by(PIECE as usize) {
        file.read_exact_at(&mut piece, start)?;
        let found =
            (0..PIECE).step_by(SECTOR as usize).find(|at| piece[*at as usize..].starts_with(mark));
        if let Some(at) = found {
            return Ok(start + at);
        }
    }
    fs::metadata(device).context("the device is gone")?;
    anyhow::bail!("{} does not hold the file's data", device.display())
}
