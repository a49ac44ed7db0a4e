//! Tests of the rule table: for each rule, a request that it explains and a similar one that it
//! does not.

use dio_trace_common::{
    abi::{OP_WRITE, REQ_BLOCK_DEVICE, REQ_VECTORED, Request, inode_flag, ring, rwf, would_block},
    evidence::seen,
    verdict::{Outcome, decide, magic, max_rw_count},
};

use crate::{
    cause::{
        ALIGNMENT_PROBE, Case, Certainty, DirectBy, Explanation, RULES, Unasked, explain,
        explain::first, explain_mixed, explain_rejected_open, explain_unasked, forecast,
    },
    model::{BufferedUser, BufferedUsers},
    system::{
        btrfs::Profile,
        device::{Layer, LayerKind, LoopLimits},
        extents::extent,
        file_attrs::{AtomicLimits, FileAttrs, attribute, flag},
        mappings::Memory,
    },
    testing::fixtures,
};

/// The owned parts of a [`Case`].
struct Example {
    r: Request,
    fs: &'static str,
    options: &'static str,
    attrs: FileAttrs,
    extents: Option<u32>,
    memory: Option<Memory>,
    buffered_users: BufferedUsers,
    /// Overrides the outcome if evidence alone cannot produce it.
    outcome: Option<Outcome>,
}

/// A healthy read of ext4.
fn healthy() -> Example {
    let attrs = FileAttrs {
        dev: Some((8, 1)),
        flags: Some(flag::EXTENTS),
        attributes: Some(0),
        dio_align: Some((512, 512)),
        block: Some(4096),
        allocated: Some(2048),
        ..FileAttrs::default()
    };
    let (r, fs, options) = (fixtures::request(), "ext4", "rw");
    Example {
        r,
        fs,
        options,
        attrs,
        extents: Some(0),
        memory: None,
        buffered_users: BufferedUsers::default(),
        outcome: None,
    }
}

impl Example {
    fn explained(&self) -> Option<Explanation> {
        self.by(explain)
    }

    fn forecast(&self) -> Option<Explanation> {
        self.by(forecast)
    }

