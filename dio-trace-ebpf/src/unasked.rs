//! `--expect-direct`: files that are used without asking for direct I/O.
//!
//! The probes do not know paths. They name each file at its first use, and count until user space
//! rules it out because no pattern fits its path.

use aya_ebpf::{
    btf_maps::{LruHashMap, PerCpuHashMap},
    helpers::bpf_get_current_pid_tgid,
};
use dio_trace_common::abi::{
    BufferedUse, FILE_UNASKED, FileId, OP_WRITE, Stat, UNASKED, UNASKED_DONTCACHE, UNASKED_MMAP,
    UNASKED_WRITE, UnaskedSum, rwf,
};

use crate::{
    config::{OWN_TGID, WANTED_DEV, WANTED_OPS},
    file_names::{self, Named},
    filter::{S_IFBLK, S_IFMT, S_IFREG, process_wanted},
    kernel_memory::{
        ADDRESS_SPACE_HOST, FILE_F_FLAGS, FILE_F_INODE, FILE_F_MAPPING, FILE_F_POS, INODE_I_FLAGS,
        INODE_I_GENERATION, INODE_I_INO, INODE_I_MODE, INODE_I_RDEV, INODE_I_SB, INODE_I_SIZE,
        SUPER_BLOCK_S_DEV, read, read_fast,
    },
    maps::{BPF_NOEXIST, count as count_stat, insert_per_cpu},
    mixed_access::send,
    record::Field,
    task,
};

/// Files whose paths no pattern fits. A full map drops the one that was used least lately: user
/// space then hears of it once more. The loader gives it one entry without `--expect-direct`.
#[aya_ebpf::macros::btf_map]
static RULED_OUT: LruHashMap<FileId, u32, 65536> = LruHashMap::new();

/// Sums by process, file and kind of use. The loader gives it one entry without `--expect-direct`.
#[aya_ebpf::macros::btf_map]
static UNASKED_USES: PerCpuHashMap<BufferedUse, UnaskedSum, 16384> = PerCpuHashMap::new();

/// 1 if a use by the current thread is to be counted: the open file does not have any of these flags
/// (O_DIRECT, or 0), and it is not ruled out.
#[inline(never)]
pub fn is_counted(file: u64, unless: u32) -> u32 {
    if read_fast::<u32>(file, &FILE_F_FLAGS) & unless != 0 {
        return 0;
    }
    let Some(id) = identify(file) else { return 0 };
    let ids = bpf_get_current_pid_tgid();
    if (ids >> 32) as u32 == OWN_TGID.load() || !process_wanted(ids) {
        return 0;
    }
    if WANTED_DEV.load() != 0 && WANTED_DEV.load() != id.dev {
        return 0;
    }
    u32::from(RULED_OUT.get_ptr(id).is_none())
}

/// The use of a file by calls of this kind; 0 if they are not wanted.
#[inline(always)]
pub fn how(op: u8, rw_flags: u16) -> u32 {
    let write = if op == OP_WRITE { UNASKED_WRITE } else { 0 };
    let dontcache = if rw_flags & rwf::DONTCACHE != 0 { UNASKED_DONTCACHE } else { 0 };
    let wanted = WANTED_OPS.load() >> (op & 31) & 1 != 0;
    if wanted { UNASKED | write | dontcache } else { 0 }
}

/// Counts a use of `len` bytes, of which a read gets only those inside the file (`pos` -1: at the
/// file's own position). The first one of its kind is sent.
#[inline(never)]
pub fn count(file: u64, how: u32, pos: i64, len: u64) -> u32 {
    let Some(id) = identify(file) else { return 0 };
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let reads = how & (UNASKED_WRITE | UNASKED_MMAP) == 0;
    let bytes = if reads { inside(file, pos, len) } else { len };
    let key = BufferedUse { file: id, tgid, how };
    if !add(&key, bytes) {
        first(file, &key, bytes);
    }
    0
}

/// Adds to the sum of a use; false if it has none yet.
#[inline(always)]
fn add(key: &BufferedUse, bytes: u64) -> bool {
    let Some(sum) = UNASKED_USES.get_ptr_mut(key) else { return false };
    // SAFETY: this CPU's value, which only programs of this CPU write.
    unsafe {
        Field::new(&raw mut (*sum).calls).add_atomic(1);
        Field::new(&raw mut (*sum).bytes).add_atomic(bytes);
    }
    true
}

/// The first use of its kind: its file is named, then it is sent.
#[inline(always)]
fn first(file: u64, key: &BufferedUse, bytes: u64) {
    let named = Named::open(file);
    if named.is_internal() {
        return; // of a stacked file system, whose own file was counted
    }
    let sum = UnaskedSum { calls: 1, bytes };
    if !insert_per_cpu(&UNASKED_USES, key, &sum, BPF_NOEXIST) {
        // Another thread was first, or there is no room.
        if !add(key, bytes) {
            count_stat(Stat::LostUnasked);
        }
        return;
    }
    file_names::emit(&named, &task::identify(), FILE_UNASKED);
    send(key, read(file, &FILE_F_FLAGS));
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

/// A file as its requests have it; `None` if it is neither a regular file nor a block device, or is
/// never in the page cache (DAX).
#[inline(always)]
fn identify(file: u64) -> Option<FileId> {
    const S_DAX: u32 = 1 << 13; // include/linux/fs.h
    let inode: u64 = read_fast(file, &FILE_F_INODE);
    if read_fast::<u32>(inode, &INODE_I_FLAGS) & S_DAX != 0 {
        return None;
    }
    let kind = read_fast::<u16>(inode, &INODE_I_MODE) & S_IFMT;
    let dev = match kind {
        S_IFBLK => read_fast(inode, &INODE_I_RDEV),
        S_IFREG => read_fast(read_fast(inode, &INODE_I_SB), &SUPER_BLOCK_S_DEV),
        _ => return None,
    };
    let (ino, generation) = (read_fast(inode, &INODE_I_INO), read_fast(inode, &INODE_I_GENERATION));
    Some(FileId { inode, ino, dev, generation })
}
