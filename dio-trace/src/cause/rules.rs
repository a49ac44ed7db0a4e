//! The rules, in order: the first that fits is taken.
//!
//! Kernel facts behind them: fs/ext4/file.c:ext4_should_use_dio (6.1 on; before:
//! ext4_dio_supported), fs/btrfs/direct-io.c (5.10: inode.c), fs/iomap/direct-io.c,
//! mm/shmem.c.

use dio_trace_common::{
    abi::{OP_WRITE, REQ_VECTORED},
    evidence::seen,
    verdict::{Outcome, Verdict},
};

use super::{Case, Rule};
use crate::enrich::{extent, flag};

const EAGAIN: i64 = -11;
const EINVAL: i64 = -22;
const EOPNOTSUPP: i64 = -95;

/// The rule table.
pub const RULES: &[Rule] = &[
    Rule {
        id: "misaligned",
        fix: "align file offset, length and buffer address to those limits (posix_memalign for \
              the buffer), or open this file without O_DIRECT",
        test: misaligned,
    },
    Rule {
        id: "flag-unsupported",
        fix: "leave that flag out on this file, or use another file system or a newer kernel",
        test: flag_unsupported,
    },
    Rule {
        id: "would-block",
        fix: "nothing is wrong: RWF_NOWAIT asks for this; repeat without it or from a thread that \
              may wait",
        test: would_block,
    },
    Rule {
        id: "io-error",
        fix: "look at `dmesg` and the device's health (smartctl); the data was not transferred",
        test: io_error,
    },
    Rule {
        id: "tmpfs",
        fix: "for real direct I/O use a file on a disk; on tmpfs drop O_DIRECT, it has no effect",
        test: tmpfs,
    },
    Rule {
        id: "data-journal",
        fix: "mount with data=ordered, or `chattr -j` the file: ext4 never does direct I/O on \
              journalled data",
        test: data_journal,
    },
    Rule {
        id: "inline-data",
        fix: "let the file grow beyond the inode, or make the file system without inline_data \
              (ext4) / mount with max_inline=0 (btrfs)",
        test: inline_data,
    },
    Rule {
        id: "btrfs-misaligned",
        fix: "use multiples of the block size for offset, length and buffer address: btrfs reads \
              and writes anything else through the page cache without an error",
        test: btrfs_misaligned,
    },
    Rule {
        id: "f2fs-misaligned",
        fix: "use multiples of 4096 for offset, length and buffer address: f2fs reads and writes \
              what only keeps to the device's sectors through the page cache",
        test: f2fs_misaligned,
    },
    Rule {
        id: "xfs-unaligned-cow",
        fix: "write whole blocks to files that share extents (reflink, snapshots), or unshare the \
              file first (`xfs_io -c unshare`)",
        test: xfs_unaligned_cow,
    },
    Rule {
        id: "allocating-write",
        fix: "write the range once through the page cache (or dd) before, so that the blocks are \
              there; ext4 with extents and xfs also allocate for direct writes",
        test: allocating_write,
    },
    Rule {
        id: "btrfs-compressed",
        fix: "`chattr +m` (or +C) on the directory, mount without compress=, then rewrite the file: \
              compressed extents are always read through the page cache",
        test: btrfs_compressed,
    },
    Rule {
        id: "btrfs-buffer-fault",
        fix: "touch (write to) the buffer before the read, and read into buffers that no forked \
              child shares: btrfs gives a direct read up whose buffer must be faulted in",
        test: btrfs_buffer_fault,
    },
    Rule {
        id: "btrfs-checksums",
        fix: "`chattr +C` on the empty file (no checksums, no copy on write) makes writes direct; \
              kernels that bounce (7.x) do not need it",
        test: btrfs_checksums,
    },
    Rule {
        id: "dirty-flush",
        fix: "find who writes this file without O_DIRECT (fuser, lsof) and stop mixing, or let it \
              fsync before the direct requests",
        test: dirty_flush,
    },
    Rule {
        id: "cache-invalidated",
        fix: "find who reads or maps this file without O_DIRECT (fuser, lsof) and stop mixing",
        test: cache_invalidated,
    },
    Rule {
        id: "device-end",
        fix: "nothing is wrong: the last request before the end of a device is short",
        test: device_end,
    },
    Rule {
        id: "end-of-file",
        fix: "nothing is wrong: treat a short read at the end of the file as its tail, and make \
              files a multiple of the block size if that is in the way",
        test: end_of_file,
    },
    Rule {
        id: "max-rw",
        fix: "ask for at most 2147479552 bytes at a time, or go on where it stopped",
        test: max_rw,
    },
];