    fn by(&self, explain: fn(&Case<'_>) -> Option<Explanation>) -> Option<Explanation> {
        let mut decision = decide(&self.r.facts(), &self.r.evidence);
        decision.outcome = self.outcome.unwrap_or(decision.outcome);
        explain(&Case {
            request: &self.r,
            decision: &decision,
            fs: self.fs,
            options: self.options,
            attrs: &self.attrs,
            page_size: 4096,
            extents: self.extents,
            memory: self.memory.as_ref(),
            buffered_users: &self.buffered_users,
        })
    }

    /// Makes it a read that went through the page cache in full, without a direct attempt.
    fn cached(&mut self, fs: &'static str) {
        self.fs = fs;
        self.r.evidence.direct_bytes = 0;
        self.r.evidence.cached_bytes = self.r.len;
        self.r.evidence.seen = seen::BUFFERED_READ;
    }

    /// Makes it a cached read into a buffer at address `user`.
    fn cached_at(&mut self, fs: &'static str, user: u64) {
        self.cached(fs);
        self.r.user = user;
    }

    /// Makes it a write that went through the page cache in full, without a direct attempt.
    fn written(&mut self, fs: &'static str) {
        self.cached(fs);
        self.r.op = OP_WRITE;
        self.r.evidence.cached_bytes = 0;
        self.r.evidence.seen = seen::BUFFERED_WRITE;
    }

    fn writes(&mut self) {
        self.r.op = OP_WRITE;
    }

    fn tried(&mut self) {
        self.r.evidence.seen |= seen::IOMAP_DIO;
    }

    fn fails(&mut self, errno: i32) {
        self.r.ret = -i64::from(errno);
    }

    fn small(&mut self) {
        self.r.pos = 0;
        self.r.size_begin = 100;
        self.r.size_end = 100;
    }

    /// The request moves only `bytes` bytes.
    fn short(&mut self, bytes: i64) {
        self.r.ret = bytes;
        self.r.evidence.direct_bytes = self.r.evidence.direct_bytes.min(bytes as u64);
    }

    fn device(&mut self) {
        self.fs = "bdev";
        self.r.flags |= REQ_BLOCK_DEVICE;
    }

    fn on_loop(&mut self, direct: bool) {
        let file = "/images/disk".to_owned();
        let kind = LayerKind::Loop { file, direct, limits: LoopLimits::default() };
        self.attrs.device.layers = vec![Layer { name: "loop3".to_owned(), kind }];
    }

    fn server(&mut self, fs: &'static str, magic: u32) {
        self.fs = fs;
        self.r.magic = magic;
        self.r.evidence.seen = 0;
    }
}

type Change = fn(&mut Example);

/// The rule's id, a change that makes it fit, and a change that does not.
const EXAMPLES: &[(&str, Change, Change)] = &[
    (
        "misaligned",
        |e| {
            e.fails(libc::EINVAL);
            e.r.pos = 100;
        },
        |e| e.fails(libc::EINVAL),
    ),
    (
        "no-direct-io",
        |e| {
            e.fails(libc::EINVAL);
            e.r.evidence.seen = 0;
            e.attrs.dio_align = Some((0, 0));
        },
        |e| {
            e.fails(libc::EINVAL);
            e.attrs.dio_align = Some((0, 0)); // what f2fs reports for writes on zoned devices
        },
    ),
    (
        "daemon-refused",
        |e| {
            e.server("fuse", magic::FUSE);
            e.fails(libc::EINVAL);
        },
        |e| {
            e.server("fuse", magic::FUSE);
            e.r.lower_magic = 0xef53; // the kernel forwarded it to ext4
            e.fails(libc::EINVAL);
        },
    ),
    (
        "invalid-request",
        |e| {
            e.fs = "minix";
            e.fails(libc::EINVAL);
        },
        |e| {
            e.fails(libc::EINVAL);
            e.r.len = 100;
        },
    ),
    (
        "compressed-refused",
        |e| {
            e.fs = "ntfs3";
            e.fails(libc::EOPNOTSUPP);
            e.attrs.attributes = Some(attribute::COMPRESSED);
        },
        |e| {
            e.fs = "ntfs3";
            e.fails(libc::EOPNOTSUPP);
        },
    ),
    (
        "atomic-write",
        |e| {
            e.writes();
            e.fails(libc::EINVAL);
            e.r.rw_flags = rwf::ATOMIC;
            e.r.len = 3 * 4096;
        },
        |e| {
            e.writes();
            e.fails(libc::EINVAL);
            e.r.rw_flags = rwf::ATOMIC;
            e.r.user = 0x1001; // the length is a power of two, and the offset a multiple of it
        },
    ),
    ("flag-unsupported", |e| e.fails(libc::EOPNOTSUPP), |e| e.fails(libc::ENOSYS)),
    ("would-block", |e| e.fails(libc::EAGAIN), |e| e.fails(libc::EBUSY)),
    (
        "punted",
        |e| {
            e.r.ring = ring::WORKER;
            e.r.would_block = would_block::CACHED;
        },
        |e| e.r.ring = ring::WORKER, // as IOSQE_ASYNC asks for
    ),
    (
        "buffer-changed",
        |e| {
            e.writes();
            e.r.evidence.seen |= seen::BUFFER_CHANGED;
        },
        |e| e.writes(),
    ),
    ("no-space", |e| e.fails(libc::ENOSPC), |e| e.fails(libc::EFBIG)),
    ("efault", |e| e.fails(libc::EFAULT), |e| e.fails(libc::ENOMEM)),
    ("interrupted", |e| e.fails(512), |e| e.fails(511)),
    ("io-error", |e| e.fails(libc::ENODATA), |e| e.fails(libc::EROFS)),
    ("other-error", |e| e.fails(libc::EFBIG), |e| e.fails(libc::EIO)),
    ("tmpfs", |e| e.r.magic = magic::TMPFS, |e| e.cached("ext4")),
    (
        "dax",
        |e| e.r.evidence.seen = seen::DAX,
        |e| {
            e.r.evidence.seen = seen::DAX;
            e.short(1000);
        },
    ),
    (
        "data-journal",
        |e| {
            e.cached("ext4");
            e.options = "rw,data=journal";
        },
        |e| {
            e.cached("ext4");
            e.attrs.flags = Some(flag::JOURNAL_DATA); // without nodelalloc
        },
    ),
    (
        "inline-data",
        |e| {
            e.cached("btrfs");
            e.tried();
            e.extents = Some(extent::INLINE);
        },
        |e| {
            e.cached("btrfs");
            e.tried();
        },
    ),
    (
        "encrypted",
        |e| {
            e.cached("ext4");
            e.attrs.flags = Some(flag::ENCRYPTED);
        },
        |e| {
            e.attrs.attributes = Some(attribute::ENCRYPTED);
            e.options = "rw,inlinecrypt";
        },
    ),
    (
        "verity",
        |e| {
            e.cached("f2fs");
            e.attrs.attributes = Some(attribute::VERITY);
        },
        |e| e.cached("f2fs"),
    ),
    (
        "btrfs-misaligned",
        |e| e.cached_at("btrfs", 0x1200),
        |e| {
            e.cached_at("btrfs", 0x1200);
            e.tried();
        },
    ),
    (
        "ntfs3-misaligned",
        |e| e.cached_at("ntfs3", 0x1004),
        |e| {
            e.cached_at("ntfs3", 0x1004);
            e.tried();
        },
    ),
    (
        "f2fs-misaligned",
        |e| {
            e.cached("f2fs");
            e.r.pos = 512;
        },
        |e| e.cached("f2fs"),
    ),
    (
        "f2fs-compressed",
        |e| {
            e.cached("f2fs");
            e.attrs.flags = Some(flag::COMPRESSED);
        },
        |e| {
            e.cached("ext4");
            e.attrs.flags = Some(flag::COMPRESSED);
        },
    ),
    (
        "f2fs-zoned",
        |e| {
            e.written("f2fs");
            e.attrs.device.zoned = Some(true);
        },
        |e| {
            e.cached("f2fs");
            e.attrs.device.zoned = Some(true);
        },
    ),
    (
        "f2fs-checkpoint-disabled",
        |e| {
            e.cached("f2fs");
            e.options = "rw,checkpoint=disable:0";
        },
        |e| {
            e.cached("f2fs");
            e.options = "rw,checkpoint_merge";
        },
    ),
    (
        "f2fs-multi-device",
        |e| {
            e.cached("f2fs");
            e.attrs.dio_align = Some((0, 0));
        },
        |e| e.cached("f2fs"),
    ),
    (
        "erofs-file-backed",
        |e| {
            e.cached("erofs");
            e.attrs.dev = Some((0, 40));
        },
        |e| e.cached("erofs"),
    ),
    (
        "cache-not-invalidated",
        |e| {
            e.written("xfs");
            e.r.evidence.seen |= seen::INVALIDATED | seen::INVALIDATE_FAILED;
        },
        |e| {
            e.written("xfs");
            e.r.evidence.seen |= seen::INVALIDATED;
        },
    ),
    (
        "xfs-unaligned-cow",
        |e| {
            e.written("xfs");
            e.r.pos = 512;
            e.extents = Some(extent::SHARED);
        },
        |e| {
            e.written("xfs");
            e.extents = Some(extent::SHARED);
        },
    ),
    (
        "client-cached",
        |e| {
            e.server("fuse.bindfs", magic::FUSE);
            e.r.evidence.cached_bytes = 96;
        },
        |e| e.server("fuse.bindfs", magic::FUSE),
    ),
    (
        "below-buffered",
        |e| {
            e.server("fuse", magic::FUSE);
            e.r.evidence.direct_bytes = 0;
            e.r.evidence.seen = seen::LOWER_BUFFERED;
        },
        |e| e.server("fuse", magic::FUSE),
    ),
    ("nilfs2-write", |e| e.written("nilfs2"), |e| e.cached("nilfs2")),
    (
        "allocating-write",
        |e| {
            e.written("vfat");
            e.r.size_begin = e.r.pos;
        },
        |e| {
            e.written("ext4");
            e.r.size_begin = e.r.pos;
        },
    ),
    (
        "ocfs2-read-past-end",
        |e| {
            e.cached("ocfs2");
            e.r.size_begin = e.r.pos + 100;
        },
        |e| e.cached("ocfs2"),
    ),
    (
        "btrfs-compressed",
        |e| {
            e.cached("btrfs");
            e.tried();
            e.extents = Some(extent::ENCODED);
        },
        |e| {
            e.cached("btrfs");
            e.tried();
            e.options = "rw,compress=zstd:3"; // but the extents are not compressed
        },
    ),
    (
        "btrfs-racing",
        |e| {
            e.cached("btrfs");
            e.tried();
            e.r.evidence.flushed_pages = 2;
        },
        |e| {
            e.r.evidence.flushed_pages = 2;
        },
    ),
    (
        "btrfs-buffer-fault",
        |e| {
            e.cached("btrfs");
            e.tried();
        },
        |e| {
            e.cached("btrfs");
            e.tried();
            e.extents = None;
        },
    ),
    (
        "btrfs-checksums",
        |e| e.written("btrfs"),
        |e| {
            e.written("btrfs");
            e.attrs.flags = Some(flag::NOCOW);
        },
    ),
    (
        "btrfs-copies",
        |e| {
            e.written("btrfs");
            e.attrs.flags = Some(flag::NOCOW);
            e.attrs.profiles = vec![Profile::Raid1];
        },
        |e| {
            e.written("btrfs");
            e.attrs.flags = Some(flag::NOCOW);
            e.attrs.profiles = vec![Profile::Raid0];
        },
    ),
    (
        "file-gone",
        |e| {
            e.cached("ext4");
            e.attrs.gone = true;
            e.attrs.flags = None;
            e.attrs.dio_align = None;
        },
        |e| e.cached("ext4"),
    ),
    (
        "btrfs-large-block",
        |e| {
            e.cached("btrfs");
            e.attrs.block = Some(8192);
            e.r.user = 0x2000;
            e.r.len = 8192;
            e.r.ret = 8192;
            e.r.evidence.cached_bytes = 8192;
        },
        |e| {
            e.cached("btrfs");
            e.tried();
        },
    ),
    (
        "direct-part-short",
        |e| {
            e.device();
            e.r.evidence.seen = seen::BUFFERED_READ;
            e.r.evidence.cached_bytes = 512;
        },
        |e| {
            e.device();
            e.r.evidence.seen = seen::BUFFERED_READ;
            e.r.evidence.cached_bytes = e.r.len;
        },
    ),
    ("overlay-below", |e| e.cached("overlay"), |e| e.fs = "overlay"),
    (
        "dirty-left",
        |e| e.written("xfs"),
        |e| {
            e.written("xfs");
            e.r.evidence.seen |= seen::WRITTEN_BACK;
        },
    ),
    (
        "missed-probe",
        |e| e.r.evidence.seen = seen::MISSED | seen::BUFFERED_READ,
        |e| e.r.evidence.seen = seen::BUFFERED_READ,
    ),
    (
        "unseen-path",
        |e| {
            e.fs = "zfs";
            e.r.evidence.seen = 0;
        },
        |e| {
            e.r.evidence.seen = seen::IOMAP_DIO;
            e.r.evidence.direct_bytes = 1;
        },
    ),
    (
        "short-fault",
        |e| {
            e.short(512);
            e.outcome = Some(Outcome::Fault);
        },
        |e| e.short(512),
    ),
    (
        "short-signal",
        |e| {
            e.short(512);
            e.outcome = Some(Outcome::Signal);
        },
        |e| e.short(512),
    ),
    (
        "short-media",
        |e| {
            e.short(512);
            e.r.evidence.seen = seen::DAX;
        },
        |e| e.short(512),
    ),
    (
        "short-server",
        |e| {
            e.server("nfs4", magic::NFS);
            e.short(1000);
        },
        |e| e.short(1000),
    ),
    (
        "short-race",
        |e| {
            e.short(512);
            e.outcome = Some(Outcome::Race);
        },
        |e| e.short(512),
    ),
    (
        "max-rw",
        |e| {
            e.r.len = 3 << 30;
            let most = max_rw_count(16 << 10);
            e.r.evidence.direct_bytes = most;
            e.r.evidence.seen |= seen::AT_MOST;
            e.short(most as i64);
        },
        |e| e.short(512),
    ),
    ("short-other", |e| e.short(512), |_| ()),
    ("dirty-flush", |e| e.r.evidence.flushed_pages = 2, |_| ()),
    (
        "cache-invalidated",
        |e| {
            e.r.op = OP_WRITE;
            e.r.evidence.invalidated_pages = 1;
        },
        |e| e.r.op = OP_WRITE,
    ),
    (
        "device-end",
        |e| {
            e.device();
            e.r.size_begin = e.r.pos + 512;
            e.r.size_end = e.r.size_begin;
            e.short(512);
        },
        |e| e.device(),
    ),
    (
        "end-of-file",
        |e| {
            e.r.size_begin = e.r.pos + 100;
            e.r.size_end = e.r.size_begin;
            e.short(100);
        },
        |e| e.short(100),
    ),
    ("loop-buffered", |e| e.on_loop(false), |e| e.on_loop(true)),
    ("bounced", |e| e.r.evidence.seen |= seen::BOUNCED, |_| ()),
    ("server-may-cache", |e| e.server("9p", magic::V9FS), |_| ()),
    ("not-explained", |e| e.cached("xfs"), |_| ()),
];

fn example(change: impl Fn(&mut Example)) -> Example {
    let mut example = healthy();
    change(&mut example);
    example
}

fn id(change: Change) -> Option<&'static str> {
    example(change).explained().map(|said| said.id)
}

