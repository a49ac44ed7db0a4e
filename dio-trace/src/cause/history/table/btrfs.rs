//! btrfs.

use dio_trace_common::abi::Op;

use super::{ADVANCES, BTRFS_BOUNCES};
use crate::cause::history::change::{Change, Effect, Stable, Turn, commit};

const ON: &[&str] = &["btrfs"];

pub(super) const CHANGES: &[Change] = &[
    Change {
        id: "btrfs-checksums-cached",
        causes: &["btrfs-checksums"],
        fact: "btrfs writes of files with checksums go through the page cache",
        on: ON,
        op: Some(Op::Write),
        since: Some(
            Turn::at(6, 15)
                .made_by(&[commit(
                    "968f19c5b1b7",
                    "btrfs: always fallback to buffered write if the inode requires checksum",
                )])
                .stable(&[Stable::from(6, 12, 77), Stable::after(6, 6, 0)]),
        ),
        until: Some(BTRFS_BOUNCES),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "btrfs-copies-cached",
        causes: &["btrfs-copies", "btrfs-checksums"],
        fact: "all btrfs writes go through the page cache, those of files without checksums (chattr \
               +C) too, if its data profile keeps copies or parity (any but single and RAID0: `btrfs \
               filesystem df DIR`)",
        on: ON,
        op: Some(Op::Write),
        since: Some(
            Turn::at(7, 0)
                .made_by(&[commit(
                    "7c2830f00c3e",
                    "btrfs: fallback to buffered IO if the data profile has duplication",
                )])
                .stable(&[
                    Stable::from(6, 12, 75),
                    Stable::some(6, 19),
                    Stable::after(6, 6, 0),
                    Stable::after(6, 18, 0),
                ]),
        ),
        until: Some(BTRFS_BOUNCES),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "btrfs-bounced",
        causes: &["bounced"],
        fact: "btrfs copies a direct write into kernel pages first if its file has checksums, or its \
               data profile keeps copies or parity",
        on: ON,
        op: Some(Op::Write),
        since: Some(BTRFS_BOUNCES),
        effect: Effect::Direct,
        ..Change::ANY
    },
    Change {
        id: "btrfs-large-block-cached",
        causes: &["btrfs-large-block"],
        fact: "everything goes through the page cache on a btrfs whose block is larger than a page \
               (experimental)",
        on: ON,
        since: Some(
            Turn::at(6, 18)
                .made_by(&[commit("98077f7f2180", "btrfs: enable experimental bs > ps support")]),
        ),
        until: Some(
            Turn::at(7, 0)
                .made_by(&[commit("ddea91780fec", "btrfs: enable direct IO for bs > ps cases")]),
        ),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "btrfs-buffer-fault-retried",
        causes: &["btrfs-buffer-fault"],
        fact: "btrfs faults in a buffer that is not in memory and tries the direct read again",
        on: ON,
        op: Some(Op::Read),
        since: Some(Turn::at(5, 16).made_by(&[commit(
            "51bd9563b678",
            "btrfs: fix deadlock due to page faults during direct IO reads and writes",
        )])),
        until: Some(Turn::at(6, 15).made_by(&[ADVANCES])),
        effect: Effect::Direct,
        ..Change::ANY
    },
    Change {
        id: "btrfs-buffer-fault-read-cached",
        causes: &["btrfs-buffer-fault"],
        fact: "btrfs reads go through the page cache if the first page of the buffer is not in \
               memory",
        note: "measured on 6.18.15 and 7.3.4; for 6.15 to 6.17 it was read in the source",
        on: ON,
        op: Some(Op::Read),
        since: Some(Turn::at(6, 15).made_by(&[ADVANCES])),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "btrfs-buffer-fault-write-cached",
        causes: &["btrfs-buffer-fault"],
        fact: "btrfs writes of files without checksums go through the page cache if the first page \
               of the buffer is not in memory",
        note: "read in the source, not measured",
        on: ON,
        op: Some(Op::Write),
        since: Some(Turn::at(6, 15).made_by(&[ADVANCES])),
        until: Some(
            Turn::at(7, 2)
                .made_by(&[commit(
                    "acf9ed3a6c00",
                    "btrfs: retry faulting in the pages after a zero sized short direct write",
                )])
                .stable(&[Stable::Others]),
        ),
        effect: Effect::Cached,
    },
    Change {
        id: "btrfs-nowait-encoded",
        causes: &["would-block", "btrfs-compressed"],
        fact: "a btrfs request that must not wait (RWF_NOWAIT) ends with EAGAIN at a compressed or \
               inline extent",
        on: ON,
        since: Some(
            Turn::at(5, 19)
                .made_by(&[commit(
                    "a4527e1853f8",
                    "btrfs: return -EAGAIN for NOWAIT dio reads/writes on compressed and inline \
                     extents",
                )])
                .stable(&[Stable::from(5, 10, 132), Stable::from(5, 18, 13)]),
        ),
        effect: Effect::Refused,
        ..Change::ANY
    },
];
