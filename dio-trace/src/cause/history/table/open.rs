//! Files that refuse O_DIRECT itself.

use crate::cause::history::change::{Change, Effect, Stable, Turn, commit};

pub(super) const CHANGES: &[Change] = &[
    Change {
        id: "erofs-open-refused",
        causes: &["open-refused"],
        fact: "erofs refuses O_DIRECT for every file, uncompressed ones too",
        on: &["erofs"],
        until: Some(
            Turn::at(5, 15)
                .made_by(&[commit("a08e67a02802", "erofs: iomap support for non-tailpacking DIO")]),
        ),
        effect: Effect::OpenRefused,
        ..Change::ANY
    },
    Change {
        id: "ntfs3-compressed-open-refused",
        causes: &["open-refused"],
        fact: "ntfs3 refuses O_DIRECT for a compressed file",
        on: &["ntfs3"],
        until: Some(Turn::about(6, 16).stable(&[Stable::from(6, 12, 34)])),
        effect: Effect::OpenRefused,
        ..Change::ANY
    },
    Change {
        id: "can-odirect",
        causes: &["open-refused"],
        fact: "a file takes O_DIRECT if its file system says so at open (FMODE_CAN_ODIRECT)",
        note: "before, if it has a direct_IO operation",
        since: Some(
            Turn::about(5, 19)
                .made_by(&[commit("a2ad63daa88b", "VFS: add FMODE_CAN_ODIRECT file flag")]),
        ),
        ..Change::ANY
    },
];