fn why(change: Change) -> String {
    example(change).explained().unwrap().why
}

#[test]
fn each_rule_fires_and_does_not_fire() {
    let ids: Vec<&str> = EXAMPLES.iter().map(|(id, ..)| *id).collect();
    // Rules that never fit a single request.
    let several = [
        ALIGNMENT_PROBE,
        explain_rejected_open("squashfs", true).id,
        explain_mixed(true, DirectBy::Several).id,
        explain_mixed(true, DirectBy::Itself).id,
        explain_unasked(None, Unasked::default()).id,
        explain_unasked(None, Unasked { mapped: true, ..Unasked::default() }).id,
    ];
    for rule in RULES.iter().filter(|rule| !several.contains(&rule.id)) {
        assert!(ids.contains(&rule.id), "{} has no example", rule.id);
    }
    for (rule, fits, near) in EXAMPLES {
        assert_eq!(id(*fits), Some(*rule));
        assert_ne!(id(*near), Some(*rule), "{rule} must not fire");
    }
}

#[test]
fn buffered_users_are_named_once_known() {
    let named = |e: &mut Example| {
        e.r.evidence.flushed_pages = 2;
        e.r.task.tgid = 78;
        e.buffered_users.writers = [(77, "logger/77"), (78, "cp/78")]
            .map(|(pid, name)| BufferedUser { pid, name: name.to_owned() })
            .to_vec();
    };
    let by = "2 dirty pages of this file had to be written back first; it was used through the \
              page cache by logger/77, this process itself";
    assert_eq!(why(named), by);
    // No user was seen: the text does not claim that one exists now.
    let unknown = why(|e| e.r.evidence.flushed_pages = 2);
    assert!(unknown.contains("was not seen: likely"), "{unknown}");
    assert!(unknown.contains("perhaps from this program itself"), "{unknown}");
}

