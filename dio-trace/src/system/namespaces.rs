//! Caches the mount tables of all mount namespaces seen so far, and finds mounts by id.
//!
//! Mount ids are unique system-wide at any one time, whatever the namespace
//! (fs/namespace.c:mnt_alloc_id). So the table of any process can describe the mounts of a process
//! that has exited, if both were in the same namespace. Ids are reused once a mount is gone;
//! therefore the device of the file system must match the file's device as well.
//!
//! The mount point in a table also depends on the root directory of the process: within one
//! namespace, a process in a chroot sees `/data` where another sees `/new/data`.

use std::{
    collections::{HashMap, HashSet},
    os::unix::fs::MetadataExt as _,
    time::{Duration, Instant},
};

use crate::system::{
    mounts::{self, Mount, Mounts},
    processes,
};

/// Most mount tables that are kept, and most mounts in all of them.
const MAX_NAMESPACES: usize = 256;
const MAX_MOUNTS: usize = 1 << 16;
/// How long the table of a running process is used before it is read again.
const FRESH: Duration = Duration::from_secs(1);
/// Shortest interval between two scans of all processes for namespaces.
const LOOK_AROUND: Duration = Duration::from_secs(1);
/// The host's first process.
const FIRST: u32 = 1;
/// Most processes visited by one scan.
const MAX_PROCESSES: usize = 1 << 16;

/// The key of a mount table. Many processes share one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Namespace {
    /// Inode number of /proc/PID/ns/mnt, and (device, inode) of the process's root directory.
    Mounts { inode: u64, root: (u64, u64) },
    /// The process id, if the namespace of the process cannot be read.
    Process(u32),
}

impl Namespace {
    fn of(tgid: u32) -> Self {
        let ask = |what: &str| std::fs::metadata(format!("/proc/{tgid}/{what}"));
        match (ask("ns/mnt"), ask("root")) {
            (Ok(namespace), Ok(root)) => {
                Self::Mounts { inode: namespace.ino(), root: (root.dev(), root.ino()) }
            }
            _ => Self::Process(tgid),
        }
    }
}

/// Identifies the mount that a file is on, as seen by the process that used the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MountQuery {
    pub(crate) tgid: u32,
    pub(crate) id: i32,
    /// Kernel `dev_t` of the file system; `None` for a block device, whose number is its own and
    /// not that of the file system that holds its node.
    pub(crate) dev: Option<u32>,
}

impl MountQuery {
    fn is(&self, mount: &Mount) -> bool {
        self.dev.is_none_or(|dev| mount.is_of(dev))
    }

    fn among<'a>(&self, mounts: &'a Mounts) -> Option<&'a Mount> {
        mounts.get(&self.id).filter(|mount| self.is(mount))
    }
}

/// Reads the mount table of a process.
type Read = fn(u32) -> Mounts;

/// A mount table.
struct Table {
    mounts: Mounts,
    read_at: Instant,
    /// The mounts that it was read for, by id and device, and does not have: reading it again
    /// within [`FRESH`] would not help.
    misses: HashSet<(i32, Option<u32>)>,
}

impl Table {
    fn new(mounts: Mounts) -> Self {
        Self { mounts, read_at: Instant::now(), misses: HashSet::new() }
    }

    fn is_fresh(&self) -> bool {
        self.read_at.elapsed() < FRESH
    }
}

/// The cached mount tables.
pub(crate) struct Namespaces {
    tables: HashMap<Namespace, Table>,
    /// When all processes were last scanned.
    looked: Option<Instant>,
    read: Read,
    /// The tracer's own namespace.
    own: Namespace,
}

impl Default for Namespaces {
    fn default() -> Self {
        let own = Namespace::of(std::process::id());
        Self { tables: HashMap::new(), looked: None, read: mounts::of_process, own }
    }
}

impl Namespaces {
    /// Reads the tables of the processes in `first`, then of all others, each namespace once.
    pub(crate) fn look_around(&mut self, first: &[u32]) {
        let now = Instant::now();
        self.looked = Some(now);
        let others = processes::ids().take(MAX_PROCESSES);
        for tgid in first.iter().copied().chain(others) {
            let namespace = Namespace::of(tgid);
            let read = self.tables.get(&namespace).map(|table| table.read_at);
            let room = read.is_some() || self.tables.len() < MAX_NAMESPACES;
            let stale = read.is_none_or(|at| at < now);
            if room && stale && matches!(namespace, Namespace::Mounts { .. }) {
                self.refresh(namespace, tgid);
            }
        }
    }

