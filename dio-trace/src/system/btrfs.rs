//! Reads from sysfs how a btrfs stores its data.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// How a btrfs spreads data over its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    Single,
    Raid0,
    Dup,
    Raid1,
    Raid1c3,
    Raid1c4,
    Raid10,
    Raid5,
    Raid6,
    /// One that this table does not have.
    #[serde(other)]
    Unknown,
}

impl Profile {
    /// All with their names in sysfs (fs/btrfs/volumes.c:btrfs_raid_array).
    const NAMES: &'static [(&'static str, Self)] = &[
        ("single", Self::Single),
        ("raid0", Self::Raid0),
        ("dup", Self::Dup),
        ("raid1", Self::Raid1),
        ("raid1c3", Self::Raid1c3),
        ("raid1c4", Self::Raid1c4),
        ("raid10", Self::Raid10),
        ("raid5", Self::Raid5),
        ("raid6", Self::Raid6),
    ];

    fn from_name(name: &str) -> Self {
        let row = Self::NAMES.iter().find(|(known, _)| *known == name);
        row.map_or(Self::Unknown, |(_, profile)| *profile)
    }

    /// The name in sysfs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        let row = Self::NAMES.iter().find(|(_, profile)| *profile == self);
        row.map_or("unknown", |(name, _)| name)
    }

    /// True if a block of data is stored more than once, or with parity.
    #[must_use]
    pub const fn keeps_copies(self) -> bool {
        !matches!(self, Self::Single | Self::Raid0 | Self::Unknown)
    }
}

/// Most profiles read for one file system. There are two during a conversion.
const MAX_PROFILES: usize = 4;

/// The data profiles of the btrfs that the block device belongs to; empty if
/// there is none (fs/btrfs/sysfs.c: /sys/fs/btrfs/UUID/allocation/data).
pub(crate) fn data_profiles(device: (u32, u32)) -> Vec<Profile> {
    profiles_below(Path::new("/sys/fs/btrfs"), device)
}

fn profiles_below(root: &Path, (major, minor): (u32, u32)) -> Vec<Profile> {
    let wanted = format!("{major}:{minor}");
    let is_of = |folder: &PathBuf| {
        entries(&folder.join("devices")).iter().any(|device| {
            fs::read_to_string(device.join("dev")).is_ok_and(|dev| dev.trim_end() == wanted)
        })
    };
    let Some(folder) = entries(root).into_iter().find(is_of) else { return Vec::new() };
    let folders = entries(&folder.join("allocation/data")).into_iter().filter(|path| path.is_dir());
    let profile = |path: PathBuf| Some(Profile::from_name(path.file_name()?.to_str()?));
    folders.filter_map(profile).take(MAX_PROFILES).collect()
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_that_of_the_devices_file_system() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("features/raid56", "0\n");
        write("a/devices/vdb/dev", "254:16\n");
        write("a/allocation/data/single/used_bytes", "1\n");
        write("b/devices/vdc/dev", "254:32\n");
        write("b/devices/vdd/dev", "254:48\n");
        write("b/allocation/data/raid1/used_bytes", "1\n");
        write("b/allocation/data/flags", "1\n");
        assert_eq!(profiles_below(root.path(), (254, 48)), [Profile::Raid1]);
        assert_eq!(profiles_below(root.path(), (254, 16)), [Profile::Single]);
        assert!(profiles_below(root.path(), (7, 0)).is_empty());
    }
}
