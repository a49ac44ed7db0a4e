//! The object for kernels without task-local storage: the same, with a hash map in its place.
//!
//! aya creates the map type that the object's BTF names and has no way to ask for another one.

use anyhow::{Context as _, Result, bail};
use object::{Object as _, ObjectSection as _};

use crate::kernel::btf::map_definitions;

// include/uapi/linux/bpf.h
const BPF_MAP_TYPE_HASH: u32 = 1;
const BPF_MAP_TYPE_TASK_STORAGE: u32 = 29;

/// A copy of `elf` whose map of type task storage is a preallocated hash map (key: thread id).
///
/// # Errors
/// If the object has not exactly one such map.
pub(super) fn threads_by_hash(elf: &[u8]) -> Result<Vec<u8>> {
    let file = object::File::parse(elf).context("the eBPF object is no ELF file")?;
    let section = file.section_by_name(".BTF").context("the eBPF object has no BTF")?;
    let (start, len) = section.file_range().context("the eBPF object's BTF is empty")?;
    let (start, len) = (start as usize, len as usize);
    let btf = elf.get(start..start + len).context("the eBPF object is truncated")?;
    let mut maps =
        map_definitions(btf)?.into_iter().filter(|m| m.kind == BPF_MAP_TYPE_TASK_STORAGE);
    let (Some(map), None) = (maps.next(), maps.next()) else {
        bail!("the eBPF object has not exactly one map of task-local storage");
    };
    let mut copy = elf.to_vec();
    let mut set = |at: usize, value: u32| {
        copy[start + at..start + at + 4].copy_from_slice(&value.to_le_bytes());
    };
    set(map.kind_at, BPF_MAP_TYPE_HASH);
    // Flags as maximum: none. The loader sets the maximum by itself.
    set(map.flags_at, map.max_entries);
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_has_one_map_to_change() {
        let changed = threads_by_hash(super::super::OBJECT).unwrap();
        let differing: Vec<_> =
            changed.iter().zip(super::super::OBJECT).filter(|(a, b)| a != b).collect();
        assert!(differing.contains(&(&1, &29)));
        assert!((2..=5).contains(&differing.len()), "{differing:?}");
        assert!(threads_by_hash(&changed).is_err());
        assert!(threads_by_hash(b"no object").is_err());
    }
}
