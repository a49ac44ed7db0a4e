//! Rules for writes that need new blocks and for reads whose direct part ends early. They occur on
//! the legacy direct path and on file systems that decline such requests (fs/direct-io.c, fs/fat,
//! fs/exfat, fs/ocfs2, fs/gfs2).

use dio_trace_common::{evidence::seen, verdict::Verdict};

use crate::{
    cause::{Case, Reason, Rule, Scenario},
    system::file_attrs::flag,
};

pub(super) const ALLOCATING_WRITE: Rule = Rule {
    id: "allocating-write",
    title: "the write needs blocks that the file does not have yet",
    means: "Many file systems overwrite directly and allocate through the page cache. vfat \
            and gfs2 extend a file that way, exfat before 7.2 where its clusters must grow; the \
            legacy direct path (ext2, hfs, jfs, udf, ext4 files without extents) fills holes that \
            way; exfat before 7.2 also writes past the valid length of a file so. ext4 with \
            extents, xfs and btrfs allocate directly.",
    proof: "A write through the page cache that ends past the end the file had, on a file system \
            that extends so. A hole can no longer be asked once it is filled: likely.",
    fix: "write the file once from start to end (`dd if=/dev/zero of=FILE bs=1M conv=fsync`), then \
          overwrite; fallocate alone helps where it gives real blocks. Or use ext4 or xfs",
    on: "vfat, exfat, gfs2, ocfs2, ext2, ext4 without extents, hfs, jfs, reiserfs, udf",
    scenario: Scenario::In(&[
        "vfat",
        "vfat-16",
        "ext3",
        "ext4-noextent",
        "ext2",
        "exfat",
        "gfs2",
        "jfs",
        "reiserfs",
        "udf",
    ]),
    test: allocating_write,
};

pub(super) const NILFS2_WRITE: Rule = Rule {
    id: "nilfs2-write",
    title: "nilfs2: every write is cached",
    means: "nilfs2 never writes in place: data goes to the end of its log, in segments that it \
            builds from the page cache. It takes O_DIRECT, and serves reads directly, but a write \
            goes through the page cache and stays there dirty until the log is written.",
    proof: "A write on nilfs2 through the page cache, and no direct path was entered.",
    fix: "none on nilfs2: sync the file (fsync, O_DSYNC) where the data must be on disk, or use \
          ext4 or xfs",
    on: "nilfs2",
    scenario: Scenario::In(&["nilfs2"]),
    test: nilfs2_write,
};

pub(super) const READ_PAST_END: Rule = Rule {
    id: "ocfs2-read-past-end",
    title: "ocfs2: a read that ends past the end of the file",
    means: "ocfs2 without its append-dio feature takes any request that ends past the end of the \
            file through the page cache, the usual last read of a file included.",
    proof: "A read through the page cache on ocfs2 that ends past the file's size. Likely.",
    fix: "ask for no more than the file has (in whole sectors), or `tunefs.ocfs2 \
          --fs-features=append-dio DEV`",
    on: "ocfs2",
    scenario: Scenario::Needs("an ocfs2, whose cluster stack the tests do not run"),
    test: read_past_end,
};

pub(super) const CUT_SHORT: Rule = Rule {
    id: "direct-part-short",
    title: "the direct read ended early, the rest came from cache",
    means: "The generic read path goes on through the page cache where a direct read ends before \
            the end of the file, and says nothing. It ends early if a page of the buffer could not \
            be used, or if the file grew meanwhile.",
    proof: "Both paths moved bytes of this read, on a file system or device that goes on so. Where \
            the direct part ended inside a block, the file ended there at that time. Elsewhere \
            what stopped the direct part is not recorded: likely.",
    fix: "check that the whole buffer is mapped and writable, and that nobody writes the file \
          through the page cache meanwhile",
    on: "block devices, btrfs, vfat, hfs, jfs, nilfs2, udf; exfat before 7.2, ntfs3 before 7.0, ext2 \
         before 6.5",
    scenario: Scenario::Needs("a buffer that runs into an unmapped page, or a race with a writer"),
    test: cut_short,
};

