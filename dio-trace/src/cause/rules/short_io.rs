//! Rules for short counts: requests that moved fewer bytes than asked for.

use dio_trace_common::{evidence::seen, verdict::Outcome};

use crate::{
    cause::{Case, Reason, Rule, Scenario},
    util::errno,
};

pub(super) const FAULT: Rule = Rule {
    id: "short-fault",
    title: "short: the buffer is not mapped to its end",
    means: "A page of the buffer could not be used after the first ones had been. Block devices \
            and the legacy direct path (vfat, hfs, jfs and others) return what had been moved; \
            ext4, xfs and f2fs fail the whole request with EFAULT instead.",
    proof: "The outcome: the kernel met a fault in the buffer within this request.",
    fix: "compare the buffer's address and length with /proc/PID/maps; look for a length larger \
          than the allocation",
    on: "block devices, vfat, btrfs",
    scenario: Scenario::Needs("a buffer that runs into an unmapped page"),
    test: |case| {
        let r = case.request;
        case.outcome(Outcome::Fault).then(|| {
            let (moved, asked) = (r.ret, r.len);
            Reason::proven(format!("the buffer could not be used after {moved} of {asked} bytes"))
        })
    },
};

pub(super) const SIGNAL: Rule = Rule {
    id: "short-signal",
    title: "short: a signal ended it half-way",
    means: "A fatal signal reached the thread after some bytes had been moved. Direct requests to \
            a local disk are not interrupted; those to a server and those that went on through the \
            page cache are.",
    proof: "The outcome: the wait ended with EINTR after progress.",
    fix: "nothing is wrong with the file: find who sends the signal (`strace -e signal -p PID`)",
    on: "nfs, cifs, fuse; any after a fallback",
    scenario: Scenario::Needs("a signal in the middle of a request to a slow server"),
    test: |case| {
        let r = case.request;
        case.outcome(Outcome::Signal).then(|| {
            Reason::proven(format!("a signal ended it after {} of {} bytes", r.ret, r.len))
        })
    },
};

pub(super) const MEDIA: Rule = Rule {
    id: "short-media",
    title: "short: a poisoned page of persistent memory",
    means: "A DAX read or write met memory with an uncorrectable error after some bytes, and \
            returns what it had.",
    proof: "The DAX path ran, and the count ends inside the file.",
    fix: "look at `dmesg -T` and `ndctl list -M`; overwriting the block may clear the error",
    on: "ext4, xfs, ext2 with DAX",
    scenario: Scenario::Needs("a pmem device with a bad block"),
    test: |case| {
        let r = case.request;
        case.outcome(Outcome::Media).then(|| {
            let (moved, asked) = (r.ret, r.len);
            Reason::proven(format!(
                "persistent memory failed {moved} bytes into the {asked} asked for"
            ))
        })
    },
};

pub(super) const SERVER: Rule = Rule {
    id: "short-server",
    title: "short: the server or daemon answered with less",
    means: "The count is what the FUSE daemon or the network server answered, though the file went \
            on by what this client knew when it asked. A FUSE client in cached mode takes such an \
            answer for the new end of the file, and so do later requests. A request that the client cut into several may also end \
            at the first one that failed; the error is then not returned.",
    proof: "The file is on such a client, and the count ends inside the file as it was when the \
            request began.",
    fix: "go on where it stopped, as POSIX lets any read be short; look at the server's log and at \
          rsize/wsize (`nfsstat -m`)",
    on: "fuse, virtiofs, nfs, cifs, 9p, ceph",
    scenario: Scenario::In(&["fuse-short", "fuse-short-directio"]),
    test: |case| {
        let r = case.request;
        case.outcome(Outcome::Server).then(|| {
            Reason::proven(format!("the {} server gave {} of {} bytes", case.fs, r.ret, r.len))
        })
    },
};

pub(super) const RACE: Rule = Rule {
    id: "short-race",
    title: "short: the file changed its size meanwhile",
    means: "The kernel takes the size of the file once, at the beginning. A file that grows or \
            shrinks during the request gives a count that fits neither size.",
    proof: "The outcome: the count is explained neither by the size before nor by that after, and they differ, or \
            less came back than had been read, which the kernel cuts at the end of a file alone.",
    fix: "go on where it stopped; writers and readers of one file need a lock or a size of their \
          own that says how far it is written",
    on: "any",
    scenario: Scenario::Needs("a writer at the same time; it is a race"),
    test: |case| {
        let r = case.request;
        case.outcome(Outcome::Race).then(|| {
            Reason::proven(if r.size_begin == r.size_end {
                let end = r.pos.saturating_add(r.ret);
                format!("the file ended at {end} meanwhile, and has grown again")
            } else {
                format!("the file went from {} to {} bytes meanwhile", r.size_begin, r.size_end)
            })
        })
    },
};

