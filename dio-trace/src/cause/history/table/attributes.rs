//! Attributes of files, and file systems with a direct path of their own: encryption, DAX, blocks
//! that must be allocated, extents that are shared.

use dio_trace_common::abi::Op;

use super::{EXFAT_IOMAP, IOMAP, NTFS3_IOMAP};
use crate::cause::history::change::{Change, Effect, Turn, commit};

const FSCRYPT: &[&str] = &["ext4", "f2fs"];

pub(super) const CHANGES: &[Change] = &[
    Change {
        id: "tmpfs-no-effect",
        causes: &["tmpfs"],
        fact: "tmpfs takes O_DIRECT, which has no effect there",
        on: &["tmpfs"],
        since: Some(TMPFS),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "tmpfs-open-refused",
        causes: &["open-refused", "tmpfs"],
        fact: "tmpfs refuses O_DIRECT",
        on: &["tmpfs"],
        until: Some(TMPFS),
        effect: Effect::OpenRefused,
        ..Change::ANY
    },
    Change {
        id: "encrypted-always-cached",
        causes: &["encrypted"],
        fact: "encrypted files go through the page cache, with the mount option inlinecrypt too",
        on: FSCRYPT,
        until: Some(Turn::at(5, 18).made_by(&[
            commit("489734ef94f4", "iomap: support direct I/O with fscrypt using blk-crypto"),
            commit("38ea50daa7a4", "ext4: support direct I/O with fscrypt using blk-crypto"),
        ])),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "encrypted-cached",
        causes: &["encrypted"],
        fact: "encrypted files go through the page cache unless the mount has inlinecrypt",
        note: "later the option only decides whether hardware may encrypt",
        on: FSCRYPT,
        until: Some(Turn::at(7, 3).made_by(&[
            commit(
                "5acc6f649a68",
                "fscrypt: Always use blk-crypto for contents on block-based filesystems",
            ),
            commit("35f440660fd5", "fscrypt: Remove fscrypt_dio_supported()"),
        ])),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "invalidation-falls-back",
        causes: &["cache-not-invalidated"],
        fact: "a direct write whose cached pages cannot be dropped goes through the page cache",
        note: "before, that was ignored",
        on: IOMAP,
        op: Some(Op::Write),
        since: Some(Turn::at(5, 9).made_by(&[commit(
            "60263d5889e6",
            "iomap: fall back to buffered writes for invalidation failures",
        )])),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "xfs-zoned-unaligned",
        causes: &["xfs-unaligned-cow"],
        fact: "xfs writes off the block go through the page cache on a zoned realtime device, \
               without any shared extent",
        note: "read in the source, not measured",
        on: &["xfs"],
        op: Some(Op::Write),
        since: Some(XFS_ZONED),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "xfs-zoned-segments",
        causes: &["xfs-unaligned-cow"],
        fact: "xfs writes with a segment off the block do so too on a zoned realtime device",
        note: "read in the source, not measured",
        on: &["xfs"],
        op: Some(Op::Write),
        since: Some(XFS_ZONED),
        until: Some(Turn::about(6, 19).made_by(&[
            commit("001397f5ef49", "iomap: add IOMAP_DIO_FSBLOCK_ALIGNED flag"),
            commit("8caec6c9fef7", "xfs: support sub-block aligned vectors in always COW mode"),
        ])),
        effect: Effect::Cached,
    },
    Change {
        id: "exfat-growth-cached",
        causes: &["allocating-write"],
        fact: "exfat writes that need new clusters or begin past the valid length of the file go \
               through the page cache",
        note: "its end was read in the source, not measured",
        on: &["exfat"],
        op: Some(Op::Write),
        until: Some(Turn::at(7, 2).made_by(&[EXFAT_IOMAP])),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "ext2-read-goes-on-cached",
        causes: &["direct-part-short"],
        fact: "where a direct read of ext2 ends early, the kernel goes on through the page cache",
        on: &["ext2"],
        op: Some(Op::Read),
        until: Some(
            Turn::at(6, 5)
                .not_before(6, 4)
                .made_by(&[commit("fb5de4358e1a", "ext2: Move direct-io to use iomap")]),
        ),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "ntfs3-read-goes-on-cached",
        causes: &["direct-part-short"],
        fact: "where a direct read of ntfs3 ends early, the kernel goes on through the page cache",
        on: &["ntfs3"],
        op: Some(Op::Read),
        until: Some(Turn::at(7, 0).made_by(&[NTFS3_IOMAP])),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "exfat-read-goes-on-cached",
        causes: &["direct-part-short"],
        fact: "where a direct read of exfat ends early, the kernel goes on through the page cache",
        on: &["exfat"],
        op: Some(Op::Read),
        until: Some(Turn::at(7, 2).made_by(&[EXFAT_IOMAP])),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "reiserfs-exists",
        causes: &["allocating-write"],
        fact: "the kernel has reiserfs",
        on: &["reiserfs"],
        until: Some(
            Turn::about(6, 13).made_by(&[commit("fb6f20ecb121", "reiserfs: The last commit")]),
        ),
        effect: Effect::Exists,
        ..Change::ANY
    },
    Change {
        id: "bcachefs-exists",
        causes: &["unseen-path"],
        fact: "the kernel has bcachefs",
        note: "it is also built out of the tree",
        on: &["bcachefs"],
        since: Some(Turn::at(6, 7)),
        until: Some(
            Turn::about(6, 18).made_by(&[commit("f2c61db29f27", "Remove bcachefs core code")]),
        ),
        effect: Effect::Exists,
        ..Change::ANY
    },
];

const TMPFS: Turn =
    Turn::at(6, 6).made_by(&[commit("e88e0d366f9c", "tmpfs: trivial support for direct IO")]);
const XFS_ZONED: Turn = Turn::at(6, 15).made_by(&[
    commit("2e2383405824", "xfs: implement direct writes to zoned RT devices"),
    commit(
        "6fff175279e4",
        "xfs: refine the unaligned check for always COW inodes in xfs_file_dio_write",
    ),
]);
