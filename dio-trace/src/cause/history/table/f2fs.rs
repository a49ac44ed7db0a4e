//! f2fs.

use dio_trace_common::abi::Op;

use super::F2FS_IOMAP;
use crate::cause::history::change::{Change, Effect, Stable, Turn, commit};

const ON: &[&str] = &["f2fs"];

/// It forces buffered I/O on inline files.
const INLINE_FORCED: Turn = Turn::at(6, 11)
    .made_by(&[commit("5c8764f8679e", "f2fs: fix to force buffered IO on inline_data inode")])
    .stable(&[Stable::from(6, 1, 103)]);

pub(super) const CHANGES: &[Change] = &[
    Change {
        id: "f2fs-inline-read-cached",
        causes: &["inline-data"],
        fact: "f2fs reads of inline files go through the page cache",
        on: ON,
        op: Some(Op::Read),
        since: Some(INLINE_FORCED),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "f2fs-inline-write-cached",
        causes: &["inline-data"],
        fact: "f2fs writes of inline files go through the page cache",
        on: ON,
        op: Some(Op::Write),
        since: Some(INLINE_FORCED),
        until: Some(
            Turn::at(6, 13)
                .made_by(&[commit(
                    "26e6f59d0bba",
                    "f2fs: fix to avoid forcing direct write to use buffered IO on inline_data inode",
                )])
                // 6.12.117 writes them directly, as measured.
                .stable(&[Stable::from(6, 1, 120), Stable::by(6, 12, 117)]),
        ),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "f2fs-zoned-read-cached",
        causes: &["f2fs-zoned"],
        fact: "f2fs reads on a zoned device go through the page cache",
        on: ON,
        op: Some(Op::Read),
        until: Some(
            Turn::at(6, 1)
                .made_by(&[commit("689fe57e7ece", "f2fs: allow direct read for zoned device")])
                .stable(&[Stable::from(6, 0, 3)]),
        ),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "f2fs-zoned-pinned-cached",
        causes: &["f2fs-zoned"],
        fact: "f2fs writes of pinned files on a zoned device go through the page cache",
        on: ON,
        op: Some(Op::Write),
        until: Some(Turn::at(6, 10).made_by(&[commit(
            "b2cf5a1ff236",
            "f2fs: allow direct io of pinned files for zoned storage",
        )])),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "f2fs-multi-device-cached",
        causes: &["f2fs-multi-device"],
        fact: "everything goes through the page cache on an f2fs over several devices, whatever \
               their blocks",
        on: ON,
        until: Some(
            Turn::at(5, 16)
                .made_by(&[commit("71f2c8206202", "f2fs: multidevice: support direct IO")]),
        ),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "f2fs-write-stays-dirty",
        causes: &[
            "f2fs-misaligned",
            "f2fs-compressed",
            "f2fs-zoned",
            "f2fs-checkpoint-disabled",
            "inline-data",
            "dirty-left",
        ],
        fact: "a direct write that f2fs takes through the page cache stays dirty there",
        note: "before and after, it is written back and dropped",
        on: ON,
        op: Some(Op::Write),
        since: Some(Turn::at(5, 17).made_by(&[F2FS_IOMAP])),
        until: Some(Turn::at(6, 4).made_by(&[commit(
            "92318f20d703",
            "f2fs: preserve direct write semantics when buffering is forced",
        )])),
        effect: Effect::SideEffect,
    },
    Change {
        id: "f2fs-read-goes-on-cached",
        causes: &["direct-part-short"],
        fact: "where a direct read of f2fs ends early, the kernel goes on through the page cache",
        on: ON,
        op: Some(Op::Read),
        until: Some(Turn::at(5, 17).made_by(&[F2FS_IOMAP])),
        effect: Effect::Cached,
        ..Change::ANY
    },
];
