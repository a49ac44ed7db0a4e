//! Rules for files that have no direct path: data-journalled, inline, encrypted or fs-verity files.

use crate::{
    cause::{Case, Reason, Rule, Scenario, rules::alignment::off_block},
    system::{extents::extent, file_attrs::flag},
};

pub(super) const DATA_JOURNAL: Rule = Rule {
    id: "data-journal",
    title: "ext4 journals the data of this file",
    means: "With data=journal ext4 writes data to its journal first, which it does from the page \
            cache. It never does direct I/O on such files, reads included, and a write leaves \
            dirty pages behind. chattr +j asks the same for a file or folder, but has an effect \
            only where the mount has nodelalloc (or the kernel's ext4 has no delayed allocation).",
    proof: "The request went through the page cache, and the mount's options in /proc/PID/mountinfo \
            have data=journal; or the file has the flag (lsattr: j) and the mount nodelalloc.",
    fix: "mount with data=ordered (unmount first: a remount cannot change it); where the file \
          alone has the flag, `chattr -j FILE`",
    on: "ext4",
    scenario: Scenario::In(&["ext4-journal", "ext4-jattr-nodelalloc", "overlay-journal"]),
    test: data_journal,
};

pub(super) const INLINE_DATA: Rule = Rule {
    id: "inline-data",
    title: "the data is in the metadata, there is no block to read",
    means: "Small files may live inside their inode or a tree of metadata: ext4 with inline_data, \
            btrfs below max_inline (2048 bytes), f2fs below about 3.6 KiB, ntfs3 resident files, \
            udf, gfs2 and ocfs2. There is no block that a device could read.",
    proof: "Reads: ext4's file flag, else the extents (FIEMAP) say that data in this range is \
            inline. Likely for writes, which turn inline data into blocks so that it can no longer \
            be asked, and on udf, where it is told by a file that takes no blocks.",
    fix: "let the file grow beyond the limit, or switch it off: ext4 by making the file system \
          without inline_data, btrfs by `mount -o max_inline=0`, f2fs by `-o noinline_data`",
    on: "ext4, btrfs, f2fs, ntfs3, udf, gfs2, ocfs2",
    scenario: Scenario::In(&[
        "ext4-inline",
        "btrfs",
        "btrfs-dup",
        "btrfs-nocow",
        "btrfs-zstd",
        "f2fs",
        "f2fs-checkpoint",
        "f2fs-compress",
        "f2fs-zoned",
        "gfs2",
        "ntfs3",
        "ocfs2",
        "udf",
    ]),
    test: inline_data,
};

pub(super) const ENCRYPTED: Rule = Rule {
    id: "encrypted",
    title: "the file is encrypted by the file system (fscrypt)",
    means: "fscrypt decrypts in the page cache, so requests for an encrypted file go through it. \
            With -o inlinecrypt (from 5.18 on, where the kernel was built with it) the block layer \
            decrypts, and requests in whole blocks are direct; kernels from 7.3 on always work so.",
    proof: "The request went through the page cache, and the inode (S_ENCRYPTED), statx(2) or \
            FS_IOC_GETFLAGS says that this file is encrypted.",
    fix: "mount with inlinecrypt (kernel 5.18 or later with CONFIG_FS_ENCRYPTION_INLINE_CRYPT) and use \
          whole blocks for offset, length and buffer; or encrypt below the file system (dm-crypt), \
          which keeps requests direct",
    on: "ext4, f2fs",
    scenario: Scenario::In(&["ext4-encrypt"]),
    test: encrypted,
};

pub(super) const VERITY: Rule = Rule {
    id: "verity",
    title: "fs-verity checks this file in the page cache",
    means: "A file under fs-verity is verified page by page against a Merkle tree as it comes into \
            the page cache; a direct read would go past the check, so every read goes through it.",
    proof: "The read went through the page cache, and the inode (S_VERITY), statx(2) or \
            FS_IOC_GETFLAGS says that this file has verity.",
    fix: "none: reads of verity files are cached by design. Copy the file (`cp --reflink=never`) \
          for one without, or drop O_DIRECT",
    on: "ext4, f2fs, btrfs",
    scenario: Scenario::In(&["ext4-verity", "f2fs-verity"]),
    test: verity,
};

fn data_journal(case: &Case<'_>) -> Option<Reason> {
    if !case.cached() || case.tried() || !case.on(&["ext4"]) {
        return None;
    }
    if case.option("data=journal") {
        return Some(Reason::proven(
            "ext4 is mounted with data=journal: all data goes through the page cache",
        ));
    }
    // chattr +j is ignored under delayed allocation (fs/ext4/inode.c:ext4_inode_journal_mode).
    (case.flag(flag::JOURNAL_DATA) && case.option("nodelalloc")).then(|| {
        Reason::proven(
            "this file's data is journalled (chattr +j, and the mount has nodelalloc): it goes \
             through the page cache",
        )
    })
}

fn inline_data(case: &Case<'_>) -> Option<Reason> {
    if !case.cached() {
        return None;
    }
    let size = case.request.size_begin;
    // A write moves inline data to blocks, so the file's attributes no longer show it.
    let small = size > 0 && size < case.block().into();
    if case.is_write() && small && may_have_been_inline(case) {
        return Some(Reason::likely(format!(
            "the file's {size} bytes were inline in the metadata until this write"
        )));
    }
    let inline =
        if case.on(&["ext4"]) { case.flag(flag::INLINE_DATA) } else { case.extent(extent::INLINE) };
    if inline {
        let text = "the data is inline in the metadata: there is no block to read";
        return Some(Reason::proven(text));
    }
    (case.on(&["udf"]) && small && case.attrs.allocated == Some(0)).then(|| {
        Reason::likely(format!(
            "the file's {size} bytes are inline in its metadata: it takes no blocks"
        ))
    })
}

/// True if inline data is consistent with whether the direct path was tried: ext4 and the other
/// file systems with a check of their own never try it for inline data; btrfs tries it and falls
/// back.
fn may_have_been_inline(case: &Case<'_>) -> bool {
    let untried = case.on(&["ext4", "ntfs3", "ntfs", "udf", "ocfs2", "gfs2"]) && !case.tried();
    untried || (case.on(&["btrfs"]) && case.tried())
}

/// Follows fs/ext4/file.c:ext4_should_use_dio and fs/crypto/inline_crypt.c:fscrypt_dio_supported.
fn encrypted(case: &Case<'_>) -> Option<Reason> {
    if !case.cached() || !case.is_encrypted() || case.flag(flag::INLINE_DATA) {
        return None;
    }
    let wrong = off_block(case, case.block());
    if wrong.is_empty() && !case.option("inlinecrypt") {
        return Some(Reason::proven(
            "the file is encrypted (fscrypt), and the mount has no inlinecrypt: it is decrypted in \
             the page cache",
        ));
    }
    if wrong.is_empty() {
        return Some(Reason::proven(
            "the file is encrypted (fscrypt) in a way that the block layer cannot decrypt",
        ));
    }
    let wrong = wrong.join(", ");
    Some(Reason::proven(format!("the file is encrypted (fscrypt) and needs whole blocks: {wrong}")))
}

fn verity(case: &Case<'_>) -> Option<Reason> {
    (case.cached_read() && case.has_verity())
        .then(|| Reason::proven("the file has fs-verity: every read is checked in the page cache"))
}
