//! The set-ups: file systems and devices that the cells run on, all at once.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::cmd::{self, text};

/// Room for each file system: xfs wants 300 MiB, btrfs likes more.
const MIB: u64 = 700;

/// A disk of the VM (see qemu.rs), by its logical sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    Sector512,
    Sector4096,
    /// 512-byte sectors on 4096-byte physical ones.
    Sector512e,
}

impl Disk {
    const fn device(self) -> &'static str {
        match self {
            Self::Sector512 => "/dev/vda",
            Self::Sector4096 => "/dev/vdb",
            Self::Sector512e => "/dev/vdc",
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A file system on a partition: the command that makes it (the device is appended), mount
    /// options, and `chattr` flags for the folder.
    Disk { disk: Disk, mkfs: &'static [&'static str], options: &'static str, chattr: &'static str },
    /// One without a disk.
    Memory,
    /// A partition itself.
    Device(Disk),
    /// An overlay whose layers lie on a partition with this file system.
    Overlay { mkfs: &'static [&'static str], lower: &'static str },
    /// A loop device on a file of a partition with ext4.
    Loop { direct: bool },
    /// A device-mapper target on a partition.
    Linear,
    /// A folder of the VM's own /out: 9p with cache=none.
    Shared,
}

/// A line of the table below.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    pub(super) name: &'static str,
    /// The scenario file; set-ups that must behave alike share one.
    pub(super) rows: &'static str,
    /// As mount and dio-trace have it.
    pub(super) fs: &'static str,
    pub(super) kind: Kind,
    /// Files of 256 KiB are cloned after they are filled.
    pub(super) cloned: bool,
    /// Why an aligned request falls back here, if it does: one of these causes.
    pub(super) causes: &'static [&'static str],
}

const EXT4: &[&str] = &["mkfs.ext4", "-q", "-F", "-b", "4096"];
const INLINE: &[&str] = &["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "inline_data", "-I", "512"];
const NOEXTENT: &[&str] = &["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^extent,^64bit"];
const NOJOURNAL: &[&str] = &["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^has_journal"];
const F2FS: &[&str] = &["mkfs.f2fs", "-q", "-f"];
const VFAT: &[&str] = &["mkfs.vfat", "-F", "32", "-s", "8"];
const XFS: &[&str] = &["mkfs.xfs", "-q", "-f"];
const BTRFS: &[&str] = &["mkfs.btrfs", "-q", "-f"];

const fn disk(mkfs: &'static [&'static str], options: &'static str) -> Kind {
    flagged(mkfs, options, "")
}

const fn flagged(
    mkfs: &'static [&'static str],
    options: &'static str,
    chattr: &'static str,
) -> Kind {
    Kind::Disk { disk: Disk::Sector512, mkfs, options, chattr }
}

const fn setup(
    name: &'static str,
    fs: &'static str,
    kind: Kind,
    causes: &'static [&'static str],
) -> Setup {
    Setup { name, rows: name, fs, kind, cloned: false, causes }
}

impl Setup {
    const fn like(self, rows: &'static str) -> Self {
        Self { rows, ..self }
    }

    const fn cloned(self) -> Self {
        Self { cloned: true, ..self }
    }
}

const EXT4_4KN: Kind = Kind::Disk { disk: Disk::Sector4096, mkfs: EXT4, options: "", chattr: "" };

