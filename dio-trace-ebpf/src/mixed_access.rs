//! Mixed access: the buffered users of a file that somebody uses directly.
//!
//! Seen where pages come into the cache or become dirty, whatever brought them: a buffered call, a
//! mapping, this process or another. Bystanders on other files pay one look-up for a page that
//! changes its state, and nothing for one that is only read.
//!
//! The kernel's own threads are not users of a file, nor is a thread that writes it back: with
//! data=journal ext4 makes pages dirty again in the midst of write-back
//! (fs/ext4/inode.c:mpage_prepare_extent_to_map), and jbd2 does when it commits.

use aya_ebpf::helpers::{bpf_get_current_pid_tgid, generated::bpf_ktime_get_ns};
use dio_trace_common::{
    abi::{BufferedUse, BufferedUseEvent, EVENT_BUFFERED_USE, MIXED_CACHED, MIXED_FILLED, Stat},
    offsets::ABSENT,
};

use crate::{
    config::OWN_TGID,
    in_flight::RequestRef,
    kernel_memory::{
        ADDRESS_SPACE_HOST, Args, INODE_I_GENERATION, INODE_I_INO, INODE_I_NLINK, INODE_I_RWSEM,
        RW_SEMAPHORE_OWNER, TASK_COMM, TASK_FLAGS, read,
    },
    maps::{
        BUFFERED_USES, DIRECT_FILES, DirectFile, EVENTS, SEVERAL, WRITING_BACK, count,
        insert_per_cpu,
    },
    record::Field,
    ring::wakeup,
    task,
};

/// Remembers the file of a direct request by the `address_space` its data lives in, unless the
/// request is one of the tracer's self-test.
#[inline(always)]
pub fn remember(request: RequestRef, mapping: u64) {
    let tgid = request.tgid().get();
    if mapping == 0 || tgid == OWN_TGID.load() {
        return;
    }
    let host: u64 = read(mapping, &ADDRESS_SPACE_HOST);
    let mut file = DirectFile {
        file: request.file().get(),
        host_ino: read(host, &INODE_I_INO),
        host_generation: read(host, &INODE_I_GENERATION),
        user: tgid,
    };
    if let Some(known) = DIRECT_FILES.get_ptr(mapping) {
        // SAFETY: a value of DIRECT_FILES.
        let known = unsafe { *known };
        if known.host_ino == file.host_ino
            && known.host_generation == file.host_generation
            && known.user != tgid
        {
            file.user = SEVERAL;
        }
    }
    // A full map drops the file that had no mixed access for longest; nothing else can fail.
    let _ = DIRECT_FILES.insert(mapping, &file, 0);
}

/// True if [`remember`] would learn something from a request of this process.
#[inline(always)]
pub fn is_new_user(mapping: u64, tgid: u32) -> bool {
    let Some(known) = DIRECT_FILES.get_ptr(mapping) else { return true };
    // SAFETY: a value of DIRECT_FILES.
    let user = unsafe { (*known).user };
    user != tgid && user != SEVERAL
}

/// `void truncate_inode_pages_final(struct address_space *)`: an inode leaves memory
/// (mm/truncate.c; every ->evict_inode calls it). One without links is gone for good, and its
/// number, memory and `address_space` may become another file's. One that is only evicted may come
/// back; inode number and generation tell whether it did.
#[inline(always)]
pub fn evicted<A: Args>(ctx: &A) {
    let mapping = ctx.arg(0);
    if DIRECT_FILES.get_ptr(mapping).is_none() {
        return;
    }
    let host: u64 = read(mapping, &ADDRESS_SPACE_HOST);
    if read::<u32>(host, &INODE_I_NLINK) == 0 {
        let _ = DIRECT_FILES.remove(mapping);
    }
}

/// `int do_writepages(struct address_space *, …)` is entered.
#[inline(always)]
pub fn writeback_entered(mapping: u64) {
    if DIRECT_FILES.get_ptr(mapping).is_some() {
        let _ = WRITING_BACK.insert(tid(), &mapping, 0);
    }
}

