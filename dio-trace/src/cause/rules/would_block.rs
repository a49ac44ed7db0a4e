//! Rules for requests, and attempts of requests, that must not wait.

use dio_trace_common::{
    abi::{ring, rwf, would_block as bits},
    evidence::seen,
};

use crate::cause::{Case, Reason, Rule, Scenario};

pub(super) const WOULD_BLOCK: Rule = Rule {
    id: "would-block",
    title: "EAGAIN: it must not wait, and would have had to",
    means: "RWF_NOWAIT asks for an answer at once. The kernel says EAGAIN if it would have to \
            wait: for cached or dirty pages in the range, a lock, block maps not in memory, an \
            allocation, a time stamp that a write must update (xfs from 6.0 on, ext4 from 7.3 on), \
            or a free slot in the device's queue. A block device also says so of a request that \
            takes more than one bio, and btrfs from 7.3 on of every write that needs a stable copy \
            of its buffer. io_uring's own first attempts are not requests of the program: they are \
            counted in `attempts`.",
    proof: "The request ended with EAGAIN. With `--why-eagain` the kernel functions that find a \
            reason are probed, and what they found is proven; without it the kernel does not say: \
            likely.",
    fix: "one by one nothing is wrong: repeat it without RWF_NOWAIT, or from a thread that may wait. \
          If most requests of a file end so, RWF_NOWAIT gains nothing there",
    on: "any",
    scenario: Scenario::In(&["ext4-512", "xfs-512", "btrfs"]),
    test: would_block,
};

pub(super) const PUNTED: Rule = Rule {
    id: "punted",
    title: "io_uring handed the request to a worker thread",
    means: "io_uring first tries a request without waiting, if its file supports that and the \
            program did not ask for a worker (IOSQE_ASYNC). If that attempt ends with EAGAIN, a \
            thread of io-wq makes the request again and may wait. That costs a switch of threads, \
            and writes to one file come one after another there.",
    proof: "A thread of io-wq made the last attempt, and a probe of `--why-eagain` saw why an \
            earlier one would have had to wait.",
    fix: "remove the reason if that is possible: for block mapping, overwrite blocks that have been \
          written before; for cached pages, stop mixing buffered and direct use",
    on: "io_uring on any file system",
    scenario: Scenario::Program("reports"),
    test: punted,
};

/// Bytes of 256 pages (BIO_MAX_VECS): more may not fit into one bio.
const ONE_BIO: u64 = 1 << 20;

fn would_block(case: &Case<'_>) -> Option<Reason> {
    if !case.failed_with(libc::EAGAIN) {
        return None;
    }
    if let Some(reasons) = reasons(case.request.would_block) {
        let reason = Reason::proven(format!("it would have had to wait: {reasons}"));
        return Some(with_rivals(reason, case.request.would_block));
    }
    if let Some(reason) = kept_pages(case) {
        return Some(reason);
    }
    let (len, write) = (case.request.len, case.is_write());
    // block/fops.c:__blkdev_direct_IO
    if case.is_device() && len > ONE_BIO {
        let reason = format!(
            "its {len} bytes take more than one bio (256 pages), which a block device does not \
             submit for a request that must not wait"
        );
        return Some(Reason::likely(reason).with_fix(
            "with RWF_NOWAIT ask for at most 1 MiB at a time, or repeat it without RWF_NOWAIT",
        ));
    }
    Some(Reason::likely(if write {
        "it would have had to wait: for cached or dirty pages in its range, a lock, blocks to \
         allocate, metadata not in memory, or a time stamp to update"
    } else {
        "it would have had to wait: for cached or dirty pages in its range, a lock, or metadata not \
         in memory"
    }))
}

fn punted(case: &Case<'_>) -> Option<Reason> {
    let by_worker = case.request.ring & ring::WORKER != 0 && case.request.ret >= 0;
    let reasons = by_worker.then(|| reasons(case.request.would_block)).flatten()?;
    let reason = Reason::proven(format!(
        "an attempt without waiting failed, and a worker thread (io-wq) made the request: {reasons}"
    ));
    Some(with_rivals(reason, case.request.would_block))
}

/// An atomic write that may wait, and whose range has pages in the page cache that could not be
/// dropped, also ends with EAGAIN (fs/iomap/direct-io.c:__iomap_dio_rw).
fn kept_pages(case: &Case<'_>) -> Option<Reason> {
    let flags = case.request.rw_flags;
    if flags & rwf::ATOMIC == 0 || flags & rwf::NOWAIT != 0 {
        return None;
    }
    let text = "pages of its range in the page cache could not be dropped, and an atomic write does \
                not fall back";
    let reason = if case.seen(seen::INVALIDATE_FAILED) {
        Reason::proven(text)
    } else {
        Reason::likely(text)
    };
    Some(
        reason.with_fix("repeat the write, and stop using the file through the page cache as well"),
    )
}

/// Adds what block mapping may have waited for: it has many reasons.
fn with_rivals(reason: Reason, seen: u8) -> Reason {
    if seen & bits::BLOCK_MAP == 0 {
        return reason;
    }
    reason.and_likely(
        "blocks to allocate, metadata to read, a lock, a range over several extents, or extents that \
         are shared, compressed or inline",
    )
}

/// Something that an attempt would have had to wait for.
pub struct Wait {
    /// Bit of [`bits`].
    pub bit: u8,
    /// In words: a clause, and a noun.
    clause: &'static str,
    pub noun: &'static str,
}

/// What the probes of `--why-eagain` see.
pub const WAITS: [Wait; 5] = [
    Wait {
        bit: bits::TIMESTAMP,
        clause: "a time stamp or the version of the file had to be updated, or its setuid bits or \
                 capabilities removed",
        noun: "a time stamp or version to update, or setuid bits to remove",
    },
    Wait {
        bit: bits::DIRTY,
        clause: "pages of its range in the page cache had to be written back",
        noun: "dirty pages of the range to write back",
    },
    Wait {
        bit: bits::CACHED,
        clause: "its range had pages in the page cache",
        noun: "pages of the range in the page cache",
    },
    Wait {
        bit: bits::BLOCK_MAP,
        clause: "the file system's block mapping answered EAGAIN",
        noun: "the file system's block mapping",
    },
    Wait {
        bit: bits::INODE_LOCK,
        clause: "another thread held the lock of the inode",
        noun: "the lock of the inode, which another thread held",
    },
];

/// What the attempts would have had to wait for, in words; None if no probe saw it.
fn reasons(seen: u8) -> Option<String> {
    let named: Vec<&str> =
        WAITS.iter().filter(|wait| seen & wait.bit != 0).map(|wait| wait.clause).collect();
    (!named.is_empty()).then(|| named.join("; "))
}