const fn is_write(case: &Case<'_>) -> bool {
    case.request.op == OP_WRITE
}

const fn cached(case: &Case<'_>) -> bool {
    matches!(case.decision.verdict, Verdict::Fallback | Verdict::Partial)
}

fn option(case: &Case<'_>, wanted: &str) -> bool {
    case.options.split(',').any(|o| o == wanted)
}

/// True if one of the file's inode flags is set; false where they are not known.
fn has(case: &Case<'_>, bit: u32) -> bool {
    case.facts.flags.is_some_and(|flags| flags & bit != 0)
}

fn extents_have(case: &Case<'_>, bit: u32) -> bool {
    case.extents.is_some_and(|flags| flags & bit != 0)
}

/// Low bits of all buffer addresses, where they are known.
const fn address_bits(case: &Case<'_>) -> Option<u64> {
    let evidence = &case.request.evidence;
    if evidence.segments != 0 {
        return Some(evidence.addr_bits as u64);
    }
    if case.request.flags & REQ_VECTORED == 0 { Some(case.request.user) } else { None }
}

/// The part of `value` that is off a multiple of `align`.
const fn off(value: u64, align: u32) -> u64 {
    if align == 0 { 0 } else { value % align as u64 }
}

fn misaligned(case: &Case<'_>) -> Option<String> {
    if case.request.ret != EINVAL {
        return None;
    }
    let facts = case.facts;
    let (memory, offset, source) = match (facts.dio_align, facts.logical_block) {
        (Some((0, _) | (_, 0)), _) => {
            return Some("this file supports no direct I/O (statx STATX_DIOALIGN)".to_owned());
        }
        (Some((memory, offset)), _) => (memory, offset, "statx STATX_DIOALIGN"),
        (None, Some(block)) => {
            (facts.dma_align.unwrap_or(block), block, "the device's queue limits")
        }
        (None, None) => {
            return Some(
                "likely misaligned: the kernel refused offset, length or address; this \
                         file's limits could not be asked"
                    .to_owned(),
            );
        }
    };
    let evidence = &case.request.evidence;
    let length =
        if evidence.segments > 1 { u64::from(evidence.len_bits) } else { case.request.len };
    let mut wrong = Vec::new();
    let mut check = |what: &str, value: u64, align: u32| {
        let by = off(value, align);
        if by != 0 {
            wrong.push(format!("{what} is off a multiple of {align} by {by}"));
        }
    };
    check("offset", case.request.pos as u64, offset);
    check("length", case.request.len, offset);
    if evidence.segments > 1 {
        check("a segment's length", length, offset);
    }
    if let Some(address) = address_bits(case) {
        check("buffer address", address, memory);
    }
    Some(if wrong.is_empty() {
        format!("likely a rule of this file system: offset, length and address keep to {source}")
    } else {
        format!("{} (limits of this file: {source})", wrong.join(", "))
    })
}

fn flag_unsupported(case: &Case<'_>) -> Option<String> {
    (case.request.ret == EOPNOTSUPP).then(|| {
        "likely a flag (RWF_NOWAIT, RWF_DONTCACHE, RWF_ATOMIC) that this kernel or file system \
         does not support"
            .to_owned()
    })
}

fn would_block(case: &Case<'_>) -> Option<String> {
    (case.request.ret == EAGAIN).then(|| {
        "a request that must not wait would have had to: cached or dirty pages in its range, a \
         lock, or metadata not in memory"
            .to_owned()
    })
}

fn io_error(case: &Case<'_>) -> Option<String> {
    const EIO: i64 = -5;
    const ENODATA: i64 = -61;
    matches!(case.request.ret, EIO | ENODATA)
        .then(|| "the device or the layer below reported an error in this range".to_owned())
}

fn tmpfs(case: &Case<'_>) -> Option<String> {
    (case.decision.verdict == Verdict::Memory).then(|| {
        "tmpfs: the page cache is the storage, there is nothing to bypass it for".to_owned()
    })
}

fn data_journal(case: &Case<'_>) -> Option<String> {
    if !cached(case) || case.fs != "ext4" {
        return None;
    }
    if option(case, "data=journal") {
        return Some(
            "ext4 is mounted with data=journal: all data goes through the page cache".to_owned(),
        );
    }
    // chattr +j is ignored under delayed allocation (fs/ext4/inode.c:ext4_inode_journal_mode).
    (has(case, flag::JOURNAL_DATA) && option(case, "nodelalloc")).then(|| {
        "this file's data is journalled (chattr +j, and the mount has nodelalloc): it goes through \
         the page cache"
            .to_owned()
    })
}

