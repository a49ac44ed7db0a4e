//! The processes that are traced: a set in the kernel, which the fork probe adds to and the end of a
//! process takes from.

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

/// Takes a process out again.
pub(super) fn remove(bpf: &mut Ebpf, pid: u32) -> Result<()> {
    Ok(map(bpf)?.remove(&pid)?)
}

/// Those that are in it now.
pub(super) fn present(bpf: &Ebpf) -> Result<Vec<u32>> {
    let map = bpf.map("TARGETS").context("the object has no map TARGETS")?;
    let map = HashMap::<_, u32, u32>::try_from(map)?;
    Ok(map.keys().collect::<Result<_, _>>()?)
}

/// Adds the descendants that `roots` have now. The fork probe must run already: then what a
/// process in the set forks gets in by itself, and a look at /proc that finds nobody new leaves nobody
/// out. (But for one whose parent, a descendant too, ends while this looks.)
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
        // The probe of its end may have run before it was added; its id may be another's next.
        for ended in new.iter().filter(|process| !still_runs(process)) {
            let _ = remove(bpf, ended.pid);
        }
    }
}
