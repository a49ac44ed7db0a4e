//! Rules for requests that violate the alignment limits of their file, and for files that take no
//! direct I/O at all. Limits are the multiples that the buffer address, the offset and the length
//! must keep to.

use crate::{
    cause::{Case, Reason, Rule, Scenario},
    system::file_attrs::FileAttrs,
};

pub(super) const MISALIGNED: Rule = Rule {
    id: "misaligned",
    title: "EINVAL: offset, length or buffer address is misaligned",
    means: "A direct request hands its buffer to the device, so file offset and length must be \
            multiples of the logical block size, and the buffer's address a multiple of what the \
            device's DMA asks for. The kernel refuses anything else. Some file systems ask for \
            their own block size, and some ask less of reads than of writes.",
    proof: "The request's offset, length, buffer address and segments are compared with what \
            statx(2) says of this file (STATX_DIOALIGN, STATX_DIO_READ_ALIGN), or with the \
            device's queue limits where it says nothing. The sentence names each that is off. \
            Likely only where neither could be asked, and of what splice takes from a pipe.",
    fix: "make offset and length multiples of that limit and take the buffer from posix_memalign, \
          or open this file without O_DIRECT (`blockdev --getss DEV` shows a device's sectors)",
    on: "ext4, xfs, block devices, f2fs, vfat and most others",
    scenario: Scenario::In(&["ext4-512", "ext4-4kn", "xfs-512", "f2fs", "vfat", "bdev-4kn"]),
    test: misaligned,
};

pub(super) const NO_DIRECT_IO: Rule = Rule {
    id: "no-direct-io",
    title: "the file system says this file does no direct I/O",
    means: "The kernel can say of a file that it takes no direct requests at all (statx \
            STATX_DIOALIGN answers 0). Depending on the file system, requests are then refused or \
            go through the page cache.",
    proof: "statx(2) answered 0 for this very file, and no direct path was entered.",
    fix: "drop O_DIRECT for this file, or find the property that forbids it: encryption, verity, \
          compression, inline data, journalled data (`lsattr -l FILE`, `findmnt -T FILE`)",
    on: "ext4 and f2fs from 6.1 on",
    scenario: Scenario::Needs(
        "a file whose property no other rule names; those known are named by rules before it",
    ),
    test: no_direct_io,
};

const EINVAL: i32 = libc::EINVAL;
/// Logical block size of most devices, in bytes.
pub(super) const SECTOR: u32 = 512;

/// The alignment limits of direct requests, and their source.
pub struct Limits {
    /// The buffer address must be a multiple of this, in bytes.
    pub memory: u32,
    /// Offset and length must be multiples of this, in bytes.
    pub offset: u32,
    /// Where the limits are from, for people.
    pub source: &'static str,
}

/// The limits of the request's file; None if they are unknown or the file takes no direct I/O.
pub(super) fn limits(case: &Case<'_>) -> Option<Limits> {
    // The direct path was tried, so statx describes the other direction: see `says_none`.
    if case.attrs.takes_direct() == Some(false) && case.tried() {
        return of_queue(case.attrs, case.fs);
    }
    limits_of(case.attrs, case.fs, case.is_write())
}

/// The limits of a file with attributes `attrs` on file system `fs`, for writes or for reads; None
/// if they are unknown or the file takes no direct I/O.
#[must_use]
pub fn limits_of(attrs: &FileAttrs, fs: &str, write: bool) -> Option<Limits> {
    if let Some((memory, offset)) = attrs.dio_align {
        let read = attrs.dio_read_align.filter(|align| *align != 0 && !write);
        let offset = read.unwrap_or(offset);
        let source = "statx STATX_DIOALIGN";
        return (memory != 0 && offset != 0).then_some(Limits { memory, offset, source });
    }
    of_queue(attrs, fs)
}

fn of_queue(attrs: &FileAttrs, fs: &str) -> Option<Limits> {
    let block = attrs.device.logical_block?;
    // These check against their own block size (fs/zonefs/file.c, fs/ntfs/file.c).
    let offset =
        if matches!(fs, "zonefs" | "ntfs") { block.max(attrs.block_size()) } else { block };
    let memory = attrs.device.dma_align.unwrap_or(block);
    Some(Limits { memory, offset, source: "the device's queue" })
}

/// True if statx says that the file takes no direct requests. If the direct path was tried
/// nevertheless, statx holds only for the other direction (fs/f2fs/file.c:f2fs_getattr asks for a
/// write).
pub(super) fn says_none(case: &Case<'_>) -> bool {
    case.attrs.takes_direct() == Some(false) && !case.tried()
}