fn inline_data(case: &Case<'_>) -> Option<String> {
    if !cached(case) {
        return None;
    }
    // A write turns inline data into blocks, so that the file no longer shows what it was.
    let small = case.request.size_begin < case.facts.block.unwrap_or(4096).into();
    if is_write(case) && small && case.request.size_begin > 0 && may_have_been_inline(case) {
        return Some("likely the data was inline in the metadata until this write".to_owned());
    }
    let inline = if case.fs == "ext4" {
        has(case, flag::INLINE_DATA)
    } else {
        extents_have(case, extent::INLINE)
    };
    inline
        .then(|| "the data is stored inline in the metadata, there is no block to read".to_owned())
}

/// ext4 never tries the direct path then; btrfs does, and is told to fall back.
fn may_have_been_inline(case: &Case<'_>) -> bool {
    let tried = case.request.evidence.seen & seen::DIRECT_TRIED != 0;
    (case.fs == "ext4" && !tried) || (case.fs == "btrfs" && tried)
}

fn btrfs_misaligned(case: &Case<'_>) -> Option<String> {
    if case.fs == "btrfs" { off_block(case, case.facts.block.unwrap_or(4096)) } else { None }
}

/// fs/f2fs/file.c:f2fs_force_buffered_io; its block is a page.
fn f2fs_misaligned(case: &Case<'_>) -> Option<String> {
    if case.fs == "f2fs" { off_block(case, 4096) } else { None }
}

/// What is off a multiple of the file system's block, in a request it did not try directly.
fn off_block(case: &Case<'_>, block: u32) -> Option<String> {
    if !cached(case) || case.request.evidence.seen & seen::DIRECT_TRIED != 0 {
        return None;
    }
    let evidence = &case.request.evidence;
    let segments = (evidence.segments > 1).then_some(u64::from(evidence.len_bits));
    let wrong: Vec<String> = [
        ("offset", Some(case.request.pos as u64)),
        ("length", Some(case.request.len)),
        ("a segment's length", segments),
        ("buffer address", address_bits(case)),
    ]
    .into_iter()
    .filter_map(|(what, value)| {
        let by = off(value?, block);
        (by != 0).then(|| format!("{what} by {by}"))
    })
    .collect();
    let fs = case.fs;
    if !wrong.is_empty() {
        return Some(format!("off a multiple of {fs}'s {block}-byte block: {}", wrong.join(", ")));
    }
    (case.request.flags & REQ_VECTORED != 0 && evidence.segments == 0).then(|| {
        format!("likely a segment of the vector is off a multiple of {fs}'s {block}-byte block")
    })
}

/// fs/xfs/xfs_file.c:xfs_file_dio_write_unaligned, xfs_iomap.c:xfs_direct_write_iomap_begin.
fn xfs_unaligned_cow(case: &Case<'_>) -> Option<String> {
    let block = case.facts.block.unwrap_or(4096);
    let unaligned = off(case.request.pos as u64, block) != 0 || off(case.request.len, block) != 0;
    (cached(case) && case.fs == "xfs" && is_write(case) && unaligned).then(|| {
        format!(
            "likely the file shares extents (reflink), and the write does not cover whole \
             {block}-byte blocks: xfs copies such blocks through the page cache"
        )
    })
}

/// Legacy direct writes do not fill holes (fs/direct-io.c:get_more_blocks, DIO_SKIP_HOLES), ext4
/// without extents neither (fs/ext4/inode.c:ext4_iomap_alloc), and fat does not extend
/// (fs/fat/inode.c:fat_direct_IO).
fn allocating_write(case: &Case<'_>) -> Option<String> {
    let tried = case.request.evidence.seen & seen::DIRECT_TRIED != 0;
    let extends = case.request.pos as u64 + case.request.len > case.request.size_begin as u64;
    if !cached(case) || !is_write(case) || matches!(case.fs, "btrfs" | "xfs" | "f2fs" | "tmpfs") {
        return None;
    }
    if extends {
        return Some(format!(
            "likely because it extends the file, which {} does through the page cache",
            case.fs
        ));
    }
    tried.then(|| {
        format!(
            "likely a part of the range had no blocks yet (a hole), which {} fills through the \
             page cache",
            case.fs
        )
    })
}

