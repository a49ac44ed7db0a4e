//! Rules for side effects: pages that a request had to write back or invalidate first, and dirty
//! pages that it left.

use dio_trace_common::{evidence::seen, verdict::Verdict};

use crate::{
    cause::{Case, Reason, Rule, Scenario},
    model::BufferedUser,
};

pub(super) const DIRTY_LEFT: Rule = Rule {
    id: "dirty-left",
    title: "a write stays dirty in the page cache",
    means: "A direct write that ended in the page cache may leave its pages dirty there: the disk \
            has them after the next write-back, up to 30 seconds later. Programs that take O_DIRECT \
            for durable lose them in a crash. Where a rule explains the fallback itself, that rule \
            is shown and the pages are in `effects.dirty_left_pages`.",
    proof: "A write loop through the page cache ran for this request, and nothing of the file was \
            written back before it returned. Why it went there no rule tells.",
    fix: "call fdatasync after such writes or open with O_DSYNC (O_DIRECT alone never promised \
          durability); report the fallback itself with this line's --json record",
    on: "ext4 with data=journal, xfs, f2fs from 5.17 to 6.3",
    scenario: Scenario::Needs("a fallback of a write that no other rule explains"),
    test: dirty_left,
};

pub(super) const DIRTY_FLUSH: Rule = Rule {
    id: "dirty-flush",
    title: "dirty pages had to be written back first",
    means: "Pages of the file were dirty in the page cache: somebody wrote it without O_DIRECT, \
            another program or this one itself, perhaps when it made the file. A direct request must \
            not read old data from the disk or be overwritten later, so the kernel writes the dirty \
            pages of its range back first and waits: the request pays for those writes.",
    proof: "The kernel wrote pages of this file back within this request. The number is \
            approximate (docs/limitations.md).",
    fix: "where it happens once, as after a file was made: fsync it before the first direct \
          request. Where it goes on: find who writes this file without O_DIRECT (`fuser -v FILE`, \
          `lsof FILE`) and stop mixing, or let it fsync before the direct requests",
    on: "any",
    scenario: Scenario::In(&["ext4-512", "xfs-512", "bdev-512", "btrfs-nocow"]),
    test: dirty_flush,
};

pub(super) const CACHE_INVALIDATED: Rule = Rule {
    id: "cache-invalidated",
    title: "cached pages were dropped for this write",
    means: "Pages of the file were in the page cache: somebody read, wrote or mapped it without \
            O_DIRECT, another program or this one itself, perhaps when it made the file. A direct \
            write drops the pages of its range, so that nobody sees old data; whoever used them must \
            read them from the disk again.",
    proof: "The kernel took pages of this file out of the page cache within this request. The \
            number is approximate (docs/limitations.md).",
    fix: "where it happens once, as after a file was made: fsync it and drop its pages \
          (posix_fadvise with POSIX_FADV_DONTNEED), or make it with O_DIRECT. Where it goes on: find \
          who uses this file without O_DIRECT (`fuser -v FILE`, `lsof FILE`), as a backup or a \
          monitor may, and stop mixing",
    on: "any",
    scenario: Scenario::In(&["ext4-512", "xfs-512", "bdev-512", "btrfs-nocow"]),
    test: cache_invalidated,
};

pub(super) const BUFFER_CHANGED: Rule = Rule {
    id: "buffer-changed",
    title: "the buffer changed while the write was in flight",
    means: "A direct write reads the program's buffer while it is under way, perhaps several times: \
            for each copy of a mirror, for a checksum, for the device. If the program changes the \
            buffer before the write has completed, the copies of md RAID1 may differ, the checksums \
            of btrfs may not match, and the disk may have neither the old nor the new data.",
    proof: "`--verify-stable`: a sum of samples of the buffer, taken at the issue and before the \
            call returned, differs. Buffers of up to 4096 bytes are compared as a whole; of a vector \
            only the first segment is compared.",
    fix: "do not touch the buffer of a write before its call returns (or its completion is reaped): \
          find the code that shares it, or write from a copy",
    on: "any",
    scenario: Scenario::Program("reports"),
    test: buffer_changed,
};

fn buffer_changed(case: &Case<'_>) -> Option<Reason> {
    (case.seen(seen::BUFFER_CHANGED) && healthy(case)).then(|| {
        Reason::proven(
            "the buffer was changed between the issue of the write and its return: what is on the \
             disk may be a mixture",
        )
    })
}

fn dirty_left(case: &Case<'_>) -> Option<Reason> {
    (case.cached_write() && !case.seen(seen::WRITTEN_BACK)).then(|| {
        Reason::proven(format!(
            "no rule explains why it went through the page cache; {} bytes were left dirty there",
            case.decision.cached_bytes
        ))
    })
}

fn dirty_flush(case: &Case<'_>) -> Option<Reason> {
    let pages = case.request.evidence.flushed_pages;
    (pages != 0 && healthy(case)).then(|| {
        let pages = plural(pages, "dirty page");
        let effect = format!("{pages} of this file had to be written back first");
        with_users(case, &[&case.buffered_users.writers], &effect, "made them dirty")
    })
}

fn cache_invalidated(case: &Case<'_>) -> Option<Reason> {
    let pages = case.request.evidence.invalidated_pages;
    (pages != 0 && healthy(case)).then(|| {
        let were = if pages == 1 { "was" } else { "were" };
        let effect = format!("{} of this file {were} dropped", plural(pages, "cached page"));
        let users = &case.buffered_users;
        let did = "brought them into the page cache";
        with_users(case, &[&users.readers, &users.writers], &effect, did)
    })
}

/// True if the request has nothing to explain but a side effect.
fn healthy(case: &Case<'_>) -> bool {
    !case.cached() && !case.verdict(Verdict::Unknown)
}

/// The side effect, and the processes seen to use the file through the page cache, which `did`
/// describes. If none was seen, says so: a file is watched only from its first direct request on.
fn with_users(case: &Case<'_>, seen: &[&[BufferedUser]], effect: &str, did: &str) -> Reason {
    let mut names: Vec<&str> = Vec::new();
    for user in seen.iter().copied().flatten() {
        let name =
            if user.pid == case.request.task.tgid { "this process itself" } else { &user.name };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return Reason::proven(format!("{effect}; who {did} was not seen")).and_likely(
            "they were there before the file's first direct request, perhaps from this program \
             itself when it made the file",
        );
    }
    let names = names.join(", ");
    Reason::proven(format!("{effect}; it was used through the page cache by {names}"))
}

fn plural(n: u32, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}