/// The limits that a request violates, in words; empty if none.
pub(super) fn violations(case: &Case<'_>, limits: &Limits) -> Vec<String> {
    let mut wrong = off_multiple(case.start(), case.request.len, limits.offset);
    if let Some(address) = case.address_bits() {
        wrong.extend(address_off(address, limits.memory));
    }
    // Not every kernel checks segment lengths: they are the reason only if nothing else is.
    if let Some(bits) = case.segment_bits().filter(|_| wrong.is_empty()) {
        wrong.extend(segment_off(bits, limits.offset));
    }
    wrong
}

/// What is not a multiple of the file system's block size, in words: offset, length or address.
pub(super) fn off_block(case: &Case<'_>, block: u32) -> Vec<String> {
    let mut wrong = off_multiple(case.start(), case.request.len, block);
    wrong.extend(case.segment_bits().and_then(|bits| segment_off(bits, block)));
    wrong.extend(case.address_bits().and_then(|address| address_off(address, block)));
    wrong
}

/// The reason of a file system that serves requests which are not whole blocks through the page
/// cache, where others refuse them; None if this is not such a request.
pub(super) fn needs_blocks(case: &Case<'_>, block: u32) -> Option<Reason> {
    if !case.cached() || case.tried() {
        return None;
    }
    let (fs, wrong) = (case.fs, off_block(case, block));
    if !wrong.is_empty() {
        return Some(Reason::proven(format!("{fs} needs whole blocks: {}", wrong.join(", "))));
    }
    case.segments_unknown().then(|| {
        Reason::likely(format!(
            "a segment of the vector is off a multiple of {fs}'s {block}-byte block"
        ))
    })
}

fn off_multiple(offset: u64, length: u64, align: u32) -> Vec<String> {
    [("offset", offset), ("length", length)]
        .iter()
        .filter(|(_, value)| past(*value, align) != 0)
        .map(|(what, value)| format!("{what} {value} is not a multiple of {align}"))
        .collect()
}

fn address_off(address: u64, align: u32) -> Option<String> {
    let by = past(address, align);
    (by != 0).then(|| format!("the buffer is {by} bytes past a multiple of {align}"))
}

fn segment_off(bits: u64, align: u32) -> Option<String> {
    (past(bits, align) != 0).then(|| format!("a segment's length is not a multiple of {align}"))
}

/// `value` modulo `align`; 0 if `align` is 0.
pub(super) const fn past(value: u64, align: u32) -> u64 {
    if align == 0 { 0 } else { value % align as u64 }
}

fn misaligned(case: &Case<'_>) -> Option<Reason> {
    if !case.failed_with(EINVAL) || says_none(case) {
        return None;
    }
    let limits = limits(case);
    if case.is_fed_by_pipe() {
        let unit = limits.map_or(SECTOR, |limits| limits.offset);
        let wrong = off_multiple(case.start(), 0, unit).pop().map(Reason::proven);
        return wrong
            .or_else(|| Some(Reason::likely("what the pipe held is not in whole sectors")));
    }
    let Some(limits) = limits else { return guessed(case) };
    let wrong = violations(case, &limits);
    if !wrong.is_empty() {
        return Some(Reason::proven(format!("{} (limits: {})", wrong.join(", "), limits.source)));
    }
    // A device truncates a request at its end first (block/fops.c), and then checks the alignment
    // of the rest.
    let size = case.request.size_begin as u64;
    if case.is_device() && case.past_end() && past(size, limits.offset) != 0 {
        return Some(Reason::proven(format!(
            "the device ends at {size}, which is not a multiple of {}, inside this request",
            limits.offset
        )));
    }
    case.segments_unknown().then(|| {
        Reason::likely(format!("a segment of the vector is off a multiple of {}", limits.memory))
    })
}

/// Guesses when the limits are unknown: most files take whole sectors, some need 4096 bytes.
fn guessed(case: &Case<'_>) -> Option<Reason> {
    let wrong = [SECTOR, 4096].map(|unit| off_block(case, unit));
    let wrong = wrong.into_iter().find(|wrong| !wrong.is_empty())?;
    let wrong = wrong.join(", ");
    Some(Reason::likely(format!("because {wrong} (this file's limits could not be asked)")))
}

fn no_direct_io(case: &Case<'_>) -> Option<Reason> {
    let refused = case.failed_with(EINVAL);
    (says_none(case) && (refused || case.cached())).then(|| {
        let fs = case.fs;
        Reason::proven(format!("{fs} does no direct I/O on this file (statx STATX_DIOALIGN is 0)"))
    })
}
