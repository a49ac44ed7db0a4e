//! `dio-trace cache`: reads what its probes count.

use anyhow::{Context as _, Result};
use aya::{Ebpf, Pod, maps::HashMap};
use dio_trace_common::abi::{CacheUser, Stat};

use crate::{
    model::CacheTotals,
    tracer::{load::Kernel, totals::stat},
};

/// The struct members that only these probes read: the table of offsets lets them be absent.
const MEMBERS: &[(&str, &str)] = &[
    ("inode", "i_dentry"),
    ("address_space", "i_mmap"),
    ("iov_iter", "count"),
    ("vm_fault", "vma"),
    ("vm_fault", "pgoff"),
    ("vm_area_struct", "vm_file"),
];

/// # Errors
/// If a struct of this kernel lacks a member that these probes read.
pub(super) fn check(kernel: &Kernel) -> Result<()> {
    for (strukt, member) in MEMBERS {
        kernel.types.offset(strukt, member).context(
            "this kernel's structs differ from the known ones: please report it with `uname -r`",
        )?;
    }
    Ok(())
}

/// The sums so far.
pub(super) fn totals(bpf: &Ebpf, skipped: Vec<(String, u64)>) -> Result<CacheTotals> {
    let mut uses = rows(bpf, "PAGE_USES")?;
    uses.extend(rows(bpf, "PAGE_USES_REST")?);
    Ok(CacheTotals {
        uses,
        resident: rows(bpf, "CACHE_FILES")?,
        users: users(bpf)?,
        lost_pages: stat(bpf, Stat::LostPages)?,
        lost_names: stat(bpf, Stat::LostFile)?,
        skipped,
    })
}

/// The processes that are known.
pub(super) fn users(bpf: &Ebpf) -> Result<Vec<(u32, CacheUser)>> {
    rows(bpf, "CACHE_USERS")
}

/// The rows of a map. One that is inserted meanwhile may be missing.
fn rows<K: Pod, V: Pod>(bpf: &Ebpf, name: &str) -> Result<Vec<(K, V)>> {
    let map = bpf.map(name).with_context(|| format!("the object has no map {name}"))?;
    let map = HashMap::<_, K, V>::try_from(map)?;
    Ok(map.iter().collect::<Result<_, _>>()?)
}