fn btrfs_compressed(case: &Case<'_>) -> Option<String> {
    let tried = case.request.evidence.seen & seen::DIRECT_TRIED != 0;
    if !cached(case) || case.fs != "btrfs" || (is_write(case) && !tried) {
        return None;
    }
    if extents_have(case, extent::ENCODED) {
        let how = if is_write(case) { "reads and overwrites" } else { "reads" };
        return Some(format!(
            "extents in this range are compressed (FIEMAP): btrfs {how} them through the page cache"
        ));
    }
    let compresses = case.options.split(',').any(|o| o.starts_with("compress"));
    // What a write has replaced can no longer be asked.
    let asked = case.extents.is_some() && !is_write(case);
    (has(case, flag::COMPRESSED) || (compresses && !asked)).then(|| {
        "likely compressed: btrfs compression is on for this file, and compressed extents go \
         through the page cache"
            .to_owned()
    })
}

/// fs/btrfs/direct-io.c:btrfs_direct_read runs with page faults disabled; when it makes no
/// progress after faulting the buffer in, the rest is read through the page cache. That leaves no
/// error behind: what remains once the extents are known to be plain and nothing was dirty.
fn btrfs_buffer_fault(case: &Case<'_>) -> Option<String> {
    let plain = case.extents.is_some_and(|flags| flags & (extent::ENCODED | extent::INLINE) == 0);
    let evidence = &case.request.evidence;
    let tried = evidence.seen & seen::DIRECT_TRIED != 0 && evidence.flushed_pages == 0;
    (cached(case) && case.fs == "btrfs" && !is_write(case) && tried && plain).then(|| {
        "likely the buffer was not writable in memory (untouched, or shared since a fork), and \
         btrfs gave the direct read up"
            .to_owned()
    })
}

fn btrfs_checksums(case: &Case<'_>) -> Option<String> {
    let tried = case.request.evidence.seen & seen::DIRECT_TRIED != 0;
    (cached(case) && case.fs == "btrfs" && is_write(case) && !tried && !has(case, flag::NOCOW))
        .then(|| {
            "likely data checksums: this kernel's btrfs writes files that have them through the \
             page cache"
                .to_owned()
        })
}

fn dirty_flush(case: &Case<'_>) -> Option<String> {
    let pages = case.request.evidence.flushed_pages;
    (pages != 0).then(|| {
        format!(
            "{pages} dirty pages of this file had to be written back first: someone writes it \
                 through the page cache"
        )
    })
}

fn cache_invalidated(case: &Case<'_>) -> Option<String> {
    let pages = case.request.evidence.invalidated_pages;
    (pages != 0).then(|| {
        format!(
            "{pages} cached pages of this file were dropped: someone uses it through the page \
                 cache"
        )
    })
}

fn device_end(case: &Case<'_>) -> Option<String> {
    (case.decision.outcome == Outcome::DeviceEnd)
        .then(|| format!("the device ends at {}", case.request.size_end))
}

fn end_of_file(case: &Case<'_>) -> Option<String> {
    let r = case.request;
    (case.decision.outcome == Outcome::Eof).then(|| {
        format!(
            "the file ends at {}, inside the {} bytes asked for at {}",
            r.size_end, r.len, r.pos
        )
    })
}

fn max_rw(case: &Case<'_>) -> Option<String> {
    (case.decision.outcome == Outcome::MaxRw)
        .then(|| "one request moves at most 2147479552 bytes (MAX_RW_COUNT)".to_owned())
}

#[cfg(test)]
mod tests {
    use dio_trace_common::verdict::decide;

    use super::*;
    use crate::{cause::explain, enrich::Facts, fixture};

