//! Notes on healthy requests: a buffered loop device, bounce buffers, a server that may cache.

use dio_trace_common::{evidence::seen, verdict::Verdict};

use crate::{
    cause::{Case, Reason, Rule, Scenario},
    system::device::{Layer, LayerKind, LoopLimits},
};

pub(in crate::cause) const LOOP_BUFFERED: Rule = Rule {
    id: "loop-buffered",
    title: "a loop device below reads its file through the cache",
    means: "The request went past the page cache as far as the loop device; the loop driver then \
            read or wrote the backing file through the page cache, so that the data is cached \
            after all, below. Loop devices do so unless they are told otherwise.",
    proof: "The request is direct, and a loop device below it (its own, or that of its file \
            system) has /sys/block/loopN/loop/dio 0.",
    fix: "`losetup --direct-io=on /dev/loopN` if its sectors are no smaller than what direct I/O on \
          the backing file needs (`cat /sys/block/loopN/loop/dio` says 1 then); else detach it and \
          attach it anew with `losetup -b SIZE --direct-io=on`: what is on it then sees sectors of \
          that size",
    on: "loop devices, and file systems mounted from an image file",
    scenario: Scenario::In(&["loop-buffered", "loop-odd", "ext4-loop-buffered"]),
    test: loop_buffered,
};

pub(super) const BOUNCED: Rule = Rule {
    id: "bounced",
    title: "direct, through a copy in kernel memory",
    means: "Where a buffer must not change under a write (a device with checksums or parity, a \
            btrfs with checksums or copies) the kernel copies it into pages of its own first: xfs \
            from 7.0 on, btrfs from 7.3 on; before, nothing kept such a buffer from changing. The \
            page cache is not involved: it costs a copy, and no memory stays used.",
    proof: "The kernel copied this request into pages of its own (bio_iov_iter_bounce).",
    fix: "nothing is wrong: it is the price of checksums. `chattr +C` on btrfs (no checksums), or a \
          device without stable writes (`cat /sys/block/DISK/queue/stable_writes`), does without",
    on: "writes of xfs from 7.0 on and of btrfs from 7.3 on",
    scenario: Scenario::In(&["btrfs"]),
    test: bounced,
};

pub(super) const SERVER_MAY_CACHE: Rule = Rule {
    id: "server-may-cache",
    title: "direct as far as this client; the server may cache",
    means: "The request went past this machine's page cache to the server or daemon. What happens \
            there is not seen: nfsd reads through its own page cache, a FUSE daemon opens its \
            files as it likes (bindfs and most others: buffered). Where the NFS server is this \
            machine (LOCALIO, from 6.12 on), the client opens the server's file itself, and parts \
            that are not aligned go through this machine's page cache (from 6.18 on), in a kernel \
            thread that is not seen either.",
    proof: "The file is on nfs, cifs, 9p, ceph or fuse, and no probe of the page cache saw the \
            bytes here.",
    fix: "nothing is wrong here. A FUSE daemon's own requests are seen by `dio-trace attach -p PID`; \
          an NFS or SMB server in the kernel serves clients from its page cache unless it was told \
          otherwise, and its requests are not traced",
    on: "nfs, cifs, 9p, ceph, fuse, virtiofs",
    scenario: Scenario::In(&["9p-none", "fuse-bindfs", "fuse-plain", "fuse-directio"]),
    test: server_may_cache,
};

pub(in crate::cause) const ALIGNMENT_PROBE: Rule = Rule {
    id: "alignment-probe",
    title: "a program tries out which alignment the file needs",
    means: "A program that cannot ask for the alignment of a file finds it out: it reads at offset 0 \
            with lengths, and then with buffer addresses, that grow in powers of two, until a read \
            is not refused. QEMU does so for each image that it opens with cache=none (with buffer \
            addresses only on xfs and on block devices, which say the length), and other programs \
            do alike. The refusals are expected: they are counted as `refused`, but are no \
            findings.",
    proof: "Reads at offset 0 that ended with EINVAL, each with the next length or buffer of such a \
            series, and then one that worked and continues it. Where only findings have events, \
            the counters show that reads of the same process and file worked; a single refused read \
            is then taken for a probe only if it was of one byte, or into a buffer one byte past a \
            page. Anything else is a finding.",
    fix: "nothing is wrong: the program learns from these reads how to align the others",
    on: "qemu with cache=none, and other programs that try alignments out",
    scenario: Scenario::Program("reports"),
    test: |_| None,
};

fn loop_buffered(case: &Case<'_>) -> Option<Reason> {
    buffered_below(case.layers()).filter(|_| case.verdict(Verdict::Direct))
}

/// Describes the first loop device among `layers` that reads its file through the page cache.
pub(in crate::cause) fn buffered_below(layers: &[Layer]) -> Option<Reason> {
    layers.iter().find_map(|layer| match &layer.kind {
        LayerKind::Loop { file, direct: false, limits } => {
            let reason = Reason::proven(format!(
                "/dev/{} below reads and writes {file} through the page cache (dio is 0)",
                layer.name
            ));
            Some(match limits.refuse_direct() {
                Some(true) => reason.with_fix(attach_anew(file, limits)),
                _ => reason,
            })
        }
        _ => None,
    })
}

/// The fix where the loop device cannot do direct I/O as it is attached
/// (drivers/block/loop.c:lo_can_use_dio).
fn attach_anew(file: &str, limits: &LoopLimits) -> String {
    let LoopLimits { block, offset, needs } = *limits;
    if limits.is_shifted() {
        return format!(
            "this loop device begins at byte {offset} of {file}, and direct I/O on that file needs \
             multiples of {needs}: copy what is there to a file of its own, and attach that with \
             `losetup -b {needs} --direct-io=on -f FILE`"
        );
    }
    format!(
        "`losetup --direct-io=on` is refused (EINVAL) for this device: its sectors are {block} \
         bytes, and direct I/O on {file} needs {needs}. Detach it and attach it anew: `losetup -b \
         {needs} --direct-io=on -f FILE`. What is on it then sees sectors of {needs} bytes: a \
         partition table, and a file system made for sectors of {block}, may not be usable so"
    )
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