    /// The mount of a file, from the table of its process (at most [`FRESH`] old). If the process
    /// has exited, from any other table.
    pub(crate) fn mount(&mut self, wanted: MountQuery) -> Option<Mount> {
        let own = Namespace::of(wanted.tgid);
        let key = (wanted.id, wanted.dev);
        let fresh = self.tables.get(&own).filter(|table| table.is_fresh());
        if let Some(mount) = fresh.and_then(|table| wanted.among(&table.mounts)) {
            return Some(mount.clone());
        }
        if !fresh.is_some_and(|table| table.misses.contains(&key)) {
            self.refresh(own, wanted.tgid);
        }
        if let Some(table) = self.tables.get_mut(&own) {
            // The table was read for this mount, so the id cannot have been reused: the device need
            // not match.
            if let Some(mount) = table.mounts.get(&wanted.id) {
                if !wanted.is(mount) {
                    table.misses.insert(key);
                }
                return Some(mount.clone());
            }
            table.misses.insert(key);
        }
        self.anywhere(&wanted).or_else(|| {
            self.looked.is_none_or(|at| at.elapsed() > LOOK_AROUND).then(|| {
                self.look_around(&[]);
                self.anywhere(&wanted)
            })?
        })
    }

    /// Where a path within a file system is mounted: as the process sees it, or else as this one or the
    /// first process does. `dev` is the kernel's `dev_t` of the file system.
    pub(crate) fn path(&mut self, tgid: u32, dev: u32, path: &[u8]) -> Option<Vec<u8>> {
        for tgid in [tgid, std::process::id(), FIRST] {
            let namespace = Namespace::of(tgid);
            if !self.tables.get(&namespace).is_some_and(Table::is_fresh) {
                self.refresh(namespace, tgid);
            }
            let mounts = self.tables.get(&namespace).map(|table| &table.mounts);
            if let Some(found) = mounts.and_then(|mounts| mounts::mounted(mounts, dev, path)) {
                return Some(found);
            }
        }
        None
    }

    /// The mount table of the host: that of its first process, or else the tracer's own.
    pub(crate) fn host(&mut self) -> Option<&Mounts> {
        let (namespace, tgid) = match Namespace::of(FIRST) {
            first @ Namespace::Mounts { .. } => (first, FIRST),
            Namespace::Process(_) => (self.own, std::process::id()),
        };
        if !self.tables.get(&namespace).is_some_and(Table::is_fresh) {
            self.refresh(namespace, tgid);
        }
        self.tables.get(&namespace).map(|table| &table.mounts)
    }

    fn anywhere(&self, wanted: &MountQuery) -> Option<Mount> {
        // If several tables have the mount, prefer the tracer's own, else the newest.
        let found = self.tables.iter().filter_map(|(namespace, table)| {
            let mount = wanted.among(&table.mounts)?;
            Some(((*namespace == self.own, table.read_at), mount))
        });
        found.max_by_key(|(rank, _)| *rank).map(|(_, mount)| mount.clone())
    }

    /// Reads a table. If the process has exited, the cached table of its namespace is kept.
    fn refresh(&mut self, namespace: Namespace, tgid: u32) {
        let mounts = (self.read)(tgid);
        if mounts.is_empty() {
            return;
        }
        let known = self.tables.remove(&namespace).is_some();
        let kept: usize = self.tables.values().map(|table| table.mounts.len()).sum();
        if !known && self.tables.len() >= MAX_NAMESPACES || kept + mounts.len() > MAX_MOUNTS {
            self.drop_oldest();
        }
        self.tables.insert(namespace, Table::new(mounts));
    }

