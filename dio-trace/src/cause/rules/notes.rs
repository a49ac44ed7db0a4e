//! Notes on healthy requests: a buffered loop device, bounce buffers, a server that may cache.

use dio_trace_common::{evidence::seen, verdict::Verdict};

use crate::{
    cause::{Case, Reason, Rule, Scenario},
    system::device::{Layer, LayerKind},
};

pub(in crate::cause) const LOOP_BUFFERED: Rule = Rule {
    id: "loop-buffered",
    title: "a loop device below reads its file through the cache",
    means: "The request went past the page cache as far as the loop device; the loop driver then \
            read or wrote the backing file through the page cache, so that the data is cached \
            after all, below. Loop devices do so unless they are told otherwise.",
    proof: "The request is direct, and a loop device below it (its own, or that of its file \
            system) has /sys/block/loopN/loop/dio 0.",
    fix: "`losetup --direct-io=on /dev/loopN` (the backing file's file system must support it: \
          `cat /sys/block/loopN/loop/dio` says 1 then)",
    on: "loop devices, and file systems mounted from an image file",
    scenario: Scenario::In(&["loop-buffered", "loop-odd", "ext4-loop-buffered"]),
    test: loop_buffered,
};

pub(super) const BOUNCED: Rule = Rule {
    id: "bounced",
    title: "direct, through a copy in kernel memory",
    means: "Where a buffer must not change under a write (a device with checksums or parity, a \
            btrfs with checksums) kernels from 7.x on copy it into pages of their own first. The \
            page cache is not involved: it costs a copy, and no memory stays used.",
    proof: "The kernel copied this request into pages of its own (bio_iov_iter_bounce).",
    fix: "nothing is wrong: it is the price of checksums. `chattr +C` on btrfs (no checksums), or a \
          device without stable writes (`cat /sys/block/DISK/queue/stable_writes`), does without",
    on: "btrfs (writes) and xfs on 7.x",
    scenario: Scenario::In(&["btrfs"]),
    test: bounced,
};

pub(super) const SERVER_MAY_CACHE: Rule = Rule {
    id: "server-may-cache",
    title: "direct as far as this client; the server may cache",
    means: "The request went past this machine's page cache to the server or daemon. What happens \
            there is not seen: nfsd reads through its own page cache, a FUSE daemon opens its \
            files as it likes (bindfs and most others: buffered).",
    proof: "The file is on nfs, cifs, 9p, ceph or fuse, and no probe of the page cache saw the \
            bytes here.",
    fix: "nothing is wrong here; run dio-trace on the server, or on the daemon: `dio-trace attach -p \
          PID`",
    on: "nfs, cifs, 9p, ceph, fuse, virtiofs",
    scenario: Scenario::In(&["9p-none", "fuse-bindfs", "fuse-plain", "fuse-directio"]),
    test: server_may_cache,
};

fn loop_buffered(case: &Case<'_>) -> Option<Reason> {
    buffered_below(case.layers()).filter(|_| case.verdict(Verdict::Direct))
}

/// Describes the first loop device among `layers` that reads its file through the page cache.
pub(in crate::cause) fn buffered_below(layers: &[Layer]) -> Option<Reason> {
    layers.iter().find_map(|layer| match &layer.kind {
        LayerKind::Loop { file, direct: false } => Some(Reason::proven(format!(
            "/dev/{} below reads and writes {file} through the page cache (dio is 0)",
            layer.name
        ))),
        _ => None,
    })
}

fn bounced(case: &Case<'_>) -> Option<Reason> {
    if !case.verdict(Verdict::Direct) || !case.seen(seen::BOUNCED) {
        return None;
    }
    Some(Reason::proven(if case.attrs.device.stable_writes == Some(true) {
        "the device needs pages that do not change (stable_writes): the kernel copies first"
            .to_owned()
    } else {
        format!("{} has checksums or parity over this data: the kernel copies first", case.fs)
    }))
}

fn server_may_cache(case: &Case<'_>) -> Option<Reason> {
    case.verdict(Verdict::Client).then(|| {
        let fs = case.fs;
        Reason::proven(format!(
            "past this machine's page cache; the {fs} server or daemon may cache it"
        ))
    })
}
