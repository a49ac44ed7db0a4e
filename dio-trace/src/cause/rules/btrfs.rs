//! Rules for btrfs (fs/btrfs/direct-io.c; before 6.11 in inode.c and file.c).

use crate::{
    cause::{Case, Reason, Rule, Scenario, rules::alignment::needs_blocks},
    system::{extents::extent, file_attrs::flag},
};

pub(super) const MISALIGNED: Rule = Rule {
    id: "btrfs-misaligned",
    title: "btrfs: not in whole blocks, so read and written cached",
    means: "Where other file systems refuse a misaligned direct request with EINVAL, btrfs serves \
            it through the page cache and says nothing. Its block (sector size) is 4096 bytes \
            unless it was made otherwise, whatever the device's sectors are.",
    proof: "The request went through the page cache without a direct attempt, and offset, length, \
            buffer address or a segment is off the block; the sentence names each. Likely where \
            the vector's segments were not read.",
    fix: "use multiples of the block size for offset, length and buffer address (posix_memalign)",
    on: "btrfs",
    scenario: Scenario::In(&["btrfs", "btrfs-zstd", "btrfs-nocow"]),
    test: misaligned,
};

pub(super) const COMPRESSED: Rule = Rule {
    id: "btrfs-compressed",
    title: "btrfs: compressed extents go through the page cache",
    means: "A compressed extent must be read as a whole and unpacked, which btrfs does in the page \
            cache. A read is direct up to the first compressed extent and cached from there on. \
            Files are compressed by the mount option, a property or chattr +c, at the time they \
            are written: changing the option later changes nothing of what is there.",
    proof: "The extents in the range (FIEMAP) are encoded. Likely where they cannot be asked any \
            more, because a write replaced them: then the mount's option or the file's flag is \
            the reason.",
    fix: "`chattr +m DIR` (no compression; or +C), mount without compress=, then rewrite the \
          files: `btrfs filesystem defragment -r DIR` uncompresses what is there",
    on: "btrfs",
    scenario: Scenario::In(&["btrfs-zstd"]),
    test: compressed,
};

pub(super) const RACING: Rule = Rule {
    id: "btrfs-racing",
    title: "btrfs: a buffered write of this range is not finished",
    means: "btrfs writes dirty pages of the range back before a direct read, but the extent they \
            go to is finished by a worker a moment later. A read that comes first cannot trust the \
            disk yet, and is served by the page cache, where the data still is.",
    proof: "The read tried the direct path, dirty pages were flushed for it, its extents are plain \
            and it ended in the page cache. The kernel leaves no error behind: likely.",
    fix: "do not mix buffered writes and direct reads of one file; or fsync, then read",
    on: "btrfs",
    scenario: Scenario::In(&["btrfs", "btrfs-dup", "btrfs-nocow", "btrfs-zstd"]),
    test: racing,
};

pub(super) const BUFFER_FAULT: Rule = Rule {
    id: "btrfs-buffer-fault",
    title: "btrfs: the buffer had to be faulted in",
    means: "btrfs reads with page faults switched off, to be safe from deadlocks with a buffer \
            that is a mapping of the same file. If the buffer is not in memory and writable \
            (never touched, swapped out, shared since a fork), it faults it in and tries again; \
            kernels from 6.15 on give the direct attempt up and read through the page cache.",
    proof: "What remains: a read that tried the direct path and ended in the page cache though its \
            extents are plain and nothing was dirty. The kernel leaves no error behind: likely.",
    fix: "write to the buffer once before the read (memset, or mmap with MAP_POPULATE), and do not \
          read into buffers that a forked child shares",
    on: "btrfs",
    scenario: Scenario::In(&["btrfs", "btrfs-dup"]),
    test: buffer_fault,
};

pub(super) const CHECKSUMS: Rule = Rule {
    id: "btrfs-checksums",
    title: "btrfs: files with checksums are written cached",
    means: "A program that changes its buffer during a direct write leaves a checksum that does \
            not match the data. Kernels 6.15 to 7.2 (and 6.12.77 and later 6.12) therefore write \
            files with checksums (the default) through the page cache; from 7.3 on the kernel \
            copies the buffer into pages of its own instead, and the write is direct again. After \
            a cached write the pages are written back and dropped: it costs a copy, not memory.",
    proof: "A write that did not try the direct path, in whole blocks, to a file without the \
            no-checksum flag (lsattr: C). The kernel does not report why: likely.",
    fix: "`chattr +C` on the empty file or its folder (no checksums, no copy on write) makes \
          writes direct if the data profile is single or raid0 (`btrfs filesystem df DIR`); \
          kernels from 7.3 on need neither",
    on: "btrfs on 6.12.77 and later 6.12, 6.15 to 7.2",
    scenario: Scenario::In(&["btrfs", "btrfs-zstd"]),
    test: checksums,
};

