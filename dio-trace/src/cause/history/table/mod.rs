//! The table of changes, by subject. A hash stands here only if it was seen next to its subject, in
//! a push to kernel.org, a pull request, a `Fixes:` tag or an "upstream commit" line.

mod alignment;
mod attributes;
mod below;
mod btrfs;
mod errors;
mod f2fs;
mod network;
mod open;

use crate::cause::history::change::{Change, Commit, Stable, Turn, commit};

/// All changes, by subject.
pub(super) const TABLES: &[&[Change]] = &[
    alignment::CHANGES,
    errors::CHANGES,
    attributes::CHANGES,
    btrfs::CHANGES,
    f2fs::CHANGES,
    network::CHANGES,
    below::CHANGES,
    open::CHANGES,
];

/// File systems whose direct path is iomap on every kernel of the table, and block devices.
const IOMAP: &[&str] = &["bdev", "ext3", "ext4", "gfs2", "xfs", "zonefs"];
/// The file systems and devices whose alignment test 6.18 simplified.
const SIMPLIFIED: &[&str] = &["bdev", "erofs", "ext3", "ext4", "f2fs", "gfs2", "xfs", "zonefs"];
/// What the driver of ext4 mounts.
const EXT4: &[&str] = &["ext3", "ext4"];
const NFS: &[&str] = &["nfs", "nfs4"];

/// It changes which error ends an iteration of iomap.
const ADVANCES: Commit = commit("bc264fea0f6f", "iomap: support incremental iomap_iter advances");
const F2FS_IOMAP: Commit = commit("a1e09b03e6f5", "f2fs: use iomap for direct I/O");
const NTFS3_IOMAP: Commit =
    commit("099ef9ab9203", "fs/ntfs3: implement iomap-based file operations");
const EXFAT_IOMAP: Commit = commit("867b9c96dc83", "exfat: add iomap direct I/O support");
const CIFS_NETFS: Commit = commit("3ee1a1fc3981", "cifs: Cut over to using netfslib");

/// 6.18 tests offset and length alone.
const SIMPLER_TEST: Turn = Turn::at(6, 18).made_by(&[
    commit("5ff3f74e145a", "block: simplify direct io validity check"),
    commit("7eac33186957", "iomap: simplify direct io validity check"),
]);
/// 7.3 tests each segment while it takes the user's pages. 6.18.15 does not, as measured.
const SEGMENTS_TESTED: Turn = Turn::at(7, 3)
    .made_by(&[commit("14b007e17881", "block: validate user space vectors during extraction")])
    .stable(&[
        Stable::by(7, 2, 12),
        Stable::after(6, 18, 15),
        Stable::after(7, 0, 0),
        Stable::after(7, 1, 0),
    ]);
/// btrfs copies instead of going through the page cache. 6.18.15 does not, as measured.
const BTRFS_BOUNCES: Turn = Turn::at(7, 3)
    .made_by(&[commit(
        "e9b7b9d9e78e",
        "btrfs: use IOMAP_DIO_BOUNCE flag instead of falling back to buffered IO",
    )])
    .stable(&[Stable::after(6, 18, 15), Stable::after(7, 2, 12), Stable::Others]);
/// The driver of ntfs that has direct I/O.
const NEW_NTFS: Turn =
    Turn::at(7, 1).made_by(&[commit("cdd4dc3aebea", "Merge tag 'ntfs-for-7.1-rc1-v2'")]);