    /// Drops the older half of the tables.
    fn drop_oldest(&mut self) {
        let mut times: Vec<Instant> = self.tables.values().map(|table| table.read_at).collect();
        times.sort_unstable();
        let Some(middle) = times.get(times.len() / 2).copied() else { return };
        self.tables.retain(|_, table| table.read_at > middle);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::system::mounts::tests::mount;

    const GONE: u32 = u32::MAX >> 1;
    const DEV: u32 = 8 << 20 | 1;

    fn known(id: i32, point: &str) -> Namespaces {
        let mut namespaces = Namespaces { read: |_| Mounts::new(), ..Namespaces::default() };
        let own = Namespace::Mounts { inode: 7, root: (0, 2) };
        namespaces.tables.insert(own, Table::new(HashMap::from([(id, mount(point))])));
        namespaces
    }

    fn point(namespaces: &mut Namespaces, wanted: MountQuery) -> Option<Vec<u8>> {
        namespaces.mount(wanted).map(|mount| mount.point)
    }

    #[test]
    fn a_gone_process_s_mount_is_found_by_another_s_table() {
        let mut namespaces = known(41, "/data");
        let wanted = |id, dev| MountQuery { tgid: GONE, id, dev };
        assert_eq!(point(&mut namespaces, wanted(41, Some(DEV))).as_deref(), Some(&b"/data"[..]));
        assert_eq!(point(&mut namespaces, wanted(41, None)).as_deref(), Some(&b"/data"[..]));
        // The id was reused for a mount of another file system.
        assert_eq!(point(&mut namespaces, wanted(41, Some(DEV + 1))), None);
        assert_eq!(point(&mut namespaces, wanted(42, Some(DEV))), None);
    }

    #[test]
    fn of_two_root_directories_the_tracer_s_own_names_a_mount() {
        let mut namespaces = known(41, "/data");
        namespaces.own = Namespace::Mounts { inode: 7, root: (0, 2) };
        // Read later, from a process outside the chroot.
        let table = Table::new(HashMap::from([(41, mount("/new/data"))]));
        namespaces.tables.insert(Namespace::Mounts { inode: 7, root: (0, 1) }, table);
        let wanted = MountQuery { tgid: GONE, id: 41, dev: Some(DEV) };
        assert_eq!(point(&mut namespaces, wanted).as_deref(), Some(&b"/data"[..]));
    }

    #[test]
    fn all_processes_are_looked_through_for_an_unknown_mount_and_not_at_every_file() {
        let mut namespaces = known(41, "/data");
        namespaces.read = |tgid| match tgid {
            GONE => Mounts::new(),
            _ => HashMap::from([(50, mount("/later"))]),
        };
        let wanted = MountQuery { tgid: GONE, id: 50, dev: Some(DEV) };
        assert!(namespaces.looked.is_none());
        assert_eq!(point(&mut namespaces, wanted).as_deref(), Some(&b"/later"[..]));
        let looked = namespaces.looked.unwrap();
        assert_eq!(point(&mut namespaces, MountQuery { id: 99, ..wanted }), None);
        assert_eq!(namespaces.looked, Some(looked));
    }

    #[test]
    fn a_mount_of_another_device_does_not_read_the_table_at_every_file() {
        thread_local! {
            static READS: Cell<u32> = const { Cell::new(0) };
        }
        let read = |_| {
            READS.set(READS.get() + 1);
            HashMap::from([(41, mount("/data"))])
        };
        let mut namespaces = Namespaces { read, ..Namespaces::default() };
        let wanted = |id, dev| MountQuery { tgid: std::process::id(), id, dev: Some(dev) };
        for _ in 0..3 {
            assert!(namespaces.mount(wanted(41, DEV)).is_some());
            assert!(namespaces.mount(wanted(41, DEV + 1)).is_some());
        }
        assert_eq!(READS.get(), 2);
    }

    #[test]
    fn memory_has_an_end() {
        let mut namespaces = known(0, "/");
        namespaces.read = |tgid| HashMap::from([(tgid as i32, mount("/x"))]);
        for tgid in 0..3 * MAX_NAMESPACES as u32 {
            namespaces.refresh(Namespace::Process(tgid), tgid);
            assert!(namespaces.tables.len() <= MAX_NAMESPACES);
            assert!(namespaces.tables.contains_key(&Namespace::Process(tgid)));
        }
    }
}
