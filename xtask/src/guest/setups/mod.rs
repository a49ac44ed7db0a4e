//! The set-ups: file systems and devices that the cells run on.
//!
//! - [`table`]: what there is, a line each
//! - [`make`]: making and clearing them
//! - [`broken`]: those with sectors that cannot be read
//! - [`nfs`]: this machine as NFS server and client
mod broken;
mod make;
mod nfs;
mod table;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(super) use make::{clear, lacks, make, mount, renew};
pub(super) use table::ALL;

/// Where set-ups are made.
pub(super) const ROOT: &str = "/mnt";

/// Makes set-ups for a scenario of its own: there are no cells.
pub(super) fn make_bare(names: &[&str]) -> Result<Vec<Place>> {
    let wanted = names.iter().map(|name| Ok((find(name)?, Vec::new())));
    let places = make(wanted.collect::<Result<_>>()?, Path::new(ROOT))?;
    Ok(places.into_iter().map(|(place, _)| place).collect())
}

/// A disk of the VM (see qemu.rs), by its logical sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    Sector512,
    Sector4096,
    /// 512-byte sectors on 4096-byte physical ones.
    Sector512e,
    Nvme,
    /// Memory that a file system can map: for DAX.
    Pmem,
}

impl Disk {
    const ALL: [Self; 5] =
        [Self::Sector512, Self::Sector4096, Self::Sector512e, Self::Nvme, Self::Pmem];

    const fn device(self) -> &'static str {
        match self {
            Self::Sector512 => "/dev/vda",
            Self::Sector4096 => "/dev/vdb",
            Self::Sector512e => "/dev/vdc",
            Self::Nvme => "/dev/nvme0n1",
            Self::Pmem => "/dev/pmem0",
        }
    }

    /// A partition, counted from 1.
    fn part(self, number: usize) -> PathBuf {
        let between = if matches!(self, Self::Nvme | Self::Pmem) { "p" } else { "" };
        format!("{}{between}{number}", self.device()).into()
    }

    /// Partitions that find room, see `make`.
    const fn room(self) -> usize {
        match self {
            Self::Sector512 => 68,
            Self::Sector4096 => 23,
            Self::Sector512e | Self::Nvme | Self::Pmem => 1,
        }
    }
}

/// A block device: to lie below a file system, or to be asked itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    /// A partition.
    Part(Disk),
    /// A loop device on a file of that size, on a partition with ext4.
    Loop { direct: bool, bytes: u64 },
    /// A device-mapper target on a partition, of so many sectors of 512 bytes.
    Linear(u64),
    /// One whose 8 sectors at 1 MiB cannot be read or written.
    Broken,
    /// One that encrypts, of so many sectors.
    Crypt(u64),
    /// Compressed memory of that size. There is one such device at a time.
    Zram(&'static str),
    /// Memory in zones of 4 MiB, the first 64 of them conventional, the others written in sequence.
    /// There is one such device at a time.
    Zoned,
    /// Of scsi_debug, with this logical sector and errors from sector 0x1234 on. There is one such
    /// device at a time.
    Scsi(u32),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// A file system on a block device: the command that makes it (the device is appended), mount
    /// options, and what prepares the folder (which is appended), if anything.
    Made {
        on: Store,
        mkfs: &'static [&'static str],
        options: &'static str,
        prepare: &'static [&'static str],
    },
    /// A file system whose files are made first; what seals it (the folder is appended), then it is
    /// read-only.
    Sealed { mkfs: &'static [&'static str], options: &'static str, seal: &'static [&'static str] },
    /// xfs with its files' data on a device of their own, a second partition.
    Realtime,
    /// One that is read-only and made with its files in it; FOLDER and DEVICE stand for theirs.
    Image { mkfs: &'static [&'static str] },
    /// One without a disk.
    Memory,
    /// A block device itself.
    Device(Store),
    /// An overlay whose layers lie on a partition with this file system.
    Overlay { mkfs: &'static [&'static str], lower: &'static str },
    /// An overlay without an upper layer, over files that were made in this set-up.
    Lower(&'static Setup),
    /// A folder of a partition with ext4 that a FUSE server shows elsewhere.
    Fuse { server: &'static [&'static str] },
    /// A file system with one file, whose 4096 bytes at 1 MiB cannot be read or written in place.
    Broken { mkfs: &'static [&'static str] },
    /// A folder of a partition with ext4 that this machine's own NFS server exports.
    Nfs,
    /// A folder of the VM's own /out: 9p with cache=none.
    Shared,
    /// The same through another mount, with these options.
    SharedWith { options: &'static str },
}

