//! Rules for files that are stored in memory: tmpfs and DAX.

use dio_trace_common::verdict::Verdict;

use crate::cause::{Case, Reason, Rule, Scenario};

pub(super) const TMPFS: Rule = Rule {
    id: "tmpfs",
    title: "tmpfs: the page cache is the storage",
    means: "A file on tmpfs (/dev/shm, often /tmp and /run) has no disk below: its pages in the \
            page cache are the file. From 6.6 on O_DIRECT is accepted there and has no effect; \
            before, open refuses it.",
    proof: "The file's file system is tmpfs.",
    fix: "for real direct I/O use a file on a disk; on tmpfs drop O_DIRECT, it has no effect",
    on: "tmpfs",
    scenario: Scenario::In(&["tmpfs"]),
    test: tmpfs,
};

pub(super) const DAX: Rule = Rule {
    id: "dax",
    title: "DAX: memory is copied, no page cache, no device queue",
    means: "The file lies in persistent memory (or a virtiofs DAX window) and is read and written \
            by copying. There is no page cache to go past; O_DIRECT changes nothing.",
    proof: "The kernel's DAX path (dax_iomap_rw) ran for this request.",
    fix: "nothing is wrong: alignment does not matter here, and mmap is cheaper than read",
    on: "ext4, xfs, ext2 with -o dax or chattr +x; virtiofs with dax; erofs",
    scenario: Scenario::In(&["ext4-dax", "xfs-dax"]),
    test: dax,
};

fn tmpfs(case: &Case<'_>) -> Option<Reason> {
    case.verdict(Verdict::Memory).then(|| {
        Reason::proven("tmpfs: the page cache is the storage, there is nothing to bypass it for")
    })
}

fn dax(case: &Case<'_>) -> Option<Reason> {
    (case.verdict(Verdict::Dax) && !case.decision.outcome.is_short()).then(|| {
        Reason::proven("the file is in memory (DAX): it is copied, O_DIRECT makes no difference")
    })
}