/// Its return.
#[inline(always)]
pub fn writeback_returned() {
    let tid = tid();
    if WRITING_BACK.get_ptr(tid).is_some() {
        let _ = WRITING_BACK.remove(tid);
    }
}

#[inline(always)]
fn tid() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// True if the current thread uses files for somebody: a user's thread outside of write-back, or a
/// server in the kernel.
#[inline(always)]
fn is_user(task: u64, mapping: u64) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000; // include/linux/sched.h, 5.10 to 7.3
    if read::<u32>(task, &TASK_FLAGS) & PF_KTHREAD != 0 {
        let name: u32 = read(task, &TASK_COMM);
        return name == u32::from_ne_bytes(*b"nfsd");
    }
    let Some(writing) = WRITING_BACK.get_ptr(tid()) else { return true };
    // SAFETY: a value of WRITING_BACK.
    unsafe { *writing != mapping }
}

/// True if the current thread holds the inode's lock for writing: buffered writes do, reads and
/// page faults do not (Documentation/filesystems/locking.rst). Always false where the kernel's
/// semaphores have no owner (PREEMPT_RT), and for block devices.
#[inline(always)]
pub fn is_writing(task: u64, host: u64) -> bool {
    // The low bits of the owner are flags; the lowest: held for reading
    // (kernel/locking/rwsem.c).
    const FLAGS: u64 = 7;
    const READER: u64 = 1;
    if RW_SEMAPHORE_OWNER.load() == ABSENT {
        return false;
    }
    let lock = host + u64::from(INODE_I_RWSEM.load());
    let owner: u64 = read(lock, &RW_SEMAPHORE_OWNER);
    owner & READER == 0 && owner & !FLAGS == task
}

/// Pages of `mapping` changed their state, and not for an open direct request of this thread.
#[inline(always)]
pub fn pages(mapping: u64, how: u32, pages: u64) {
    let Some(file) = DIRECT_FILES.get_ptr(mapping) else { return };
    // SAFETY: a value of DIRECT_FILES.
    let file = unsafe { *file };
    let host: u64 = read(mapping, &ADDRESS_SPACE_HOST);
    let ino: u64 = read(host, &INODE_I_INO);
    let generation: u32 = read(host, &INODE_I_GENERATION);
    if ino != file.host_ino || generation != file.host_generation {
        return; // another file's by now: the address was used again
    }
    let task = task::current();
    if !is_user(task, mapping) {
        return;
    }
    let filled = how == MIXED_CACHED && is_writing(task, host);
    let how = if filled { MIXED_FILLED } else { how };
    let tgid = (bpf_get_current_pid_tgid() >> 32) as u32;
    let key = BufferedUse { file: file.file, tgid, how };
    if let Some(sum) = BUFFERED_USES.get_ptr_mut(key) {
        // SAFETY: this CPU's value.
        unsafe { Field::new(sum) }.add_atomic(pages);
        return;
    }
    first(&key, pages, file.user);
}

#[inline(never)]
fn first(key: &BufferedUse, pages: u64, direct_user: u32) -> i32 {
    if !insert_per_cpu(&BUFFERED_USES, key, &pages, 0) {
        count(Stat::LostBufferedUse);
        return 0;
    }
    if key.how != MIXED_FILLED {
        send(key, direct_user);
    }
    0
}

/// Sends a use. If there is no room, the sums say it.
#[inline(always)]
pub fn send(key: &BufferedUse, direct_user: u32) {
    let Some(mut entry) = EVENTS.reserve_untyped::<BufferedUseEvent>(0) else { return };
    let event = entry.as_mut_ptr();
    // SAFETY: reserved above with this very size; every member is written.
    unsafe {
        (*event).kind = EVENT_BUFFERED_USE;
        (*event).direct_user = direct_user;
        (*event).time_ns = bpf_ktime_get_ns();
        (*event).buffered_use = *key;
        (*event).task = task::identify();
    }
    entry.submit(wakeup());
}
