//! Alignment: what a request must be a multiple of, and what happens if it is not.

use dio_trace_common::abi::Op;

use super::{
    ADVANCES, EXT4, IOMAP, NEW_NTFS, NFS, NTFS3_IOMAP, SEGMENTS_TESTED, SIMPLER_TEST, SIMPLIFIED,
};
use crate::cause::history::change::{Change, Effect, Stable, Turn, commit};

pub(super) const CHANGES: &[Change] = &[
    Change {
        id: "memory-logical-block",
        causes: &["misaligned"],
        fact: "the buffer's address must be a multiple of the logical block size, though the \
               device's DMA asks for less (dma_alignment)",
        on: IOMAP,
        until: Some(Turn::at(6, 0).made_by(&[
            commit("b1a000d3b8ec", "block: relax direct io memory alignment"),
            commit("bf8d08532bc1", "iomap: add support for dma aligned direct-io"),
        ])),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "nvme-dword",
        causes: &["misaligned"],
        fact: "an NVMe device asks for buffers at multiples of 4 bytes",
        note: "before 6.0 direct I/O asks for the logical block all the same",
        on: IOMAP,
        since: Some(
            Turn::at(5, 19)
                .made_by(&[commit("52fde2c07da6", "nvme: set dma alignment to dword")])
                .stable(&[Stable::from(5, 10, 121), Stable::from(5, 18, 3)]),
        ),
        effect: Effect::Limits,
        ..Change::ANY
    },
    Change {
        id: "stacked-memory-limit",
        causes: &["misaligned"],
        fact: "a stacked device (dm, md) has the memory alignment of the devices below it",
        on: IOMAP,
        since: Some(
            Turn::about(6, 1)
                .made_by(&[commit(
                    "c964d62f5cab",
                    "block: make dma_alignment a stacking queue_limit",
                )])
                .stable(&[Stable::from(6, 0, 10)]),
        ),
        effect: Effect::Limits,
        ..Change::ANY
    },
    Change {
        id: "segment-logical-block",
        causes: &["misaligned"],
        fact: "the length of each segment of a vector must be a multiple of the logical block size",
        on: SIMPLIFIED,
        until: Some(SIMPLER_TEST),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "segments-unchecked",
        causes: &["misaligned"],
        fact: "segments are not tested before the request is sent: one that is off the device's \
               limits can be served",
        on: SIMPLIFIED,
        since: Some(SIMPLER_TEST),
        until: Some(SEGMENTS_TESTED),
        effect: Effect::Direct,
        ..Change::ANY
    },
    Change {
        id: "segment-late-error",
        causes: &["io-error", "misaligned"],
        fact: "memory that is off the limits of a stacked device (dm, md, loop) can fail late, with \
               EIO instead of EINVAL",
        note: "measured on dm-crypt",
        on: SIMPLIFIED,
        since: Some(SIMPLER_TEST),
        until: Some(SEGMENTS_TESTED),
        effect: Effect::Failed,
        ..Change::ANY
    },
    Change {
        id: "ext4-misaligned-cached",
        causes: &["misaligned"],
        fact: "ext4 writes a misaligned direct write through the page cache, saying nothing",
        on: EXT4,
        op: Some(Op::Write),
        since: Some(Turn::at(6, 15).made_by(&[ADVANCES])),
        until: Some(
            Turn::at(6, 18)
                .made_by(&[commit(
                    "963845748fe6",
                    "ext4: fail unaligned direct IO write with EINVAL",
                )])
                .stable(&[Stable::some(6, 17), Stable::after(6, 15, 0), Stable::after(6, 16, 0)]),
        ),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "erofs-own-alignment",
        causes: &["misaligned"],
        fact: "erofs itself asks that offset, length and buffer keep to the logical block, for the \
               tail of a file too",
        on: &["erofs"],
        op: Some(Op::Read),
        until: Some(
            Turn::at(6, 13).made_by(&[commit("b49c0215b176", "erofs: clarify direct I/O support")]),
        ),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "ntfs3-misaligned-refused",
        causes: &["misaligned"],
        fact: "ntfs3 refuses what is off the device's sectors",
        on: &["ntfs3"],
        until: Some(Turn::at(7, 0).made_by(&[NTFS3_IOMAP])),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "ntfs3-misaligned-cached",
        causes: &["ntfs3-misaligned"],
        fact: "ntfs3 serves what is off the device's sectors through the page cache",
        on: &["ntfs3"],
        since: Some(Turn::at(7, 0).made_by(&[NTFS3_IOMAP])),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "ntfs-own-block",
        causes: &["misaligned"],
        fact: "the new ntfs driver refuses what is off its own block",
        note: "the ntfs of 6.8 and before is another driver",
        on: &["ntfs"],
        since: Some(NEW_NTFS),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "statx-limits",
        causes: &["misaligned", "no-direct-io"],
        fact: "statx(2) tells the alignment limits of a file (STATX_DIOALIGN)",
        on: &["bdev", "ext3", "ext4", "f2fs", "xfs"],
        since: Some(Turn::at(6, 1).made_by(&[
            commit("825cf206ed51", "statx: add direct I/O alignment information"),
            commit("2d985f8c6b91", "vfs: support STATX_DIOALIGN on block devices"),
            commit("8434ef1d8aaf", "ext4: support STATX_DIOALIGN"),
            commit("c8c02272a9f7", "f2fs: support STATX_DIOALIGN"),
            commit("61a223df421f", "xfs: support STATX_DIOALIGN"),
        ])),
        ..Change::ANY
    },
    Change {
        id: "statx-limits-erofs",
        causes: &["misaligned", "no-direct-io"],
        fact: "statx(2) tells the alignment limits of a file on erofs",
        on: &["erofs"],
        since: Some(Turn::at(6, 11)),
        ..Change::ANY
    },
    Change {
        id: "statx-limits-nfs",
        causes: &["misaligned", "no-direct-io"],
        fact: "statx(2) tells the alignment limits of a file on an NFS client",
        on: NFS,
        since: Some(Turn::at(6, 18).made_by(&[commit(
            "1f0d4ab0f532",
            "NFS: add basic STATX_DIOALIGN and STATX_DIO_READ_ALIGN support",
        )])),
        ..Change::ANY
    },
    Change {
        id: "statx-read-limits",
        causes: &["misaligned"],
        fact: "statx(2) tells the limits of reads apart from those of writes \
               (STATX_DIO_READ_ALIGN)",
        on: &["xfs"],
        since: Some(Turn::about(6, 14).made_by(&[
            commit("7ed6cbe0f8ca", "fs: add STATX_DIO_READ_ALIGN"),
            commit(
                "7422bbd03021",
                "xfs: report the correct read/write dio alignment for reflinked inodes",
            ),
            commit("468210ec76e1", "xfs: report larger dio alignment for COW inodes"),
        ])),
        ..Change::ANY
    },
];
