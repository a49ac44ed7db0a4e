//! The set of traced processes, a BPF map. The fork probe adds children of traced processes to it,
//! and the probe of a process's exit removes them.

use std::{collections::HashSet, process};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap, MapData},
};

use crate::system::processes::{Process, all, descendants, still_runs};

fn map(bpf: &mut Ebpf) -> Result<HashMap<&mut MapData, u32, u32>> {
    let map = bpf.map_mut("TARGETS").context("the object has no map TARGETS")?;
    Ok(HashMap::try_from(map)?)
}

/// Adds a process.
pub(super) fn add(bpf: &mut Ebpf, pid: u32) -> Result<()> {
    map(bpf)?
        .insert(pid, 1, 0)
        .with_context(|| format!("cannot trace process {pid}: the set of processes is full"))
}

/// Removes a process.
pub(super) fn remove(bpf: &mut Ebpf, pid: u32) -> Result<()> {
    Ok(map(bpf)?.remove(&pid)?)
}

/// The processes that are currently in the set.
pub(super) fn present(bpf: &Ebpf) -> Result<Vec<u32>> {
    let map = bpf.map("TARGETS").context("the object has no map TARGETS")?;
    let map = HashMap::<_, u32, u32>::try_from(map)?;
    Ok(map.keys().collect::<Result<_, _>>()?)
}

/// Adds the current descendants of `roots`. The fork probe must be attached already: it adds the
/// children of a process in the set, so a scan of /proc that finds nothing new is complete. The
/// exception is a process whose parent, a descendant too, exits during the scan.
pub(super) fn add_descendants(bpf: &mut Ebpf, roots: &[u32]) -> Result<()> {
    let mut family: HashSet<u32> = roots.iter().copied().collect();
    loop {
        let all = all();
        let own = process::id();
        let new: Vec<&Process> =
            descendants(&all, &family).into_iter().filter(|new| new.pid != own).collect();
        if new.is_empty() {
            return Ok(());
        }
        for process in &new {
            family.insert(process.pid);
            add(bpf, process.pid)?;
        }
        // The exit probe may have run before the process was added. Its id may be reused.
        for ended in new.iter().filter(|process| !still_runs(process)) {
            let _ = remove(bpf, ended.pid);
        }
    }
}
