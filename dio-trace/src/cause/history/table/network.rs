//! Clients of a server: nfs, 9p.

use super::NFS;
use crate::cause::history::change::{Change, Effect, Stable, Turn, commit};

pub(super) const CHANGES: &[Change] = &[
    Change {
        id: "9p-loose-cached",
        causes: &["client-cached"],
        fact: "9p mounted with cache=loose or fscache serves O_DIRECT through the page cache",
        note: "the end was read in the source; 6.12.117 was measured",
        on: &["9p"],
        until: Some(
            Turn::about(6, 8)
                .made_by(&[commit("80105ed2fd27", "9p: Use netfslib read/write_iter")]),
        ),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "nfs-localio",
        causes: &["server-may-cache"],
        fact: "an NFS client on the machine of its server reads and writes the server's file itself \
               (LOCALIO), through this machine's page cache if it is not told otherwise",
        note: "whether a later kernel goes direct without being told is not established",
        on: NFS,
        since: Some(Turn::at(6, 12).made_by(&[commit("70ba381e1a43", "nfs: add LOCALIO support")])),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "nfs-localio-direct",
        causes: &["server-may-cache"],
        fact: "LOCALIO can do so with O_DIRECT",
        note: "6.12.118 does so only with the module parameter localio_O_DIRECT_semantics; a revert \
               was seen, whether a release has it is not established",
        on: NFS,
        since: Some(
            Turn::at(6, 14)
                .made_by(&[commit(
                    "3feec68563dd",
                    "nfs/localio: add direct IO enablement with sync and async IO support",
                )])
                .stable(&[Stable::from(6, 12, 48)]),
        ),
        effect: Effect::Direct,
        ..Change::ANY
    },
    Change {
        id: "nfs-localio-split",
        causes: &["server-may-cache"],
        fact: "LOCALIO splits a misaligned direct request: head and tail go through this machine's \
               page cache",
        on: NFS,
        since: Some(Turn::at(6, 18).made_by(&[
            commit("25ba2b84c38f", "nfs/localio: avoid issuing misaligned IO using O_DIRECT"),
            commit("c817248fc831", "nfs/localio: add proper O_DIRECT support for READ and WRITE"),
        ])),
        effect: Effect::Cached,
        ..Change::ANY
    },
    Change {
        id: "nfsd-direct",
        causes: &["server-may-cache"],
        fact: "nfsd can read and write directly, if it is told so in debugfs",
        note: "by default it uses its page cache",
        on: NFS,
        since: Some(Turn::at(6, 19).made_by(&[
            commit("d686e64e931c", "NFSD: Implement NFSD_IO_DIRECT for NFS READ"),
            commit("06c5c97293e3", "NFSD: Implement NFSD_IO_DIRECT for NFS WRITE"),
        ])),
        ..Change::ANY
    },
];