#[test]
fn healthy_requests_have_no_cause() {
    assert_eq!(id(|_| ()), None);
    assert_eq!(id(|e| e.options = "rw,data=journal"), None);
    assert_eq!(id(|e| e.attrs.flags = Some(flag::ENCRYPTED | flag::VERITY)), None);
}

#[test]
fn the_notes_explain_healthy_requests_as_the_whole_table_does() {
    let changes = || EXAMPLES.iter().flat_map(|(_, fits, near)| [fits, near]);
    for (one, other) in changes().flat_map(|one| changes().map(move |other| (one, other))) {
        let example = example(|e| {
            one(e);
            other(e);
        });
        assert_eq!(example.explained(), example.by(|case| first(RULES, case)));
    }
}

#[test]
fn a_direct_part_that_ends_inside_a_block_was_at_the_end_of_the_file() {
    // Seen on btrfs, 7.3: a read while the file grew.
    let grew: Change = |e| {
        e.cached("btrfs");
        e.tried();
        e.r.evidence.direct_bytes = 512;
        e.r.evidence.cached_bytes = e.r.len - 512;
    };
    assert_eq!(id(grew), Some("direct-part-short"));
    assert!(why(grew).starts_with("the file ended at "), "{}", why(grew));
    let whole: Change = |e| {
        e.r.len = 8192;
        e.r.ret = 8192;
        e.cached("btrfs");
        e.tried();
        e.r.evidence.direct_bytes = 4096;
        e.r.evidence.cached_bytes = 4096;
    };
    assert_eq!(id(whole), Some("btrfs-buffer-fault"));
    assert!(why(whole).ends_with("; or the file grew during the read"), "{}", why(whole));
}

