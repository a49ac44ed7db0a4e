//! Names a file: its dentries up to the root of its mount.

use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use dio_trace_common::abi::{
    EVENT_FILE, FILE_TRUNCATED, FILE_UNHASHED, FileEvent, NAME_BYTES, PATH_BYTES, PATH_DEPTH, Stat,
};

use crate::{
    end::wakeup,
    kernel::{
        ADDRESS_SPACE_HOST, DENTRY_D_HASH, DENTRY_D_NAME, DENTRY_D_PARENT, FILE_F_INODE,
        FILE_F_MAPPING, FILE_F_PATH, FILE_SYSTEM_TYPE_NAME, HLIST_BL_NODE_PPREV, INODE_I_INO,
        INODE_I_MODE, INODE_I_RDEV, INODE_I_SB, MOUNT_MNT, MOUNT_MNT_ID, PATH_DENTRY, PATH_MNT,
        QSTR_NAME, SUPER_BLOCK_S_DEV, SUPER_BLOCK_S_TYPE, VFSMOUNT_MNT_ROOT, read,
    },
    maps::{EVENTS, count},
};

/// The inode of an open file, or of one that was refused to be opened.
#[inline(always)]
pub fn inode(file: u64) -> u64 {
    read(file, &FILE_F_INODE)
}

/// Sends the names of `file`; at most once per counter, so its cost does not matter.
#[inline(never)]
pub fn emit(file: u64, tgid: u32) {
    let Some(mut entry) = EVENTS.reserve_untyped::<FileEvent>(0) else {
        count(Stat::LostFile);
        return;
    };
    let event = entry.as_mut_ptr();
    let inode = inode(file);
    let sb: u64 = read(inode, &INODE_I_SB);
    let mode: u16 = read(inode, &INODE_I_MODE);
    let block_device = mode & 0o170_000 == 0o060_000;
    // A block device's node lies in devtmpfs, its data in the pseudo file system "bdev".
    let data_sb: u64 = if block_device {
        let mapping: u64 = read(file, &FILE_F_MAPPING);
        let host: u64 = read(mapping, &ADDRESS_SPACE_HOST);
        read(host, &INODE_I_SB)
    } else {
        sb
    };
    let fs_type: u64 = read(data_sb, &SUPER_BLOCK_S_TYPE);
    let name: u64 = read(fs_type, &FILE_SYSTEM_TYPE_NAME);
    let path = file + u64::from(FILE_F_PATH.load());
    let mnt: u64 = read(path, &PATH_MNT);
    // SAFETY: reserved above with this very size; every member is written before it is sent,
    // but for the tail of `names` beyond `names_len`, which nobody reads.
    unsafe {
        (*event).kind = EVENT_FILE;
        (*event).inode = inode;
        (*event).ino = read(inode, &INODE_I_INO);
        (*event).dev =
            if block_device { read(inode, &INODE_I_RDEV) } else { read(sb, &SUPER_BLOCK_S_DEV) };
        (*event).tgid = tgid;
        let mount = mnt - u64::from(MOUNT_MNT.load());
        (*event).mnt_id = read(mount, &MOUNT_MNT_ID);
        (*event).fs_name = [0; 16];
        bpf_probe_read_kernel_str((&raw mut (*event).fs_name).cast(), 16, name as *const _);
        walk(event, read(path, &PATH_DENTRY), read(mnt, &VFSMOUNT_MNT_ROOT));
    }
    entry.submit(wakeup());
}

/// Writes the names from `dentry` up to, not including, the mount's `root`.
///
/// What one step hands to the next lies in the event, not in registers: so every step looks alike
/// to the verifier, which would otherwise follow each way out of the loop by itself.
#[inline(always)]
unsafe fn walk(event: *mut FileEvent, mut dentry: u64, root: u64) {
    let pprev: u64 = read(dentry + u64::from(DENTRY_D_HASH.load()), &HLIST_BL_NODE_PPREV);
    // SAFETY: per the caller, reserved.
    let (flags, len) = unsafe { (&raw mut (*event).flags, &raw mut (*event).names_len) };
    // SAFETY: as above; also below.
    unsafe {
        // d_unhashed(): include/linux/dcache.h
        flags.write_volatile(if pprev == 0 { FILE_UNHASHED } else { 0 });
        len.write_volatile(0);
    }
    for step in 0..PATH_DEPTH {
        if dentry == root {
            return;
        }
        let parent: u64 = read(dentry, &DENTRY_D_PARENT);
        if parent == dentry || parent == 0 {
            return;
        }
        let name: u64 = read(dentry + u64::from(DENTRY_D_NAME.load()), &QSTR_NAME);
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
