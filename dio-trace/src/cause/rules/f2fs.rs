//! Rules for f2fs (fs/f2fs/file.c:f2fs_should_use_dio, fs/f2fs/f2fs.h:f2fs_force_buffered_io).

use crate::{
    cause::{
        Case, Reason, Rule, Scenario,
        rules::alignment::{needs_blocks, says_none},
    },
    system::file_attrs::{attribute, flag},
};

pub(super) const MISALIGNED: Rule = Rule {
    id: "f2fs-misaligned",
    title: "f2fs: in sectors but not in whole blocks, so cached",
    means: "f2fs refuses what is off the device's sectors (EINVAL), and serves what keeps to \
            sectors but not to its own blocks through the page cache, saying nothing. A block has \
            4096 bytes, or from 6.6 on the size of a page.",
    proof: "The request went through the page cache without a direct attempt, and offset, length, \
            buffer address or a segment is no multiple of the block; the sentence names each. \
            Likely where the vector's segments were not read.",
    fix: "use multiples of the block for offset, length and buffer address: 4096, or what `stat -f` \
          shows as block size",
    on: "f2fs",
    scenario: Scenario::In(&["f2fs"]),
    test: misaligned,
};

pub(super) const COMPRESSED: Rule = Rule {
    id: "f2fs-compressed",
    title: "f2fs: the file is compressed",
    means: "f2fs reads and writes files with its compression flag through the page cache, in whole \
            clusters, whether this range was worth compressing or not.",
    proof: "The request went through the page cache without a direct attempt, and the file has the \
            flag (lsattr: c).",
    fix: "`chattr -c FILE` while the file is empty, or leave its extension out of the mount option \
          compress_extension; then copy the data again",
    on: "f2fs",
    scenario: Scenario::In(&["f2fs-compress"]),
    test: compressed,
};

pub(super) const ZONED: Rule = Rule {
    id: "f2fs-zoned",
    title: "f2fs: writes to a zoned device are cached",
    means: "On a zoned device f2fs writes in sequence, in the order of its log, and therefore takes \
            every write through the page cache, but for pinned files (from 6.10 on). Reads are \
            direct from 6.1 on.",
    proof: "A write without a direct attempt, and the device's queue says that it is zoned.",
    fix: "none for writes on this device; a conventional device, or from 6.10 on a pinned and \
          fallocated file (`f2fs_io pinfile set FILE`)",
    on: "f2fs",
    scenario: Scenario::In(&["f2fs-zoned"]),
    test: zoned,
};

pub(super) const CHECKPOINT_OFF: Rule = Rule {
    id: "f2fs-checkpoint-disabled",
    title: "f2fs: mounted with checkpoint=disable",
    means: "While checkpoints are off (Android does it during an update) f2fs takes everything \
            through the page cache, so that all can be rolled back.",
    proof: "A request without a direct attempt, and the mount's options have checkpoint=disable.",
    fix: "`mount -o remount,checkpoint=enable DIR` once the update is done",
    on: "f2fs",
    scenario: Scenario::In(&["f2fs-checkpoint"]),
    test: checkpoint_off,
};

pub(super) const MULTI_DEVICE: Rule = Rule {
    id: "f2fs-multi-device",
    title: "f2fs: several devices with different blocks",
    means: "An f2fs over several devices (mkfs.f2fs -c) whose block sizes or sections do not match \
            takes everything through the page cache; before 5.16 every one over several devices did.",
    proof: "statx(2) says that this file does no direct I/O, and every other reason that f2fs has \
            is excluded: likely.",
    fix: "make the file system of devices with equal logical block sizes",
    on: "f2fs",
    scenario: Scenario::Needs("an f2fs over two devices of unlike blocks"),
    test: multi_device,
};

fn untried(case: &Case<'_>) -> bool {
    case.on(&["f2fs"]) && case.cached() && !case.tried()
}

fn misaligned(case: &Case<'_>) -> Option<Reason> {
    case.on(&["f2fs"]).then(|| needs_blocks(case, case.block())).flatten()
}

fn compressed(case: &Case<'_>) -> Option<Reason> {
    (untried(case) && case.marked(flag::COMPRESSED, attribute::COMPRESSED)).then(|| {
        Reason::proven("the file is compressed (lsattr: c): f2fs takes it through the page cache")
    })
}

fn zoned(case: &Case<'_>) -> Option<Reason> {
    (untried(case) && case.is_write() && case.attrs.device.zoned == Some(true)).then(|| {
        Reason::proven("the device is zoned: f2fs writes it in sequence, through the page cache")
    })
}

fn checkpoint_off(case: &Case<'_>) -> Option<Reason> {
    (untried(case) && case.option_begins("checkpoint=disable")).then(|| {
        Reason::proven(
            "f2fs is mounted with checkpoint=disable: everything goes through the page cache",
        )
    })
}

fn multi_device(case: &Case<'_>) -> Option<Reason> {
    (untried(case) && says_none(case)).then(|| {
        Reason::likely(
            "several devices whose blocks do not match: f2fs then does no direct I/O (statx \
             STATX_DIOALIGN is 0)",
        )
    })
}