#[test]
fn refusals_name_the_value_and_its_limit() {
    assert_eq!(
        why(|e| {
            e.fails(libc::EINVAL);
            e.attrs.dio_align = Some((512, 4096));
            e.r.pos = 512;
            e.r.user = 0x1004;
        }),
        "offset 512 is not a multiple of 4096, the buffer is 4 bytes past a multiple of 512 (limits: \
         statx STATX_DIOALIGN)"
    );
    // Reads may have a limit of their own (statx stx_dio_read_offset_align).
    let read: Change = |e| {
        e.fails(libc::EINVAL);
        e.attrs.dio_align = Some((512, 4096));
        e.attrs.dio_read_align = Some(512);
        e.r.pos = 512;
    };
    assert_eq!(id(read), Some("invalid-request"));
    let segment: Change = |e| {
        e.fails(libc::EINVAL);
        e.r.flags |= REQ_VECTORED;
        e.r.evidence.segments = 2;
        e.r.evidence.len_bits = 100;
    };
    assert_eq!(
        why(segment),
        "a segment's length is not a multiple of 512 (limits: statx STATX_DIOALIGN)"
    );
    let queue: Change = |e| {
        e.fails(libc::EINVAL);
        e.attrs.dio_align = None;
        e.attrs.device.logical_block = Some(4096);
        e.r.len = 512;
    };
    assert_eq!(why(queue), "length 512 is not a multiple of 4096 (limits: the device's queue)");
    let tail: Change = |e| {
        e.fails(libc::EINVAL);
        e.device();
        e.attrs.dio_align = Some((512, 4096));
        e.r.size_begin = e.r.pos + 512;
    };
    assert_eq!(
        why(tail),
        "the device ends at 8704, which is not a multiple of 4096, inside this request"
    );
}