impl Kind {
    /// The command that makes its file system, if it has one.
    const fn mkfs(self) -> &'static [&'static str] {
        match self {
            Self::Made { mkfs, .. }
            | Self::Image { mkfs }
            | Self::Sealed { mkfs, .. }
            | Self::Overlay { mkfs, .. }
            | Self::Broken { mkfs } => mkfs,
            Self::Lower(lower) => lower.kind.mkfs(),
            Self::Realtime => &["mkfs.xfs"],
            Self::Fuse { .. }
            | Self::Nfs
            | Self::Memory
            | Self::Device(_)
            | Self::Shared
            | Self::SharedWith { .. } => &[],
        }
    }

    /// Other programs that it needs.
    const fn helpers(self) -> &'static [&'static str] {
        match self {
            Self::Sealed { .. } => &["fsverity"],
            Self::Nfs => &["exportfs", "rpc.mountd", "rpc.nfsd", "mount.nfs4"],
            _ => &[],
        }
    }

    /// The block device that it needs.
    const fn store(self) -> Option<Store> {
        match self {
            Self::Made { on, .. } | Self::Device(on) => Some(on),
            Self::Broken { .. } => Some(Store::Broken),
            Self::Overlay { .. }
            | Self::Image { .. }
            | Self::Sealed { .. }
            | Self::Realtime
            | Self::Fuse { .. }
            | Self::Nfs => Some(Store::Part(Disk::Sector512)),
            Self::Lower(lower) => lower.kind.store(),
            Self::Memory | Self::Shared | Self::SharedWith { .. } => None,
        }
    }
}

/// A line of the table.
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
    /// Left out unless it is named, or all are asked for.
    pub(super) rare: bool,
}

impl Setup {
    /// The disk that it has a partition of.
    const fn disk(&self) -> Option<Disk> {
        match self.kind.store() {
            Some(Store::Part(disk)) => Some(disk),
            Some(Store::Loop { .. } | Store::Linear(_) | Store::Crypt(_) | Store::Broken) => {
                Some(Disk::Sector512)
            }
            Some(Store::Zram(_) | Store::Zoned | Store::Scsi(_)) | None => None,
        }
    }

    /// Partitions that it takes of that disk.
    fn parts(&self, disk: Disk) -> usize {
        match self.kind {
            _ if self.disk() != Some(disk) => 0,
            Kind::Realtime => 2,
            _ => 1,
        }
    }

    fn zoned(&self) -> bool {
        self.kind.store() == Some(Store::Zoned)
    }

    const fn scsi(&self) -> Option<u32> {
        match self.kind.store() {
            Some(Store::Scsi(sector)) => Some(sector),
            _ => None,
        }
    }

    /// Whether it can be made beside these.
    fn fits(&self, others: &[&Self]) -> bool {
        let room = self.disk().is_none_or(|disk| {
            let taken: usize = others.iter().map(|other| other.parts(disk)).sum();
            taken + self.parts(disk) <= disk.room()
        });
        let differs = |other: &&Self| {
            self.scsi().zip(other.scsi()).is_some_and(|(one, another)| one != another)
        };
        let zoned = self.zoned() && others.iter().any(|other| other.zoned());
        room && !zoned && !others.iter().any(differs)
    }
}

/// Sorts set-ups into as few rounds as it can; those of a round can be there at once.
pub(super) fn rounds(setups: &[&'static Setup]) -> Vec<Vec<&'static Setup>> {
    let mut rounds: Vec<Vec<&'static Setup>> = Vec::new();
    for setup in setups {
        match rounds.iter_mut().find(|round| setup.fits(round)) {
            Some(round) => round.push(setup),
            None => rounds.push(vec![setup]),
        }
    }
    rounds
}

/// Where a set-up's files are.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) setup: &'static Setup,
    /// A folder, or the one file or block device that all cells share.
    pub(super) path: PathBuf,
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
        let sections = include_str!("../../../../docs/causes.md").split("\n## ").skip(1);
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

    #[test]
    fn every_set_up_has_its_round_and_room_there() {
        let all: Vec<&Setup> = ALL.iter().collect();
        let rounds = rounds(&all);
        assert_eq!(rounds.iter().map(Vec::len).sum::<usize>(), ALL.len());
        for round in rounds {
            for disk in Disk::ALL {
                let used: usize = round.iter().map(|setup| setup.parts(disk)).sum();
                assert!(used <= disk.room());
            }
            let sectors: std::collections::BTreeSet<_> =
                round.iter().filter_map(|setup| setup.scsi()).collect();
            assert!(sectors.len() <= 1);
        }
    }
}