fn allocating_write(case: &Case<'_>) -> Option<Reason> {
    let excluded = ["bdev", "btrfs", "overlay", "tmpfs", "xfs"];
    if !case.cached_write() || case.on(&excluded) || case.is_client() {
        return None;
    }
    if case.on(&["ext4"]) {
        return ext4_hole(case);
    }
    let fs = case.fs;
    if case.past_end() && !case.on(&["f2fs"]) {
        let size = case.request.size_begin;
        let extends = format!(
            "it ends at {}, past the file's {size} bytes: {fs} extends files through the page \
             cache",
            case.stop()
        );
        return Some(if case.on(&["vfat", "msdos", "gfs2"]) {
            Reason::proven(extends)
        } else {
            Reason::likely(format!("because {extends}"))
        });
    }
    case.tried().then(|| {
        Reason::likely(format!(
            "a part of the range had no blocks yet (a hole): {fs} fills it cached"
        ))
    })
}

/// Follows fs/nilfs2/inode.c:nilfs_direct_IO.
fn nilfs2_write(case: &Case<'_>) -> Option<Reason> {
    (case.on(&["nilfs2"]) && case.cached_write() && !case.tried())
        .then(|| Reason::proven("nilfs2 takes every write through the page cache to its log"))
}

/// For a file without extents, ext4 does not allocate blocks inside the file size on the direct
/// path (fs/ext4/inode.c:ext4_iomap_alloc).
fn ext4_hole(case: &Case<'_>) -> Option<Reason> {
    let blocks = case.attrs.flags.is_some() && !case.flag(flag::EXTENTS);
    (case.tried() && blocks).then(|| {
        Reason::likely(
            "a part of the range had no blocks yet (a hole), and this file is mapped without \
             extents: ext4 fills such holes through the page cache",
        )
    })
}

/// Follows fs/ocfs2/aops.c:ocfs2_direct_IO.
fn read_past_end(case: &Case<'_>) -> Option<Reason> {
    (case.on(&["ocfs2"]) && case.cached_read() && !case.tried() && case.past_end()).then(|| {
        Reason::likely(format!(
            "because it ends at {}, past the file's {} bytes: ocfs2 without append-dio reads such \
             a range through the page cache",
            case.stop(),
            case.request.size_begin
        ))
    })
}

fn cut_short(case: &Case<'_>) -> Option<Reason> {
    if !case.cached_read() || !case.verdict(Verdict::Partial) {
        return None;
    }
    if let Some(end) = end_then(case) {
        return Some(
            Reason::proven(format!(
                "the file ended at {end} when the direct part was read, and grew before the rest \
                 was: that came from the page cache"
            ))
            .with_fix(
                "nothing is wrong with the request: somebody makes the file longer meanwhile. A \
                 reader that needs whole blocks waits until the writer is done (fsync)",
            ),
        );
    }
    (case.is_device() || case.seen(seen::LEGACY_DIO)).then(|| {
        Reason::likely(format!(
            "a page of the buffer could not be used: the direct part ended after {} of {} bytes",
            case.decision.direct_bytes, case.request.len
        ))
    })
}

/// Where the file ended while the direct part of a partial read was read, if the direct part shows
/// it: a direct read moves whole blocks, unless the file ends inside one
/// (fs/iomap/direct-io.c:iomap_dio_complete, fs/direct-io.c:dio_complete).
fn end_then(case: &Case<'_>) -> Option<u64> {
    const SECTOR: u64 = 512;
    let unit = if case.on(&["btrfs"]) { u64::from(case.block()) } else { SECTOR };
    let goes_on = case.seen(seen::LEGACY_DIO) || (case.on(&["btrfs"]) && case.tried());
    let end = case.start() + case.decision.direct_bytes;
    (goes_on && !case.is_device() && !end.is_multiple_of(unit.max(SECTOR))).then_some(end)
}
