//! Sums of pages by file, process and flow, and what is known of the files and processes.

use aya_ebpf::{
    btf_maps::{HashMap, LruHashMap},
    helpers::bpf_get_current_pid_tgid,
};
use dio_trace_common::{
    abi::{CacheUser, FILE_WITHOUT_MOUNT, FileId, PageFlow, PageSum, PageUse, Stat},
    offsets::ABSENT,
};

use super::recent;
use crate::{
    config::{FILTER_THREADS, OWN_TGID},
    file_names::{self, Named},
    filter::process_wanted,
    kernel_memory::{
        ADDRESS_SPACE_NRPAGES, CGROUP_KN, CSS_SET_DFL_CGRP, KERNFS_NODE_ID, TASK_CGROUPS,
        TASK_COMM, TASK_FLAGS, TASK_GROUP_LEADER, read,
    },
    maps::{count_by, insert_new},
    record::Field,
    task,
};

/// Pages by use. The loader gives it, as the following maps, one entry without `dio-trace cache`.
#[aya_ebpf::macros::btf_map]
static PAGE_USES: HashMap<PageUse, PageSum, 65536> = HashMap::new();

/// Pages by process and flow of the files that there was no room for.
#[aya_ebpf::macros::btf_map]
static PAGE_USES_REST: HashMap<PageUse, PageSum, 8192> = HashMap::new();

/// Pages that each file has in the page cache.
#[aya_ebpf::macros::btf_map]
static CACHE_FILES: HashMap<FileId, u64, 65536> = HashMap::new();

/// Processes, by tgid.
#[aya_ebpf::macros::btf_map]
static CACHE_USERS: LruHashMap<u32, CacheUser, 16384> = LruHashMap::new();

/// The number of pages that are counted, and of those of the whole folio that they belong to. In one
/// register: a function has five at most.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Pages(u64);

impl Pages {
    /// Some pages of a folio.
    #[inline(always)]
    pub const fn part(counted: u32, folio: u32) -> Self {
        Self((folio as u64) << 32 | counted as u64)
    }

    /// A whole folio.
    #[inline(always)]
    pub const fn whole(folio: u32) -> Self {
        Self::part(folio, folio)
    }

    #[inline(always)]
    const fn counted(self) -> u64 {
        self.0 & u32::MAX as u64
    }

    #[inline(always)]
    const fn folio(self) -> u64 {
        self.0 >> 32
    }
}

/// Counts pages of a file.
#[inline(never)]
pub fn count(mapping: u64, file: FileId, tgid: u32, flow: PageFlow, pages: Pages) -> u32 {
    let key = PageUse { file, tgid, flow: u32::from(flow as u8) };
    if !add(&PAGE_USES, &key, pages.counted()) && is_wanted(&key, flow) {
        first(mapping, &key, flow, pages);
    }
    0
}

/// Adds to a sum; false if it does not exist.
#[inline(always)]
fn add<const N: usize>(map: &HashMap<PageUse, PageSum, N>, key: &PageUse, pages: u64) -> bool {
    let Some(sum) = map.get_ptr_mut(key) else { return false };
    // SAFETY: a value of the map; CPUs add to it atomically.
    unsafe { Field::new(&raw mut (*sum).pages) }.add_atomic(pages);
    true
}

/// True if it is to be counted: what a traced process does, other than the tracer, and everything that
/// happens to a file that such a process has used.
#[inline(always)]
fn is_wanted(key: &PageUse, flow: PageFlow) -> bool {
    if key.tgid == OWN_TGID.load() && (flow.is_in() || matches!(flow, PageFlow::Refault)) {
        return false;
    }
    FILTER_THREADS.load() == 0
        || process_wanted(bpf_get_current_pid_tgid())
        || CACHE_FILES.get_ptr(key.file).is_some()
}

/// The first pages of a use.
#[inline(always)]
fn first(mapping: u64, key: &PageUse, flow: PageFlow, pages: Pages) {
    know_user(key.tgid);
    know_file(mapping, key, flow, pages.folio());
    let pages = pages.counted();
    let sum = PageSum { pages, ..opened(mapping, flow) };
    if insert_new(&PAGE_USES, key, &sum) || add(&PAGE_USES, key, pages) {
        return;
    }
    count_by(Stat::PagesWithoutFile, pages);
    let rest = PageUse { file: FileId::NONE, ..*key };
    let kept = add(&PAGE_USES_REST, &rest, pages)
        || insert_new(&PAGE_USES_REST, &rest, &PageSum { pages, ..PageSum::default() })
        || add(&PAGE_USES_REST, &rest, pages);
    if !kept {
        count_by(Stat::LostPages, pages);
    }
}