/// Every set-up. chattr +j bites only without delayed allocation: hence two of them.
pub(super) const ALL: &[Setup] = &[
    setup("ext4-512", "ext4", disk(EXT4, ""), &[]),
    setup("ext4-4kn", "ext4", EXT4_4KN, &[]),
    setup("ext4-journal", "ext4", disk(EXT4, "data=journal"), &["data-journal"]),
    setup("ext4-jattr", "ext4", flagged(EXT4, "", "+j"), &[]),
    setup("ext4-jattr-nodelalloc", "ext4", flagged(EXT4, "nodelalloc", "+j"), &["data-journal"])
        .like("ext4-journal"),
    setup("ext4-inline", "ext4", disk(INLINE, ""), &["inline-data"]),
    setup("xfs-512", "xfs", disk(XFS, ""), &[]),
    setup(
        "btrfs",
        "btrfs",
        disk(BTRFS, ""),
        &["inline-data", "btrfs-racing", "btrfs-buffer-fault"],
    ),
    setup(
        "btrfs-zstd",
        "btrfs",
        disk(BTRFS, "compress-force=zstd"),
        &["btrfs-compressed", "inline-data", "btrfs-racing"],
    ),
    setup("ext4-noextent", "ext4", disk(NOEXTENT, ""), &["allocating-write"]),
    setup("ext4-nojournal", "ext4", disk(NOJOURNAL, ""), &[]),
    setup("xfs-reflink", "xfs", disk(XFS, ""), &["xfs-unaligned-cow"]).cloned(),
    setup(
        "btrfs-nocow",
        "btrfs",
        flagged(BTRFS, "", "+C"),
        &["inline-data", "btrfs-racing", "btrfs-buffer-fault"],
    ),
    setup("f2fs", "f2fs", disk(F2FS, ""), &["f2fs-misaligned", "inline-data"]),
    setup("vfat", "vfat", disk(VFAT, ""), &["allocating-write"]),
    setup("overlay-ext4", "overlay", Kind::Overlay { mkfs: EXT4, lower: "ext4" }, &[]),
    setup("9p-none", "9p", Kind::Shared, &[]),
    setup("bdev-4kn", "bdev", Kind::Device(Disk::Sector4096), &[]),
    setup("bdev-512e", "bdev", Kind::Device(Disk::Sector512e), &[]),
    setup("loop-buffered", "bdev", Kind::Loop { direct: false }, &[]),
    setup("loop-dio", "bdev", Kind::Loop { direct: true }, &[]),
    setup("dm-linear", "bdev", Kind::Linear, &[]),
    setup("tmpfs", "tmpfs", Kind::Memory, &[]),
    setup("bdev-512", "bdev", Kind::Device(Disk::Sector512), &[]),
];

/// Where a set-up's files are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) setup: &'static Setup,
    /// A folder, or a block device.
    pub(super) path: PathBuf,
}

/// Makes and mounts these set-ups below `root`.
pub(super) fn make(setups: &[&'static Setup], root: &Path) -> Result<Vec<Place>> {
    unmount_below(root)?;
    for disk in [Disk::Sector512, Disk::Sector4096, Disk::Sector512e] {
        let count = setups.iter().filter(|setup| on(setup) == Some(disk)).count();
        partition(disk, count)?;
    }
    let mut used = [0_u32; 3];
    setups.iter().map(|setup| place(setup, root, &mut used)).collect()
}

/// Clears what an earlier suite left mounted in a VM that was kept.
fn unmount_below(root: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("no /proc/self/mounts")?;
    let folders = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new);
    let ours: Vec<&Path> = folders.filter(|f| f.starts_with(root) && *f != root).collect();
    for folder in ours.iter().rev() {
        cmd::output(Command::new("umount").arg(folder))?;
    }
    Ok(())
}

const fn on(setup: &Setup) -> Option<Disk> {
    match setup.kind {
        Kind::Disk { disk, .. } | Kind::Device(disk) => Some(disk),
        Kind::Overlay { .. } | Kind::Loop { .. } | Kind::Linear => Some(Disk::Sector512),
        Kind::Memory | Kind::Shared => None,
    }
}