pub(super) const COPIES: Rule = Rule {
    id: "btrfs-copies",
    title: "btrfs: data kept in copies is written cached",
    means: "A program that changes its buffer during a direct write leaves copies that differ. \
            Kernels 7.0 to 7.2 (and 6.12.75 and later 6.12, 6.19) therefore write every file of a \
            file system whose data profile keeps copies or parity (DUP, RAID1, RAID10, RAID5, \
            RAID6) through the page cache, files without checksums included; from 7.3 on the \
            kernel copies the buffer into pages of its own, and the write is direct again.",
    proof: "A write that did not try the direct path, in whole blocks, to a file without \
            checksums, and the data profile keeps copies (/sys/fs/btrfs/UUID/allocation/data). \
            The kernel does not report why: likely.",
    fix: "`btrfs balance start -dconvert=single DIR` (or raid0) gives the copies up; a RAID below \
          the file system keeps them. Kernels from 7.3 on do not need it",
    on: "btrfs with DUP, RAID1, RAID10, RAID5 or RAID6 data on 6.12.75 and later 6.12, 6.19 to 7.2",
    scenario: Scenario::Program("reports"),
    test: copies,
};

pub(super) const LARGE_BLOCK: Rule = Rule {
    id: "btrfs-large-block",
    title: "btrfs: its blocks are larger than a page",
    means: "A btrfs made with blocks (sectorsize) larger than a page can be mounted from 6.18 on. \
            6.18 and 6.19 do no direct I/O on it; 7.0 and later do.",
    proof: "No direct path was tried for a request in whole blocks, and the file system's block \
            is larger than a page. The kernel does not report why: likely.",
    fix: "use kernel 7.0 or later, or make the file system with `mkfs.btrfs -s 4096`",
    on: "btrfs with blocks larger than a page, on 6.18 and 6.19",
    scenario: Scenario::Needs(
        "a kernel of 6.18 or 6.19 with CONFIG_BTRFS_EXPERIMENTAL, which Debian's do not have",
    ),
    test: large_block,
};

fn misaligned(case: &Case<'_>) -> Option<Reason> {
    case.on(&["btrfs"]).then(|| needs_blocks(case, case.block())).flatten()
}

fn compressed(case: &Case<'_>) -> Option<Reason> {
    if !case.on(&["btrfs"]) || !case.cached() || (case.is_write() && !case.tried()) {
        return None;
    }
    if case.extent(extent::ENCODED) {
        let how = if case.is_write() { "reads and overwrites" } else { "reads" };
        return Some(Reason::proven(format!(
            "extents in this range are compressed (FIEMAP): btrfs {how} them through the page cache"
        )));
    }
    // The extents that a write replaced are gone.
    let asked = case.extents.is_some() && !case.is_write();
    (case.flag(flag::COMPRESSED) || (case.option_begins("compress") && !asked)).then(|| {
        Reason::likely(
            "compressed: btrfs compression is on for this file, and compressed extents go through \
             the page cache",
        )
    })
}

/// True for a read that tried the direct path and fell back although its extents give no reason.
fn gave_up(case: &Case<'_>) -> bool {
    let plain = case.extents.is_some_and(|flags| flags & (extent::ENCODED | extent::INLINE) == 0);
    case.on(&["btrfs"]) && case.cached_read() && case.tried() && plain
}

fn racing(case: &Case<'_>) -> Option<Reason> {
    let pages = case.request.evidence.flushed_pages;
    (gave_up(case) && pages != 0).then(|| {
        Reason::likely(format!(
            "a buffered write of this range was not finished ({pages} dirty pages were flushed for \
             this read): btrfs then reads from the page cache"
        ))
    })
}

fn buffer_fault(case: &Case<'_>) -> Option<Reason> {
    (gave_up(case) && case.request.evidence.flushed_pages == 0).then(|| {
        let rival = match case.decision.direct_bytes {
            0 => "",
            _ => "; or the file grew during the read",
        };
        Reason::likely(format!(
            "the buffer was not writable in memory (untouched, or shared since a fork), and btrfs \
             gave the direct read up{rival}"
        ))
    })
}

fn untried_write(case: &Case<'_>) -> bool {
    case.on(&["btrfs"]) && case.cached_write() && !case.tried()
}

fn checksums(case: &Case<'_>) -> Option<Reason> {
    if !untried_write(case) || case.flag(flag::NOCOW) {
        return None;
    }
    let reason = Reason::likely(
        "data checksums: this kernel's btrfs writes files that have them through the page cache",
    );
    let Some(profile) = profile_with_copies(case) else { return Some(reason) };
    Some(reason.with_fix(format!(
        "use a kernel from 7.3 on. `chattr +C` alone may not be enough here: kernels that keep to \
         the data profile ({profile}) write files without checksums through the page cache as well"
    )))
}

fn copies(case: &Case<'_>) -> Option<Reason> {
    let profile = profile_with_copies(case).filter(|_| untried_write(case))?;
    Some(Reason::likely(format!(
        "the data profile is {profile}: this kernel's btrfs writes data of which it keeps copies \
         or parity through the page cache"
    )))
}

/// The data profile of the file's btrfs, if it keeps copies or parity. During a conversion there
/// are two profiles, and new data goes to one of them.
fn profile_with_copies(case: &Case<'_>) -> Option<&'static str> {
    let profile = case.attrs.profiles.iter().find(|profile| profile.keeps_copies())?;
    Some(profile.as_str())
}

fn large_block(case: &Case<'_>) -> Option<Reason> {
    let (block, page) = (case.block(), case.page_size);
    (case.on(&["btrfs"]) && case.cached() && !case.tried() && u64::from(block) > page).then(|| {
        Reason::likely(format!(
            "its blocks of {block} bytes are larger than a page ({page}): this kernel's btrfs does \
             no direct I/O on such a file system"
        ))
    })
}
