//! What lies below the file system: loop devices, files, other file systems, devices that need
//! stable pages.

use crate::cause::history::change::{Change, Effect, Stable, Turn, commit};

pub(super) const CHANGES: &[Change] = &[
    Change {
        id: "loop-block-size",
        causes: &["loop-buffered"],
        fact: "a loop device does direct I/O only if its block is no smaller than that of the device \
               below its file",
        note: "later the limits of the file itself count (STATX_DIOALIGN)",
        until: Some(Turn::at(6, 15).made_by(&[commit(
            "f4774e92aab8",
            "loop: take the file system minimum dio alignment into account",
        )])),
        effect: Effect::Limits,
        ..Change::ANY
    },
    Change {
        id: "loop-memory-limit",
        causes: &["loop-buffered", "misaligned"],
        fact: "a loop device that does direct I/O has the memory alignment of its file",
        since: Some(Turn::at(7, 3).made_by(&[commit(
            "6c8dec275ccc",
            "loop: set dma_alignment from the backing file for direct I/O",
        )])),
        effect: Effect::Limits,
        ..Change::ANY
    },
    Change {
        id: "xfs-bounced",
        causes: &["bounced"],
        fact: "xfs does direct I/O by way of kernel pages if its device needs stable pages",
        on: &["xfs"],
        since: Some(Turn::at(7, 0).made_by(&[
            commit("c9d114846b38", "iomap: add a flag to bounce buffer direct I/O"),
            commit(
                "3373503df025",
                "xfs: use bounce buffering direct I/O when the device requires stable pages",
            ),
        ])),
        effect: Effect::Direct,
        ..Change::ANY
    },
    Change {
        id: "erofs-file-mount",
        causes: &["erofs-file-backed"],
        fact: "erofs can be mounted straight from a file",
        on: &["erofs"],
        since: Some(
            Turn::at(6, 12)
                .made_by(&[commit("fb176750266a", "erofs: add file-backed mount support")]),
        ),
        effect: Effect::Exists,
        ..Change::ANY
    },
    Change {
        id: "fuse-passthrough",
        causes: &["below-buffered"],
        fact: "a FUSE daemon can hand reads and writes on to a file of its own (passthrough)",
        on: &["fuse", "fuseblk"],
        since: Some(
            Turn::about(6, 9)
                .made_by(&[commit("57e1176e6086", "fuse: implement read/write passthrough")]),
        ),
        effect: Effect::Exists,
        ..Change::ANY
    },
    Change {
        id: "overlay-open-test",
        causes: &["open-refused"],
        fact: "an overlay asks the file system below whether the file takes O_DIRECT",
        on: &["overlay"],
        since: Some(
            Turn::about(5, 15)
                .made_by(&[commit(
                    "1dc1eed46f9f",
                    "ovl: fix IOCB_DIRECT if underlying fs doesn't support direct IO",
                )])
                .stable(&[Stable::from(5, 10, 73), Stable::from(5, 14, 12)]),
        ),
        effect: Effect::OpenRefused,
        ..Change::ANY
    },
];
