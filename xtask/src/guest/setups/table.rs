//! The set-ups that there are, a line each.
use crate::guest::setups::{Disk, Kind, Setup, Store};

type Words = &'static [&'static str];

const EXT4: Words = &["mkfs.ext4", "-q", "-F", "-b", "4096"];
const INLINE: Words = &["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "inline_data", "-I", "512"];
const NOEXTENT: Words = &["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^extent,^64bit"];
const CRYPT: Words = &["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "encrypt"];
const NOJOURNAL: Words = &["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "^has_journal"];
const F2FS: Words = &["mkfs.f2fs", "-q", "-f"];
const F2FS_COMPRESS: Words = &["mkfs.f2fs", "-q", "-f", "-O", "extra_attr,compression"];
const VFAT: Words = &["mkfs.vfat", "-F", "32", "-s", "8"];
const XFS: Words = &["mkfs.xfs", "-q", "-f"];
const BTRFS: Words = &["mkfs.btrfs", "-q", "-f"];
const BIGALLOC: Words = &["mkfs.ext4", "-q", "-F", "-O", "bigalloc", "-C", "65536"];
const NTFS: Words = &["mkntfs", "-q", "-Q", "-F"];
const GFS2: Words = &["mkfs.gfs2", "-O", "-q", "-p", "lock_nolock", "-j", "1"];
const OCFS2: Words =
    &["mkfs.ocfs2", "-q", "-F", "-x", "-M", "local", "-N", "1", "--fs-features=local"];
const SQUASHFS: Words = &["mksquashfs", "FOLDER", "DEVICE", "-noappend", "-quiet"];
const EROFS: Words = &["mkfs.erofs", "DEVICE", "FOLDER"];
const VERITY: Words = &["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "verity"];
const F2FS_VERITY: Words = &["mkfs.f2fs", "-q", "-f", "-O", "extra_attr,verity"];
const F2FS_ZONED: Words = &["mkfs.f2fs", "-q", "-f", "-m"];
const EROFS_LZ4: Words = &["mkfs.erofs", "-zlz4", "DEVICE", "FOLDER"];
const ISO: Words = &["xorrisofs", "-quiet", "-R", "-o", "DEVICE", "FOLDER"];

/// Journals data by default, without a mount option.
const EXT4_JOURNAL: Words =
    &["sh", "-ec", "mkfs.ext4 -q -F -b 4096 \"$0\"; tune2fs -o journal_data \"$0\""];

/// Puts an encrypted folder, with a key of zeros, over the file system's root, which cannot be.
const ENCRYPT: Words = &[
    "sh",
    "-ec",
    "mkdir \"$0/secret\"; key=$(head -c 64 /dev/zero | xfs_io -c add_enckey \"$0\"); \
     xfs_io -c \"set_encpolicy ${key##* }\" \"$0/secret\"; mount --bind \"$0/secret\" \"$0\"",
];

/// Puts every file under fs-verity.
const ENABLE_VERITY: Words =
    &["sh", "-ec", "for file in \"$0\"/*.*; do fsverity enable \"$file\"; done"];

const SECTOR_512: Store = Store::Part(Disk::Sector512);
const SECTOR_4096: Store = Store::Part(Disk::Sector4096);
const SECTOR_512E: Store = Store::Part(Disk::Sector512e);
/// A quarter of a partition, as a file.
const QUARTER: u64 = 175 << 20;
/// More than half of one, as a file.
const WIDE: u64 = 400 << 20;
/// Half of one, in sectors of 512 bytes.
const HALF: u64 = 350 << 11;

const fn disk(mkfs: Words, options: &'static str) -> Kind {
    prepared(mkfs, options, &[])
}

const fn prepared(mkfs: Words, options: &'static str, prepare: Words) -> Kind {
    Kind::Made { on: SECTOR_512, mkfs, options, prepare }
}

const fn setup(name: &'static str, fs: &'static str, kind: Kind, causes: Words) -> Setup {
    Setup { name, rows: name, fs, kind, cloned: false, causes, rare: false }
}

const fn device(name: &'static str, store: Store) -> Setup {
    setup(name, "bdev", Kind::Device(store), &[])
}

const fn fuse(name: &'static str, server: Words) -> Setup {
    setup(name, "fuse", Kind::Fuse { server }, &[])
}

const fn broken(name: &'static str, fs: &'static str, mkfs: Words, causes: Words) -> Setup {
    setup(name, fs, Kind::Broken { mkfs }, causes)
}

impl Setup {
    const fn like(self, rows: &'static str) -> Self {
        Self { rows, ..self }
    }

    const fn cloned(self) -> Self {
        Self { cloned: true, ..self }
    }

    const fn because(self, causes: Words) -> Self {
        Self { causes, ..self }
    }

    const fn rare(self) -> Self {
        Self { rare: true, ..self }
    }
}

const fn overlay(mkfs: Words, lower: &'static str) -> Kind {
    Kind::Overlay { mkfs, lower }
}

const fn on(on: Store, mkfs: Words) -> Kind {
    Kind::Made { on, mkfs, options: "", prepare: &[] }
}

const fn dax(mkfs: Words) -> Kind {
    Kind::Made { on: Store::Part(Disk::Pmem), mkfs, options: "dax", prepare: &[] }
}

const fn verity(mkfs: Words) -> Kind {
    Kind::Sealed { mkfs, options: "", seal: ENABLE_VERITY }
}

/// What lies below an overlay that is read alone.
const LOWER_EXT4: Setup = setup("overlay-lower.lower", "ext4", disk(EXT4, ""), &[]);
const LOWER_SQUASHFS: Setup =
    setup("overlay-squashfs.lower", "squashfs", Kind::Image { mkfs: SQUASHFS }, &[]);
const LOWER_FUSE: Setup = fuse("overlay-fuse.lower", &["xtask", "guest", "fuse-server"]);

/// Every set-up. chattr +j bites only without delayed allocation: hence two of them.
pub(in crate::guest) const ALL: &[Setup] = &[
    setup("ext4-512", "ext4", disk(EXT4, ""), &[]),
    setup("ext4-4kn", "ext4", on(SECTOR_4096, EXT4), &[]),
    setup("ext4-journal", "ext4", disk(EXT4, "data=journal"), &["data-journal"]),
    setup("ext4-jattr", "ext4", prepared(EXT4, "", &["chattr", "+j"]), &[]),
    setup(
        "ext4-jattr-nodelalloc",
        "ext4",
        prepared(EXT4, "nodelalloc", &["chattr", "+j"]),
        &["data-journal"],
    )
    .like("ext4-journal"),
    setup("ext4-inline", "ext4", disk(INLINE, ""), &["inline-data"]),
    setup("ext4-encrypt", "ext4", prepared(CRYPT, "", ENCRYPT), &["encrypted"]),
    setup("xfs-512", "xfs", disk(XFS, ""), &[]),
    setup(
        "btrfs",
        "btrfs",
        disk(BTRFS, ""),
        &["inline-data", "btrfs-racing", "btrfs-buffer-fault"],
    ),
    setup(
        "btrfs-zstd",
        "btrfs",
        disk(BTRFS, "compress-force=zstd"),
        &["btrfs-compressed", "inline-data", "btrfs-racing"],
    ),
    setup("ext4-noextent", "ext4", disk(NOEXTENT, ""), &["allocating-write"]),
    setup("ext4-nojournal", "ext4", disk(NOJOURNAL, ""), &[]),
    setup("xfs-reflink", "xfs", disk(XFS, ""), &["xfs-unaligned-cow"]).cloned(),
    setup(
        "btrfs-nocow",
        "btrfs",
        prepared(BTRFS, "", &["chattr", "+C"]),
        &["inline-data", "btrfs-racing"],
    ),
    // Background garbage collection moves data by way of dirty pages, in files at rest.
    setup("f2fs", "f2fs", disk(F2FS, "background_gc=off"), &["f2fs-misaligned", "inline-data"]),
    setup(
        "f2fs-checkpoint",
        "f2fs",
        disk(F2FS, "checkpoint=disable,background_gc=off"),
        &["f2fs-checkpoint-disabled", "inline-data"],
    ),
    setup(
        "f2fs-compress",
        "f2fs",
        prepared(F2FS_COMPRESS, "background_gc=off", &["chattr", "+c"]),
        &["f2fs-compressed", "inline-data"],
    )
    .like("f2fs-checkpoint"),
    setup("vfat", "vfat", disk(VFAT, ""), &["allocating-write"]),
    setup("overlay-ext4", "overlay", overlay(EXT4, "ext4"), &[]),
    setup("squashfs", "squashfs", Kind::Image { mkfs: SQUASHFS }, &[]),
    setup("erofs-plain", "erofs", Kind::Image { mkfs: EROFS }, &[]),
    setup("9p-none", "9p", Kind::Shared, &[]),
    fuse("fuse-bindfs", &["bindfs"]),
    fuse("fuse-plain", &["xtask", "guest", "fuse-server"]),
    fuse("fuse-directio", &["xtask", "guest", "fuse-server", "--direct-io"]),
    device("bdev-4kn", SECTOR_4096),
    device("bdev-512e", SECTOR_512E),
    device("loop-buffered", Store::Loop { direct: false, bytes: QUARTER }),
    device("loop-dio", Store::Loop { direct: true, bytes: QUARTER }),
    device("loop-odd", Store::Loop { direct: false, bytes: (1 << 20) + 512 }),
    device("dm-linear", Store::Linear(HALF)),
    device("dm-linear-tail", Store::Linear(204_801)),
    setup("tmpfs", "tmpfs", Kind::Memory, &[]),
    device("bdev-512", SECTOR_512),
    device("scsi-medium", Store::Scsi(512)),
    device("scsi-sector_size=512", Store::Scsi(512)),
    device("scsi-sector_size=4096", Store::Scsi(4096)),
    device("dm-error-bdev", Store::Broken),
    broken("err-ext4", "ext4", EXT4, &[]),
    broken("err-ext4-noextent", "ext4", NOEXTENT, &[]),
    broken("err-xfs", "xfs", XFS, &[]),
    broken("err-btrfs", "btrfs", BTRFS, &[]),
    broken("err-f2fs", "f2fs", F2FS, &[]),
    broken("err-vfat", "vfat", VFAT, &[]),
    // Not in the tables that the rest was first measured for.
    setup("exfat", "exfat", disk(&["mkfs.exfat"], ""), &["allocating-write"]).rare(),
    setup("ntfs3", "ntfs3", disk(NTFS, ""), &["inline-data"]).rare(),
    setup("jfs", "jfs", disk(&["mkfs.jfs", "-q"], ""), &["allocating-write"]).rare(),
    setup("nilfs2", "nilfs2", disk(&["mkfs.nilfs2", "-q", "-f"], ""), &["nilfs2-write"]).rare(),
    setup("ext2", "ext2", disk(&["mkfs.ext2", "-q", "-F"], ""), &["allocating-write"])
        .like("ext4-noextent")
        .rare(),
    setup("ext4-1k", "ext4", disk(&["mkfs.ext4", "-q", "-F", "-b", "1024"], ""), &[])
        .like("ext4-512")
        .rare(),
    setup("ext4-bigalloc", "ext4", disk(BIGALLOC, ""), &[]).like("ext4-512").rare(),
    setup("xfs-4kn", "xfs", on(SECTOR_4096, XFS), &[]).rare(),
    setup("xfs-1k", "xfs", disk(&["mkfs.xfs", "-q", "-f", "-b", "size=1024"], ""), &[])
        .like("xfs-512")
        .rare(),
    // Blocks larger than a page (6.12): folios are never smaller.
    setup("xfs-16k", "xfs", disk(&["mkfs.xfs", "-q", "-f", "-b", "size=16384"], ""), &[]).rare(),
    setup("ext3", "ext3", disk(&["mkfs.ext3", "-q", "-F"], ""), &["allocating-write"])
        .like("ext4-noextent")
        .rare(),
    setup("vfat-16", "vfat", disk(&["mkfs.vfat", "-F", "16"], ""), &["allocating-write"])
        .like("vfat")
        .rare(),
    setup(
        "btrfs-dup",
        "btrfs",
        disk(&["mkfs.btrfs", "-q", "-f", "-d", "dup"], ""),
        &["inline-data", "btrfs-racing", "btrfs-buffer-fault"],
    )
    .like("btrfs")
    .rare(),
    setup(
        "udf",
        "udf",
        disk(&["mkfs.udf", "--media-type=hd"], ""),
        &["allocating-write", "inline-data"],
    )
    .rare(),
    setup("gfs2", "gfs2", disk(GFS2, ""), &["allocating-write", "inline-data"]).rare(),
    setup("ocfs2", "ocfs2", disk(OCFS2, ""), &["inline-data"]).rare(),
    setup("minix", "minix", disk(&["mkfs.minix", "-3"], ""), &[]).rare(),
    setup("reiserfs", "reiserfs", disk(&["mkfs.reiserfs", "-q", "-ff"], ""), &["allocating-write"])
        .rare(),
    setup("ramfs", "ramfs", Kind::Memory, &[]).rare(),
    setup("iso9660", "iso9660", Kind::Image { mkfs: ISO }, &[]).rare(),
    setup("erofs-lz4", "erofs", Kind::Image { mkfs: EROFS_LZ4 }, &[]).rare(),
    setup("overlay-xfs", "overlay", overlay(XFS, "xfs"), &[]).like("overlay-ext4").rare(),
    setup("overlay-btrfs", "overlay", overlay(BTRFS, "btrfs"), &[]).rare(),
    // tmpfs is made by its mount.
    setup("overlay-tmpfs", "overlay", overlay(&["true"], "tmpfs"), &[]).rare(),
    setup("overlay-journal", "overlay", overlay(EXT4_JOURNAL, "ext4"), &["data-journal"]).rare(),
    setup("ext4-crypt", "ext4", on(Store::Crypt(HALF), EXT4), &[]).rare(),
    device("dm-crypt", Store::Crypt(HALF)).rare(),
    device("nvme", Store::Part(Disk::Nvme)).rare(),
    device("zram", Store::Zram("64M")).rare(),
    fuse("fuse-passthrough", &["xtask", "guest", "fuse-server", "--passthrough"])
        .because(&["below-buffered"])
        .rare(),
    fuse(
        "fuse-short-directio",
        &["xtask", "guest", "fuse-server", "--direct-io", "--short", "1000"],
    )
    .rare(),
    setup("ext4-verity", "ext4", verity(VERITY), &["verity"]).rare(),
    setup("f2fs-verity", "f2fs", verity(F2FS_VERITY), &["verity"]).rare(),
    setup("ext4-dax", "ext4", dax(EXT4), &[]).rare(),
    setup("xfs-dax", "xfs", dax(&["mkfs.xfs", "-q", "-f", "-m", "reflink=0"]), &[]).rare(),
    setup("f2fs-zoned", "f2fs", on(Store::Zoned, F2FS_ZONED), &["f2fs-zoned", "inline-data"])
        .rare(),
    setup("nfs", "nfs4", Kind::Nfs, &[]).rare(),
    fuse("fuse-writeback", &["xtask", "guest", "fuse-server", "--writeback"]).rare(),
    fuse("fuse-short", &["xtask", "guest", "fuse-server", "--short", "1000"]).rare(),
    setup(
        "9p-loose",
        "9p",
        Kind::SharedWith { options: "msize=512000,access=any,cache=loose" },
        &[],
    )
    .rare(),
    setup("overlay-lower", "overlay", Kind::Lower(&LOWER_EXT4), &[]).rare(),
    setup("overlay-squashfs", "overlay", Kind::Lower(&LOWER_SQUASHFS), &[]).rare(),
    setup("overlay-fuse", "overlay", Kind::Lower(&LOWER_FUSE), &[]).rare(),
    setup("xfs-realtime", "xfs", Kind::Realtime, &[]).rare(),
    // Direct as far as ext4 and its device go; what the loop driver caches is another file's.
    setup("ext4-loop-buffered", "ext4", on(Store::Loop { direct: false, bytes: WIDE }, EXT4), &[])
        .like("ext4-512")
        .rare(),
];