/// The flags of the open file by which pages come in, if the thread has told it.
#[inline(always)]
fn opened(mapping: u64, flow: PageFlow) -> PageSum {
    let none = PageSum { pages: 0, open_flags: 0, has_flags: 0 };
    if !flow.is_in() {
        return none;
    }
    let Some(recent) = recent::of_current() else { return none };
    match recent.faulted(mapping).or(recent.called(mapping)) {
        Some(act) => PageSum { open_flags: act.flags, has_flags: 1, ..none },
        None => none,
    }
}

/// Names a file, and keeps how many pages it had before this folio came in or left.
#[inline(always)]
fn know_file(mapping: u64, key: &PageUse, flow: PageFlow, folio: u64) {
    if CACHE_FILES.get_ptr(key.file).is_some() {
        return;
    }
    let before = present_before(mapping, flow, folio);
    if insert_new(&CACHE_FILES, &key.file, &before) {
        file_names::emit(&Named::of_mapping(mapping), &task::identify(), FILE_WITHOUT_MOUNT);
    }
}

/// Pages of a file before a folio came in or left. What comes in is counted by the kernel before it is
/// reported, what leaves afterwards (mm/filemap.c:__filemap_add_folio, page_cache_delete).
#[inline(always)]
fn present_before(mapping: u64, flow: PageFlow, folio: u64) -> u64 {
    let present: u64 = read(mapping, &ADDRESS_SPACE_NRPAGES);
    if flow.is_in() { present.saturating_sub(folio) } else { present }
}

/// Keeps how many pages a file has after a folio has come in.
#[inline(always)]
pub fn came_in(mapping: u64, file: &FileId) {
    if let Some(resident) = CACHE_FILES.get_ptr_mut(file) {
        // SAFETY: a value of the map. Two CPUs may write at once: the later one's number stays.
        unsafe { Field::new(resident) }.set(read(mapping, &ADDRESS_SPACE_NRPAGES));
    }
}

/// Keeps how many pages a file has when a folio has left. The kernel takes folios that leave together
/// off its number at once, after all of them are reported.
#[inline(always)]
pub fn left(mapping: u64, file: &FileId, pages: Pages) {
    if let Some(resident) = CACHE_FILES.get_ptr_mut(file) {
        let present: u64 = read(mapping, &ADDRESS_SPACE_NRPAGES);
        // SAFETY: as in `came_in`.
        let now = unsafe { Field::new(resident) };
        let most = if now.get() < present { now.get() } else { present };
        now.set(most.saturating_sub(pages.folio()));
    }
}

/// Keeps the name and the cgroup of the current process, unless the use is another one's. Each new use
/// may come with another name: a program is read before its process has the program's name.
#[inline(always)]
fn know_user(tgid: u32) {
    const PF_KTHREAD: u64 = 0x0020_0000; // include/linux/sched.h, 5.10 to 7.3
    if (bpf_get_current_pid_tgid() >> 32) as u32 != tgid {
        return;
    }
    let task = task::current();
    let comm = read(read(task, &TASK_GROUP_LEADER), &TASK_COMM);
    let kernel = u64::from(read::<u32>(task, &TASK_FLAGS)) & PF_KTHREAD;
    let user = CacheUser { comm, cgroup: cgroup(task), kernel };
    let _ = CACHE_USERS.insert(tgid, &user, 0);
}

/// Id of a task's cgroup (v2).
#[inline(always)]
fn cgroup(task: u64) -> u64 {
    if TASK_CGROUPS.load() == ABSENT || CSS_SET_DFL_CGRP.load() == ABSENT {
        return 0;
    }
    let set: u64 = read(task, &TASK_CGROUPS);
    let node: u64 = read(read(set, &CSS_SET_DFL_CGRP), &CGROUP_KN);
    read(node, &KERNFS_NODE_ID)
}
