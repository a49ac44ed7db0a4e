//! Requests that end with an error other than that of misalignment.

use dio_trace_common::abi::Op;

use super::{CIFS_NETFS, EXT4, NEW_NTFS, NFS};
use crate::cause::history::change::{Change, Effect, Stable, Turn, commit};

pub(super) const CHANGES: &[Change] = &[
    Change {
        id: "cifs-loose-refused",
        causes: &["invalid-request"],
        fact: "cifs mounted with cache=loose refuses every direct request",
        on: &["cifs", "smb3"],
        until: Some(Turn::at(6, 10).made_by(&[CIFS_NETFS])),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "minix-refused",
        causes: &["invalid-request"],
        fact: "a minix file can be opened with O_DIRECT, and each read of it is refused",
        note: "before, the open crashed the kernel",
        on: &["minix"],
        since: Some(
            Turn::about(5, 18)
                .made_by(&[commit(
                    "9ce3c0d26c42",
                    "minix: fix bug when opening a file with O_DIRECT",
                )])
                .stable(&[Stable::from(5, 10, 111)]),
        ),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "zonefs-ebusy",
        causes: &["other-error"],
        fact: "a zonefs write whose cached pages cannot be dropped ends with EBUSY",
        note: "before, with ENOTBLK",
        on: &["zonefs"],
        op: Some(Op::Write),
        since: Some(
            Turn::about(6, 3)
                .made_by(&[commit(
                    "77af13ba3c7f",
                    "zonefs: Do not propagate iomap_dio_rw() ENOTBLK error to user space",
                )])
                .stable(&[Stable::from(6, 1, 23)]),
        ),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "ntfs3-compressed-refused",
        causes: &["compressed-refused"],
        fact: "a compressed file of ntfs3 can be opened with O_DIRECT, and each request for it is \
               refused (EOPNOTSUPP)",
        on: &["ntfs3"],
        since: Some(Turn::about(6, 16).stable(&[Stable::from(6, 12, 34)])),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "ntfs-compressed-refused",
        causes: &["compressed-refused"],
        fact: "the new ntfs driver refuses direct requests for compressed files (EOPNOTSUPP)",
        on: &["ntfs"],
        since: Some(NEW_NTFS),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "atomic-refused-bdev",
        causes: &["flag-unsupported"],
        fact: "block devices refuse RWF_ATOMIC",
        on: &["bdev"],
        op: Some(Op::Write),
        until: Some(Turn::at(6, 11).made_by(&[
            commit("c34fc6f26ab8", "fs: Initial atomic write support"),
            commit("caf336f81b3a", "block: Add fops atomic write support"),
        ])),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "atomic-refused-ext4",
        causes: &["flag-unsupported"],
        fact: "ext4 refuses RWF_ATOMIC",
        on: EXT4,
        op: Some(Op::Write),
        until: Some(
            Turn::about(6, 13)
                .made_by(&[commit("b7987a7d69a4", "ext4: Support setting FMODE_CAN_ATOMIC_WRITE")]),
        ),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "atomic-refused-xfs",
        causes: &["flag-unsupported"],
        fact: "xfs refuses RWF_ATOMIC",
        on: &["xfs"],
        op: Some(Op::Write),
        until: Some(
            Turn::about(6, 13)
                .made_by(&[commit("3af5298ce94b", "xfs: Support setting FMODE_CAN_ATOMIC_WRITE")]),
        ),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "dontcache-known",
        causes: &["flag-unsupported"],
        fact: "the kernel knows RWF_DONTCACHE; each file system must allow it for itself",
        since: Some(Turn::at(6, 14).made_by(&[commit(
            "af6505e5745b",
            "fs: add RWF_DONTCACHE iocb and FOP_DONTCACHE file_operations flag",
        )])),
        ..Change::ANY
    },
    Change {
        id: "dontcache-refused-xfs",
        causes: &["flag-unsupported"],
        fact: "xfs refuses RWF_DONTCACHE",
        on: &["xfs"],
        until: Some(Turn::at(6, 15)),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "dontcache-refused-ext4",
        causes: &["flag-unsupported"],
        fact: "ext4 refuses RWF_DONTCACHE",
        on: EXT4,
        until: Some(
            Turn::at(6, 17)
                .made_by(&[commit("ae21c0c0ac56", "ext4: support uncached buffered I/O")]),
        ),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "dontcache-refused-nfs",
        causes: &["flag-unsupported"],
        fact: "the NFS client refuses RWF_DONTCACHE",
        on: NFS,
        until: Some(Turn::at(6, 18)),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "dontcache-refused-bdev",
        causes: &["flag-unsupported"],
        fact: "block devices refuse RWF_DONTCACHE",
        on: &["bdev"],
        until: Some(
            Turn::at(7, 3).made_by(&[commit(
                "8b5ffb43ae9d",
                "block: enable RWF_DONTCACHE for block devices",
            )]),
        ),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "nowait-clean-pages",
        causes: &["would-block"],
        fact: "any cached page in the range, a clean one too, makes a request that must not wait \
               (RWF_NOWAIT) end with EAGAIN",
        until: Some(Turn::about(5, 13).made_by(&[commit(
            "63135aa3866d",
            "mm: provide filemap_range_needs_writeback() helper",
        )])),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "nowait-times-xfs",
        causes: &["would-block"],
        fact: "an xfs write that must not wait (RWF_NOWAIT) ends with EAGAIN if a time stamp of the \
               file must be updated",
        note: "7.3.4 still does so for an ordinary write, whatever 7.0 improved",
        on: &["xfs"],
        op: Some(Op::Write),
        since: Some(
            Turn::at(6, 0).made_by(&[commit(
                "66fa3cedf16a",
                "fs: Add async write file modification handling.",
            )]),
        ),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "nowait-some-times-xfs",
        causes: &["would-block"],
        fact: "xfs can update some time stamps without waiting",
        note: "which ones is not established",
        on: &["xfs"],
        op: Some(Op::Write),
        since: Some(
            Turn::at(7, 0)
                .made_by(&[commit("08489c4f4133", "xfs: enable non-blocking timestamp updates")]),
        ),
        ..Change::ANY
    },
    Change {
        id: "nowait-times-ext4",
        causes: &["would-block"],
        fact: "an ext4 write that must not wait (RWF_NOWAIT) ends with EAGAIN if a time stamp of the \
               file must be updated",
        on: EXT4,
        op: Some(Op::Write),
        since: Some(Turn::at(7, 3).made_by(&[commit(
            "59a9d0814d9f",
            "ext4: use kiocb_modified instead of file_modified in DIO/DAX write path",
        )])),
        effect: Effect::Refused,
        ..Change::ANY
    },
    Change {
        id: "crypto-misaligned-einval",
        causes: &["io-error"],
        fact: "misaligned I/O that the block layer encrypts or decrypts (inlinecrypt) ends with \
               EINVAL",
        note: "before, with EIO",
        on: &["ext4", "f2fs"],
        since: Some(
            Turn::at(6, 18)
                .made_by(&[commit(
                    "0b39ca457241",
                    "blk-crypto: use BLK_STS_INVAL for alignment errors",
                )])
                .stable(&[Stable::from(6, 12, 60)]),
        ),
        effect: Effect::Refused,
        ..Change::ANY
    },
];