#[test]
fn a_sentence_says_likely_if_it_is_not_proven() {
    let mut explained: Vec<Explanation> = EXAMPLES
        .iter()
        .flat_map(|(_, fits, near)| [*fits, *near])
        .filter_map(|change| example(change).explained())
        .collect();
    explained.extend([true, false].map(|proven| explain_rejected_open("squashfs", proven)));
    for Explanation { id, certainty, why, .. } in explained {
        assert_eq!(certainty == Certainty::Likely, why.contains("likely"), "{id}: {why}");
    }
}

#[test]
fn what_is_not_proven_is_likely_and_no_forecast() {
    let shared: Change = |e| {
        e.written("xfs");
        e.r.len = 512;
        e.extents = Some(extent::SHARED);
    };
    let unknown: Change = |e| {
        e.written("xfs");
        e.r.len = 512;
    };
    assert!(why(shared).starts_with("the file shares extents"));
    assert!(why(unknown).starts_with("likely the file shares extents"));
    let fat: Change = |e| {
        e.written("vfat");
        e.r.size_begin = e.r.pos;
    };
    let ext2: Change = |e| {
        e.written("ext2");
        e.r.size_begin = e.r.pos;
    };
    assert!(why(fat).starts_with("it ends at 12288, past the file's 8192 bytes"));
    assert!(why(ext2).starts_with("likely because it ends at 12288"));
    let forecast = |change| example(change).forecast().map(|expected| expected.id);
    assert_eq!((forecast(fat), forecast(ext2)), (Some("allocating-write"), None));
}

#[test]
fn a_fallback_is_explained_before_its_effects() {
    let both: Change = |e| {
        e.cached("ext4");
        e.options = "rw,data=journal";
        e.r.evidence.flushed_pages = 2;
        e.r.evidence.invalidated_pages = 2;
    };
    assert_eq!(id(both), Some("data-journal"));
    let unexplained: Change = |e| {
        e.cached("xfs");
        e.r.evidence.flushed_pages = 2;
    };
    assert_eq!(id(unexplained), Some("not-explained"));
}

#[test]
fn an_end_of_file_does_not_explain_a_fallback() {
    let tail: Change = |e| {
        e.cached("xfs");
        e.r.size_begin = e.r.pos + 100;
        e.r.size_end = e.r.size_begin;
        e.r.evidence.cached_bytes = 100;
        e.short(100);
    };
    assert_eq!(id(tail), Some("not-explained"));
}

#[test]
fn kinds_of_files_with_no_direct_path() {
    let journal: Change = |e| {
        e.cached("ext4");
        e.options = "rw,nodelalloc";
        e.attrs.flags = Some(flag::JOURNAL_DATA);
    };
    assert_eq!(id(journal), Some("data-journal"));
    let inline: Change = |e| {
        e.cached("ext4");
        e.attrs.flags = Some(flag::INLINE_DATA);
    };
    assert_eq!(id(inline), Some("inline-data"));
    let was_inline: Change = |e| {
        e.written("ext4");
        e.small();
    };
    assert_eq!(id(was_inline), Some("inline-data"));
    let in_icb: Change = |e| {
        e.cached("udf");
        e.small();
        e.attrs.allocated = Some(0);
    };
    assert_eq!(id(in_icb), Some("inline-data"));
    let aligned: Change = |e| {
        e.cached("ext4");
        e.attrs.flags = Some(flag::ENCRYPTED);
    };
    assert!(why(aligned).contains("no inlinecrypt"));
    let off: Change = |e| {
        e.cached("ext4");
        e.options = "rw,inlinecrypt";
        e.attrs.flags = Some(flag::ENCRYPTED);
        e.r.pos = 512;
    };
    assert!(why(off).ends_with("offset 512 is not a multiple of 4096"));
    let small: Change = |e| {
        e.written("ext4");
        e.small();
        e.attrs.flags = Some(flag::ENCRYPTED);
    };
    assert_eq!(id(small), Some("encrypted")); // proven, before "likely it was inline"
}