/// Cuts a disk into partitions of equal size.
fn partition(disk: Disk, count: usize) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    let table = "label: gpt\n".to_owned() + &format!("size={MIB}MiB\n").repeat(count);
    let line =
        format!("printf %s {} | sfdisk -q --wipe always {}", cmd::quote(&table), disk.device());
    cmd::output(Command::new("sh").args(["-c", &line]))?;
    let last = format!("{}{count}", disk.device());
    let start = Instant::now();
    while !Path::new(&last).exists() {
        if start.elapsed() > Duration::from_secs(10) {
            bail!("{last} did not appear");
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn place(setup: &'static Setup, root: &Path, used: &mut [u32; 3]) -> Result<Place> {
    let mut next = |disk: Disk| {
        let used = &mut used[disk as usize];
        *used += 1;
        format!("{}{used}", disk.device())
    };
    let folder = root.join(setup.name);
    let path = match setup.kind {
        Kind::Device(disk) => next(disk).into(),
        Kind::Memory => {
            fs::create_dir_all(&folder)?;
            mount(&["-t", setup.fs, setup.name], &folder)?;
            folder
        }
        Kind::Disk { disk, mkfs, options, chattr } => {
            file_system(mkfs, setup.fs, options, &next(disk), &folder)?;
            if !chattr.is_empty() {
                run("chattr", &[chattr, text(&folder)?])?;
            }
            folder
        }
        Kind::Overlay { mkfs, lower } => {
            let below = root.join(format!("{}.layers", setup.name));
            file_system(mkfs, lower, "", &next(Disk::Sector512), &below)?;
            for layer in ["lower", "upper", "work"] {
                fs::create_dir_all(below.join(layer))?;
            }
            let below = below.display();
            let options =
                format!("lowerdir={below}/lower,upperdir={below}/upper,workdir={below}/work");
            fs::create_dir_all(&folder)?;
            mount(&["-t", "overlay", "-o", &options, setup.name], &folder)?;
            folder
        }
        Kind::Loop { direct } => {
            let below = root.join(format!("{}.file", setup.name));
            file_system(EXT4, "ext4", "", &next(Disk::Sector512), &below)?;
            let image = below.join("image");
            fs::File::create(&image)?.set_len(MIB << 18)?; // a quarter, in bytes
            let mode = format!("--direct-io={}", if direct { "on" } else { "off" });
            let device = run("losetup", &["--find", "--show", &mode, text(&image)?])?;
            device.trim().into()
        }
        Kind::Linear => {
            let sectors = MIB << 10; // half of it, in sectors of 512 bytes
            let table = format!("0 {sectors} linear {} 0", next(Disk::Sector512));
            run("dmsetup", &["create", setup.name, "--table", &table])?;
            Path::new("/dev/mapper").join(setup.name)
        }
        Kind::Shared => {
            let folder = Path::new("/out").join(setup.name);
            fs::create_dir_all(&folder)?;
            folder
        }
    };
    Ok(Place { setup, path })
}

fn file_system(
    mkfs: &[&str],
    fs_type: &str,
    options: &str,
    device: &str,
    folder: &Path,
) -> Result<()> {
    run(mkfs[0], &[&mkfs[1..], &[device]].concat())?;
    fs::create_dir_all(folder)?;
    let mut words = vec!["-t", fs_type];
    if !options.is_empty() {
        words.extend(["-o", options]);
    }
    words.push(device);
    mount(&words, folder)
}

fn run(program: &str, words: &[&str]) -> Result<String> {
    cmd::output(Command::new(program).args(words))
}

fn mount(words: &[&str], folder: &Path) -> Result<()> {
    cmd::output(Command::new("mount").args(words).arg(folder))
        .map(drop)
        .with_context(|| format!("cannot mount {}", folder.display()))
}

/// The set-up of that name.
pub(super) fn find(name: &str) -> Result<&'static Setup> {
    ALL.iter().find(|setup| setup.name == name).with_context(|| {
        let names: Vec<&str> = ALL.iter().map(|setup| setup.name).collect();
        format!("no set-up is called {name}; there are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Causes with the set-ups that docs/causes.md says they are met in.
    fn documented() -> Vec<(&'static str, Vec<&'static str>)> {
        let sections = include_str!("../../../docs/causes.md").split("\n## ").skip(1);
        let setups = |section: &'static str| {
            let seen = section.split("*Seen:* scenarios: ").nth(1).unwrap_or_default();
            let names = seen.split("\n\n").next().unwrap_or_default();
            names.split([',', ' ', '\n']).filter(|name| !name.is_empty()).collect()
        };
        sections.map(|text| (text.lines().next().unwrap_or_default(), setups(text))).collect()
    }

    #[test]
    fn causes_and_set_ups_know_each_other() {
        let causes = documented();
        for (cause, setups) in &causes {
            for name in setups {
                assert!(find(name).is_ok(), "docs/causes.md: {cause}: no set-up {name}");
            }
        }
        for setup in ALL {
            for cause in setup.causes {
                let found = causes.iter().find(|(id, _)| id == cause);
                let known = found.is_some_and(|(_, setups)| setups.contains(&setup.name));
                assert!(known, "{}: docs/causes.md does not name it at {cause}", setup.name);
            }
        }
    }
}