pub(super) const MAX_RW: Rule = Rule {
    id: "max-rw",
    title: "short: no request moves more than 2 GiB less one page",
    means: "Linux moves at most MAX_RW_COUNT bytes in one read or write, whatever is asked for: \
            2 GiB less one page, which is 2147479552 with pages of 4 KiB.",
    proof: "The count is exactly that.",
    fix: "ask for at most 2147418112 bytes at a time, which are possible with every page size up to \
          64 KiB, or go on where it stopped",
    on: "any",
    scenario: Scenario::Needs("a file and a buffer of more than 2 GiB"),
    test: |case| {
        case.outcome(Outcome::MaxRw).then(|| {
            let (asked, most) = (case.request.len, case.request.ret);
            Reason::proven(format!("one request moves at most {most} bytes; {asked} asked"))
        })
    },
};

pub(super) const OTHER: Rule = Rule {
    id: "short-other",
    title: "short: it stopped inside the file",
    means: "A direct request to a local disk is served in full or fails. A count in between comes \
            from the page-cache part of one that fell back, which stops at the first page that \
            cannot be read or written (a bad sector, a full disk, a quota, RLIMIT_FSIZE); or, on a \
            device or the legacy direct path (vfat; exfat before 7.2), from a buffer that ends early.",
    proof: "The count ends inside the file, and none of the other ends fits. The error that \
            stopped it is named where a probe saw one; else it is likely.",
    fix: "ask for the rest, which returns the error itself; look at `dmesg -T`, `df -h FILE` and \
          `ulimit -f`",
    on: "any after a fallback",
    scenario: Scenario::Needs("a bad sector below a file that is read through the page cache"),
    test: other,
};

pub(super) const DEVICE_END: Rule = Rule {
    id: "device-end",
    title: "short: the device ends here",
    means: "A request that crosses the end of a block device gets what is left. Devices whose size \
            is no multiple of 4096 (loop files, partitions) end so.",
    proof: "Offset plus count is the device's size.",
    fix: "nothing is wrong: the last request before the end of a device is short \
          (`blockdev --getsize64 DEV`)",
    on: "block devices",
    scenario: Scenario::In(&["loop-odd", "dm-linear-tail"]),
    test: |case| {
        let r = case.request;
        (case.outcome(Outcome::DeviceEnd) && !case.cached()).then(|| {
            let (end, moved) = (r.size_end, r.ret);
            Reason::proven(format!("the device ends at {end}, {moved} bytes into this request"))
        })
    },
};

pub(super) const END_OF_FILE: Rule = Rule {
    id: "end-of-file",
    title: "short: the file ends here",
    means: "A direct read that crosses the end of the file returns what is left, in bytes, not in \
            blocks: an aligned 4096-byte read of a 10000-byte file gives 1808 at offset 8192. It \
            is by far the commonest short count, and no error.",
    proof: "Offset plus count is the size that the file had before or after the request.",
    fix: "nothing is wrong: treat a short read at the end of the file as its tail, and make files \
          a multiple of the block size if that is in the way",
    on: "any",
    scenario: Scenario::In(&["ext4-512", "xfs-512", "btrfs", "f2fs", "vfat"]),
    test: |case| {
        let r = case.request;
        (case.outcome(Outcome::Eof) && !case.cached()).then(|| {
            Reason::proven(format!(
                "the file ends at {}, inside the {} bytes asked for at {}",
                r.size_end, r.len, r.pos
            ))
        })
    },
};

fn other(case: &Case<'_>) -> Option<Reason> {
    if !case.outcome(Outcome::Other) {
        return None;
    }
    let r = case.request;
    let stopped = format!("it stopped after {} of {} bytes", r.ret, r.len);
    let errors = [r.evidence.buffered_err, r.evidence.direct_err];
    if let Some(error) = errors.iter().find(|error| **error < 0) {
        let name = errno::name(-i64::from(*error));
        return Some(Reason::proven(format!("{stopped}, where the kernel met {name}")));
    }
    // The legacy direct path and the block-device path drop the error of a faulting buffer.
    let drops_fault = case.is_device() || case.seen(seen::LEGACY_DIO);
    let guess = match (case.is_write(), case.cached()) {
        (true, false) if case.is_device() => "the buffer is not mapped to its end",
        (true, _) => "RLIMIT_FSIZE (`ulimit -f`), no space or a quota",
        (false, false) if drops_fault => "the buffer is not mapped to its end",
        (false, true) => "an error in the next page",
        (false, false) => "the file changed its size meanwhile",
    };
    Some(Reason::likely(format!("{guess}: {stopped}, inside the file")))
}