#[test]
fn errors_name_what_is_below() {
    let below: Change = |e| {
        e.fails(libc::EIO);
        let layer = |name: &str, kind| Layer { name: name.to_owned(), kind };
        e.attrs.device.layers =
            vec![layer("dm-0", LayerKind::Mapper), layer("sda3", LayerKind::Disk)];
    };
    assert_eq!(
        why(below),
        "EIO for bytes 8192 to 12288, from the device (dm-0 on sda3), or ext4 on it"
    );
    let server: Change = |e| {
        e.server("nfs4", magic::NFS);
        e.fails(libc::EIO);
    };
    assert_eq!(why(server), "EIO for bytes 8192 to 12288, from the nfs4 server or daemon");
    let end: Change = |e| {
        e.device();
        e.fails(libc::ENOSPC);
        e.r.size_begin = e.r.pos;
    };
    assert_eq!(why(end), "the device ends at 8192, and the write begins at 8192");
    let bad_page: Change = |e| {
        e.cached("vfat");
        e.r.evidence.cached_bytes = 512;
        e.r.evidence.buffered_err = -libc::EIO;
        e.short(512);
    };
    assert_eq!(id(bad_page), Some("short-other"));
    assert_eq!(why(bad_page), "it stopped after 512 of 4096 bytes, where the kernel met EIO");
}

fn fix(change: Change) -> String {
    example(change).explained().unwrap().fix
}

#[test]
fn an_efault_is_explained_by_the_mapping_of_the_buffer() {
    let unknown: Change = |e| e.fails(libc::EFAULT);
    assert!(why(unknown).contains("likely") && why(unknown).contains("a device's"));
    let device: Change = |e| {
        e.fails(libc::EFAULT);
        e.memory = Some(Memory::Device { name: "/dev/mem".to_owned() });
    };
    assert!(why(device).contains("memory of a device (/dev/mem; VmFlags io or pf)"));
    assert!(fix(device).contains("bounce buffer"));
    let guard: Change = |e| {
        e.fails(libc::EFAULT);
        e.memory = Some(Memory::Guard { byte: 2048 });
    };
    assert!(
        why(guard).starts_with("byte 2048 of the buffer's 4096 is in a mapping without access")
    );
    let now_fine: Change = |e| {
        e.fails(libc::EFAULT);
        e.memory = Some(Memory::Mapped);
    };
    assert!(why(now_fine).starts_with("likely the buffer's 4096 bytes were not mapped"));
}

#[test]
fn a_refused_flag_is_named_if_it_is_the_only_one() {
    let why = |change: &dyn Fn(&mut Example)| {
        let mut e = healthy();
        e.fails(libc::EOPNOTSUPP);
        e.r.evidence.seen = 0;
        change(&mut e);
        let explained = e.explained().unwrap();
        assert_eq!(explained.id, "flag-unsupported");
        (explained.certainty, explained.why)
    };
    let (certainty, text) = why(&|e| e.r.rw_flags = rwf::DONTCACHE | rwf::DSYNC);
    assert_eq!(certainty, Certainty::Likely);
    assert!(text.starts_with("RWF_DONTCACHE is not supported here: likely this kernel"), "{text}");
    assert_eq!(why(&|e| e.r.rw_flags = rwf::ATOMIC).0, Certainty::Proven, "a read");
    let (certainty, text) = why(&|e| e.r.rw_flags = rwf::DONTCACHE | rwf::NOWAIT);
    assert_eq!(certainty, Certainty::Likely);
    assert!(text.ends_with("one of RWF_NOWAIT, RWF_DONTCACHE"), "{text}");
    let (certainty, text) = why(&|e| {
        e.r.ring = ring::IOPOLL;
        e.attrs.device.io_poll = Some(false);
    });
    assert_eq!(certainty, Certainty::Likely);
    assert!(text.contains("cannot be polled (queue/io_poll is 0)"), "{text}");
    // A recording of an earlier version has no flags.
    assert_eq!(why(&|_| ()).0, Certainty::Likely);
    assert_eq!(
        why(&|e| {
            e.fs = "f2fs";
            e.r.rw_flags = rwf::NOWAIT;
        })
        .0,
        Certainty::Likely
    );
}