    /// The id of the cause of a request with these facts.
    fn id(
        change: impl FnOnce(&mut dio_trace_common::abi::Request),
        fs: &str,
        options: &str,
        facts: &Facts,
        extents: Option<u32>,
    ) -> Option<&'static str> {
        let mut request = fixture::request();
        change(&mut request);
        let decision = decide(&request.facts(true), &request.evidence);
        explain(&Case { request: &request, decision: &decision, fs, options, facts, extents })
            .map(|e| e.id)
    }

    fn fallback(r: &mut dio_trace_common::abi::Request) {
        r.evidence.direct_bytes = 0;
        r.evidence.cached_bytes = r.len;
        r.evidence.seen = seen::BUFFERED_READ;
    }

    #[test]
    fn healthy_requests_have_no_cause() {
        assert_eq!(id(|_| (), "ext4", "rw,data=journal", &Facts::default(), None), None);
    }

    #[test]
    fn journalled_data_by_mount_or_by_flag_that_bites() {
        let plain = Facts::default();
        let flagged = Facts { flags: Some(flag::JOURNAL_DATA), ..Facts::default() };
        assert_eq!(id(fallback, "ext4", "rw,data=journal", &plain, None), Some("data-journal"));
        assert_eq!(id(fallback, "ext4", "rw,nodelalloc", &flagged, None), Some("data-journal"));
        assert_eq!(id(fallback, "ext4", "rw", &flagged, None), Some("not-explained"));
        assert_eq!(id(fallback, "xfs", "rw,data=journal", &plain, None), Some("not-explained"));
    }

    #[test]
    fn inline_data() {
        let inline = Facts { flags: Some(flag::INLINE_DATA), ..Facts::default() };
        assert_eq!(id(fallback, "ext4", "rw", &inline, None), Some("inline-data"));
        assert_eq!(
            id(fallback, "btrfs", "rw", &Facts::default(), Some(extent::INLINE)),
            Some("inline-data")
        );
    }

    #[test]
    fn btrfs_tells_misaligned_from_compressed() {
        let plain = Facts { block: Some(4096), ..Facts::default() };
        let off_by_100 = |r: &mut dio_trace_common::abi::Request| {
            fallback(r);
            r.pos = 100;
        };
        let tried = |r: &mut dio_trace_common::abi::Request| {
            fallback(r);
            r.evidence.seen |= seen::IOMAP_DIO;
        };
        assert_eq!(id(off_by_100, "btrfs", "rw", &plain, None), Some("btrfs-misaligned"));
        assert_eq!(
            id(tried, "btrfs", "rw", &plain, Some(extent::ENCODED)),
            Some("btrfs-compressed")
        );
        assert_eq!(
            id(tried, "btrfs", "rw,compress=zstd:3", &plain, None),
            Some("btrfs-compressed")
        );
        assert_eq!(id(tried, "btrfs", "rw", &plain, Some(0)), Some("btrfs-buffer-fault"));
        assert_eq!(id(tried, "btrfs", "rw", &plain, None), Some("not-explained"));
    }

    #[test]
    fn refusals_say_which_limit() {
        let facts = Facts { dio_align: Some((512, 4096)), ..Facts::default() };
        let mut request = fixture::request();
        request.ret = -22;
        request.pos = 512;
        request.user = 0x1004;
        let decision = decide(&request.facts(true), &request.evidence);
        let case = Case {
            request: &request,
            decision: &decision,
            fs: "xfs",
            options: "",
            facts: &facts,
            extents: None,
        };
        let why = explain(&case).unwrap().why;
        assert_eq!(
            why,
            "offset is off a multiple of 4096 by 512, buffer address is off a multiple of 512 by 4 (limits of this file: statx STATX_DIOALIGN)"
        );
        let not_supported = |r: &mut dio_trace_common::abi::Request| r.ret = -95;
        let nowait = |r: &mut dio_trace_common::abi::Request| r.ret = -11;
        let error = |r: &mut dio_trace_common::abi::Request| r.ret = -5;
        assert_eq!(id(not_supported, "tmpfs", "", &facts, None), Some("flag-unsupported"));
        assert_eq!(id(nowait, "xfs", "", &facts, None), Some("would-block"));
        assert_eq!(id(error, "xfs", "", &facts, None), Some("io-error"));
    }

    #[test]
    fn ends_flushes_and_memory() {
        let plain = Facts::default();
        let tail = |r: &mut dio_trace_common::abi::Request| {
            r.size_begin = r.pos + 100;
            r.size_end = r.size_begin;
            r.ret = 100;
        };
        assert_eq!(id(tail, "xfs", "", &plain, None), Some("end-of-file"));
        assert_eq!(
            id(|r| r.evidence.flushed_pages = 2, "xfs", "", &plain, None),
            Some("dirty-flush")
        );
        assert_eq!(
            id(|r| r.evidence.invalidated_pages = 2, "xfs", "", &plain, None),
            Some("cache-invalidated")
        );
        assert_eq!(
            id(|r| r.magic = dio_trace_common::verdict::magic::TMPFS, "tmpfs", "", &plain, None),
            Some("tmpfs")
        );
    }

    #[test]
    fn ids_are_unique_and_fixes_say_something() {
        for (i, rule) in RULES.iter().enumerate() {
            assert!(RULES[..i].iter().all(|other| other.id != rule.id), "{}", rule.id);
            assert!(rule.fix.len() > 20);
        }
    }
}
