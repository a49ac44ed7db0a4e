//! `--expect-direct`: files that are used without O_DIRECT.
//!
//! The probes do not know paths. They count every use of a file until user space has heard of it,
//! and rules it out if no pattern fits its path.

use aya_ebpf::{btf_maps::LruHashMap, helpers::bpf_get_current_pid_tgid};
use dio_trace_common::abi::{
    BufferedUse, FileId, OP_WRITE, UNASKED, UNASKED_CALLS, UNASKED_DONTCACHE, UNASKED_WRITE, rwf,
};

use crate::{
    config::{O_DIRECT, OWN_TGID},
    file_names::{self, Named},
    filter::{S_IFBLK, S_IFMT, S_IFREG, process_wanted},
    kernel_memory::{
        ADDRESS_SPACE_HOST, FILE_F_FLAGS, FILE_F_INODE, FILE_F_MAPPING, FILE_F_POS,
        INODE_I_GENERATION, INODE_I_INO, INODE_I_MODE, INODE_I_RDEV, INODE_I_SB, INODE_I_SIZE,
        SUPER_BLOCK_S_DEV, read, read_fast,
    },
    mixed_access::add,
    task,
};

/// Files whose paths no pattern fits. A full map drops the one that was used least lately: user
/// space then hears of it once more.
#[aya_ebpf::macros::btf_map]
static RULED_OUT: LruHashMap<FileId, u32, 65536> = LruHashMap::new();

/// 1 if a call of the current thread on this file is to be counted: the file is open without
/// O_DIRECT, and is not ruled out.
#[inline(never)]
pub fn is_counted(file: u64) -> u32 {
    let flags: u32 = read_fast(file, &FILE_F_FLAGS);
    if flags & O_DIRECT.load() != 0 {
        return 0;
    }
    let Some(id) = identify(file) else { return 0 };
    let ids = bpf_get_current_pid_tgid();
    if (ids >> 32) as u32 == OWN_TGID.load() || !process_wanted(ids) {
        return 0;
    }
    u32::from(RULED_OUT.get_ptr(id).is_none())
}

/// The use of a file by calls of this kind.
#[inline(always)]
pub const fn how(op: u8, rw_flags: u16) -> u32 {
    let write = if op == OP_WRITE { UNASKED_WRITE } else { 0 };
    let dontcache = if rw_flags & rwf::DONTCACHE != 0 { UNASKED_DONTCACHE } else { 0 };
    UNASKED | write | dontcache
}

/// Counts a call that asks for `len` bytes, of which a read gets only those inside the file (`pos` -1:
/// at the file's own position). The first one of its kind is sent.
#[inline(never)]
pub fn count(file: u64, how: u32, pos: i64, len: u64) -> u32 {
    let Some(id) = identify(file) else { return 0 };
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let flags: u32 = read(file, &FILE_F_FLAGS);
    let calls = BufferedUse { file: id, tgid, how: how | UNASKED_CALLS };
    if add(&calls, 1, flags) {
        file_names::emit(&Named::open(file), &task::identify());
    }
    let bytes = if how & UNASKED_WRITE == 0 { inside(file, pos, len) } else { len };
    add(&BufferedUse { how, ..calls }, bytes, flags);
    0
}

/// How many of these bytes are inside the file.
#[inline(always)]
fn inside(file: u64, pos: i64, len: u64) -> u64 {
    let pos: i64 = if pos == -1 { read(file, &FILE_F_POS) } else { pos };
    let mapping: u64 = read(file, &FILE_F_MAPPING);
    let size: i64 = read(read(mapping, &ADDRESS_SPACE_HOST), &INODE_I_SIZE);
    let left = if size > pos { (size - pos) as u64 } else { 0 };
    if len < left { len } else { left }
}

/// A file as its requests have it; `None` if it is neither a regular file nor a block device.
#[inline(always)]
fn identify(file: u64) -> Option<FileId> {
    let inode: u64 = read_fast(file, &FILE_F_INODE);
    let kind = read_fast::<u16>(inode, &INODE_I_MODE) & S_IFMT;
    let dev = match kind {
        S_IFBLK => read_fast(inode, &INODE_I_RDEV),
        S_IFREG => read_fast(read_fast(inode, &INODE_I_SB), &SUPER_BLOCK_S_DEV),
        _ => return None,
    };
    let (ino, generation) = (read_fast(inode, &INODE_I_INO), read_fast(inode, &INODE_I_GENERATION));
    Some(FileId { inode, ino, dev, generation })
}