#[test]
fn an_atomic_write_is_told_which_rule_it_breaks() {
    let why = |len: u64, pos: i64| {
        let mut e = healthy();
        e.writes();
        e.fails(libc::EINVAL);
        (e.r.rw_flags, e.r.len, e.r.pos) = (rwf::ATOMIC, len, pos);
        e.attrs.atomic = Some(AtomicLimits { min: 4096, max: 65536, segments: 1 });
        e.explained().unwrap().why
    };
    assert_eq!(
        why(12288, 0),
        "RWF_ATOMIC: length 12288 is not a power of two (limits of this file: 4096 to 65536 bytes)"
    );
    assert!(why(8192, 4096).contains("offset 4096 is not a multiple of the length 8192"));
    assert!(why(131_072, 0).contains("length 131072 is outside of 4096 to 65536"));
}

#[test]
fn a_deleted_file_is_known_by_its_inode() {
    for (bit, id) in [(inode_flag::ENCRYPTED, "encrypted"), (inode_flag::VERITY, "verity")] {
        let mut e = healthy();
        e.cached("ext4");
        e.attrs = FileAttrs { gone: true, ..FileAttrs::default() };
        e.r.inode_flags = bit;
        assert_eq!(e.explained().unwrap().id, id);
    }
}

#[test]
fn probed_reasons_of_eagain_are_proven() {
    let mut e = healthy();
    e.fails(libc::EAGAIN);
    assert_eq!(e.explained().unwrap().certainty, Certainty::Likely);
    e.r.would_block = would_block::TIMESTAMP;
    let explained = e.explained().unwrap();
    assert_eq!(explained.certainty, Certainty::Proven);
    assert!(explained.why.contains("a time stamp or the version of the file had to be updated"));
    e.r.would_block = would_block::BLOCK_MAP;
    assert_eq!(e.explained().unwrap().certainty, Certainty::Likely);
}

#[test]
fn a_loop_device_gets_the_fix_that_the_kernel_accepts() {
    let with: fn(&mut Example, LoopLimits) = |e, limits| {
        e.on_loop(false);
        let LayerKind::Loop { limits: to, .. } = &mut e.attrs.device.layers[0].kind else {
            return;
        };
        *to = limits;
    };
    let fits = |e: &mut Example| with(e, LoopLimits { block: 4096, offset: 0, needs: 4096 });
    let small = |e: &mut Example| with(e, LoopLimits { block: 512, offset: 0, needs: 4096 });
    let shifted = |e: &mut Example| with(e, LoopLimits { block: 512, offset: 256, needs: 512 });
    let fix_of = |change: &dyn Fn(&mut Example)| {
        let mut example = healthy();
        change(&mut example);
        example.explained().unwrap().fix
    };
    assert!(fix_of(&fits).starts_with("`losetup --direct-io=on /dev/loopN`"));
    let anew = fix_of(&small);
    assert!(anew.contains("EINVAL") && anew.contains("`losetup -b 4096 --direct-io=on -f FILE`"));
    assert!(fix_of(&shifted).contains("begins at byte 256"));
}

#[test]
fn an_io_error_names_what_a_program_can_have_caused() {
    let btrfs: Change = |e| {
        e.fs = "btrfs";
        e.fails(libc::EIO);
    };
    assert!(fix(btrfs).contains("csum failed"));
    let stacked: Change = |e| {
        e.device();
        e.r.user = 0x1004;
        e.fails(libc::EIO);
        let layer = |name: &str, kind| Layer { name: name.to_owned(), kind };
        e.attrs.device.layers =
            vec![layer("dm-0", LayerKind::Mapper), layer("sda", LayerKind::Disk)];
    };
    assert!(why(stacked).contains("likely a device below refused the alignment late"));
    assert!(fix(stacked).starts_with("align the request"));
}

#[test]
fn btrfs_without_checksums_needs_a_profile_without_copies() {
    let raid: Change = |e| {
        e.written("btrfs");
        e.attrs.profiles = vec![Profile::Raid1];
    };
    assert_eq!(id(raid), Some("btrfs-checksums"));
    assert!(fix(raid).contains("`chattr +C` alone may not be enough"));
}

#[test]
fn a_zoned_xfs_is_not_said_to_share_extents() {
    let zoned: Change = |e| {
        e.written("xfs");
        e.r.pos = 512;
        e.attrs.device.zoned = Some(true);
    };
    assert_eq!(id(zoned), Some("xfs-unaligned-cow"));
    assert!(why(zoned).contains("zoned") && !why(zoned).contains("shares extents"));
    assert!(!fix(zoned).contains("funshare"));
}
