//! Names a file: its dentries up to the root of its mount.

use aya_ebpf::{
    btf_maps::{Array, HashMap},
    helpers::generated::{bpf_get_smp_processor_id, bpf_probe_read_kernel_str},
};
use dio_trace_common::{
    abi::{
        EVENT_FILE, FILE_TRUNCATED, FILE_UNHASHED, FileEvent, NAME_BYTES, PATH_BYTES, PATH_DEPTH,
        Stat, Task,
    },
    offsets::ABSENT,
};

use crate::{
    kernel_memory::{
        ADDRESS_SPACE_HOST, DENTRY_D_ALIAS, DENTRY_D_HASH, DENTRY_D_INODE, DENTRY_D_NAME,
        DENTRY_D_PARENT, DENTRY_D_U, FILE_F_INODE, FILE_F_MAPPING, FILE_F_PATH,
        FILE_SYSTEM_TYPE_NAME, HLIST_BL_NODE_PPREV, INODE_I_DENTRY, INODE_I_GENERATION,
        INODE_I_INO, INODE_I_MODE, INODE_I_RDEV, INODE_I_SB, MOUNT_MNT, MOUNT_MNT_ID, MOUNT_MNT_NS,
        PATH_DENTRY, PATH_MNT, QSTR_NAME, SUPER_BLOCK_S_DEV, SUPER_BLOCK_S_TYPE, VFSMOUNT_MNT_ROOT,
        by_helper, read,
    },
    maps::{count, insert_new},
    ring,
};

/// A file as it is to be named.
pub struct Named {
    /// 0: not known.
    pub mnt: u64,
    /// 0: it has no name.
    pub dentry: u64,
    pub inode: u64,
    /// `address_space` of its data, or 0: that of its inode.
    pub mapping: u64,
}

impl Named {
    /// An open file.
    #[inline(always)]
    pub fn open(file: u64) -> Self {
        let path = file + u64::from(FILE_F_PATH.load());
        Self {
            mnt: read(path, &PATH_MNT),
            dentry: read(path, &PATH_DENTRY),
            inode: read(file, &FILE_F_INODE),
            mapping: read(file, &FILE_F_MAPPING),
        }
    }

    /// What a path leads to.
    #[inline(always)]
    pub fn at(path: u64) -> Self {
        Self::of(read(path, &PATH_MNT), read(path, &PATH_DENTRY))
    }

    /// What a path leads to, by its mount and its dentry.
    #[inline(always)]
    pub fn of(mnt: u64, dentry: u64) -> Self {
        Self { mnt, dentry, inode: read(dentry, &DENTRY_D_INODE), mapping: 0 }
    }

    /// The file of an `address_space`, by one of its names (`inode.i_dentry`).
    #[inline(always)]
    pub fn of_mapping(mapping: u64) -> Self {
        let inode: u64 = read(mapping, &ADDRESS_SPACE_HOST);
        let alias: u64 = read(inode, &INODE_I_DENTRY);
        let member =
            if DENTRY_D_U.load() == ABSENT { DENTRY_D_ALIAS.load() } else { DENTRY_D_U.load() };
        let dentry = if alias == 0 { 0 } else { alias - u64::from(member) };
        Self { mnt: 0, dentry, inode, mapping }
    }

    /// True if it is reached through a mount of the kernel's own, which no process sees
    /// (fs/namespace.c:clone_private_mount; its namespace is an error pointer, or none).
    #[inline(always)]
    pub fn is_internal(&self) -> bool {
        const LOWEST_ERROR: u64 = -4095_i64 as u64; // include/linux/err.h
        let namespace: u64 = read(self.mnt - u64::from(MOUNT_MNT.load()), &MOUNT_MNT_NS);
        namespace == 0 || namespace >= LOWEST_ERROR
    }
}

/// The names that programs write at the same time: more than CPUs that name a file at once, of
/// which each has one in its thread and perhaps one in an interrupt.
const DRAFTS_MAX: u32 = 64;
/// Places that a program tries.
const TRIES: u32 = 4;

/// Where names are written before they are sent. They are not written into the ring buffer itself:
/// before 6.2 the verifier takes no two states with a reservation for equal
/// (kernel/bpf/verifier.c:refsafe), and walks all names once for each way that leads here.
#[aya_ebpf::macros::btf_map]
static DRAFTS: Array<FileEvent, { DRAFTS_MAX as usize }> = Array::new();

/// The places of [`DRAFTS`] that are in use. The program that enters one here writes it alone, until
/// it removes the entry.
#[aya_ebpf::macros::btf_map]
static DRAFTS_USED: HashMap<u32, u32, { DRAFTS_MAX as usize }> = HashMap::new();

/// Takes a place of [`DRAFTS`].
#[inline(always)]
fn claim() -> Option<u32> {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    for n in 0..TRIES {
        let place = cpu.wrapping_add(n) % DRAFTS_MAX;
        if insert_new(&DRAFTS_USED, &place, &1) {
            return Some(place);
        }
    }
    None
}

/// Sends the names of a file, and the thread in which it was seen. At most once per counter, so
/// that its cost does not matter. `flags` are 0 or those that say why it is named.
#[inline(never)]
pub fn emit(file: &Named, task: &Task, flags: u32) -> i32 {
    let Some(place) = claim() else {
        count(Stat::LostFile);
        return 0;
    };
    if let Some(event) = DRAFTS.get_ptr_mut(place) {
        // SAFETY: the place was claimed above: no other program writes it.
        let sent = unsafe {
            write(event, file, task);
            (*event).flags |= flags;
            ring::send(event)
        };
        if !sent {
            count(Stat::LostFile);
        }
    }
    let _ = DRAFTS_USED.remove(place);
    0
}

/// # Safety
/// `event` lies in a map's value that nobody else writes.
#[inline(always)]
unsafe fn write(event: *mut FileEvent, file: &Named, task: &Task) {
    let (mnt, inode) = (file.mnt, file.inode);
    let sb: u64 = read(inode, &INODE_I_SB);
    let mode: u16 = read(inode, &INODE_I_MODE);
    let block_device = mode & 0o170_000 == 0o060_000;
    // A block device's node lies in devtmpfs, its data in the pseudo file system "bdev".
    let data_sb: u64 = if block_device && file.mapping != 0 {
        let host: u64 = read(file.mapping, &ADDRESS_SPACE_HOST);
        read(host, &INODE_I_SB)
    } else {
        sb
    };
    let fs_type: u64 = read(data_sb, &SUPER_BLOCK_S_TYPE);
    let name: u64 = read(fs_type, &FILE_SYSTEM_TYPE_NAME);
    // SAFETY: per the caller. Every member is written, but for the tail of `names` beyond
    // `names_len`, which nobody reads.
    unsafe {
        (*event).kind = EVENT_FILE;
        let file_id = &raw mut (*event).file;
        (*file_id).inode = inode;
        (*file_id).ino = read(inode, &INODE_I_INO);
        (*file_id).dev =
            if block_device { read(inode, &INODE_I_RDEV) } else { read(sb, &SUPER_BLOCK_S_DEV) };
        (*file_id).generation = read(inode, &INODE_I_GENERATION);
        (*event).task = *task;
        let mount = mnt - u64::from(MOUNT_MNT.load());
        (*event).mnt_id = read(mount, &MOUNT_MNT_ID);
        let fs_name = (&raw mut (*event).fs_name).cast::<u64>();
        fs_name.write_volatile(0); // by words: the compiler's `memset` goes byte by byte
        fs_name.add(1).write_volatile(0);
        bpf_probe_read_kernel_str((&raw mut (*event).fs_name).cast(), 16, name as *const _);
        walk(event, file.dentry, read(mnt, &VFSMOUNT_MNT_ROOT));
    }
}

/// Writes the names from `dentry` up to, not including, the mount's `root`.
///
/// What one step hands to the next lies in the event, not in registers: so the verifier sees one
/// state in every step, and does not follow each way out of the loop by itself.
#[inline(always)]
unsafe fn walk(event: *mut FileEvent, mut dentry: u64, root: u64) {
    let pprev: u64 = read(dentry + u64::from(DENTRY_D_HASH.load()), &HLIST_BL_NODE_PPREV);
    // SAFETY: per the caller.
    let (flags, len) = unsafe { (&raw mut (*event).flags, &raw mut (*event).names_len) };
    // SAFETY: as above; also below.
    unsafe {
        // d_unhashed(): include/linux/dcache.h
        flags.write_volatile(if pprev == 0 { FILE_UNHASHED } else { 0 });
        len.write_volatile(0);
    }
    // Outside of the loop: the loads are volatile, and the verifier walks it for every step.
    let d_parent = u64::from(DENTRY_D_PARENT.load());
    let d_name = u64::from(DENTRY_D_NAME.load()) + u64::from(QSTR_NAME.load());
    for step in 0..PATH_DEPTH {
        if dentry == root {
            return;
        }
        let parent: u64 = by_helper(dentry + d_parent);
        if parent == dentry || parent == 0 {
            return;
        }
        let name: u64 = by_helper(dentry + d_name);
        // SAFETY: the mask keeps the start inside PATH_BYTES, NAME_BYTES follow it.
        let wrote = unsafe {
            let used = len.read_volatile() as usize;
            let at = (&raw mut (*event).names).cast::<u8>().add(used & (PATH_BYTES - 1));
            bpf_probe_read_kernel_str(at.cast(), NAME_BYTES as u32, name as *const _)
        };
        // SAFETY: as above.
        unsafe {
            let used = len.read_volatile();
            if wrote <= 0 || used as usize >= PATH_BYTES || step == PATH_DEPTH - 1 {
                flags.write_volatile(flags.read_volatile() | FILE_TRUNCATED);
                return;
            }
            len.write_volatile(used + wrote as u32);
        }
        dentry = parent;
    }
}
