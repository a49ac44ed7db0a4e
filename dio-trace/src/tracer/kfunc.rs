//! Links calls of kernel functions (kfuncs) in the eBPF object. The object calls placeholder
//! numbers (dio-trace-common/src/kfunc.rs), which are replaced here by BTF ids before it is loaded.

use anyhow::{Result, ensure};
use dio_trace_common::kfunc::Group;

/// Opcode of `call`, which has the callee's number in its last four bytes
/// (include/uapi/linux/bpf.h).
const CALL: u8 = 0x85;
/// Source register 2 of a call means that the number is a kernel function's BTF id
/// (`BPF_PSEUDO_KFUNC_CALL`).
const KFUNC: u8 = 2 << 4;
/// `r0 = 0`: replaces a call if the kernel does not have the function.
const NOTHING: [u8; 8] = [0xb7, 0, 0, 0, 0, 0, 0, 0];

/// Replaces the calls of a group in `object`; `id` returns the BTF id of a kernel function. If one
/// function of the group is missing, all its calls are replaced by `r0 = 0`.
///
/// # Errors
/// If the object does not contain such a call: then it was not built from its source.
pub(super) fn link(
    object: &mut [u8],
    group: Group,
    id: impl Fn(&str) -> Option<u32>,
) -> Result<()> {
    let ids: Option<Vec<u32>> = group.iter().map(|(_, name)| id(name)).collect();
    for (index, (number, name)) in group.iter().enumerate() {
        let with = match &ids {
            Some(ids) => {
                let [a, b, c, d] = ids[index].to_le_bytes();
                [CALL, KFUNC, 0, 0, a, b, c, d]
            }
            None => NOTHING,
        };
        let found = replace(object, call(*number), with);
        ensure!(found != 0, "the object has no call of {name}");
    }
    Ok(())
}

fn call(number: usize) -> [u8; 8] {
    let [a, b, c, d] = (number as u32).to_le_bytes();
    [CALL, 0, 0, 0, a, b, c, d]
}

/// Replaces an instruction everywhere and returns how often. Instructions are 8 bytes long, and
/// sections are aligned to 8 bytes.
fn replace(object: &mut [u8], from: [u8; 8], to: [u8; 8]) -> usize {
    let mut found = 0;
    for instruction in object.chunks_exact_mut(8).filter(|bytes| **bytes == from) {
        instruction.copy_from_slice(&to);
        found += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use dio_trace_common::kfunc::{CAST, PREEMPT_DISABLE, PREEMPT_ENABLE, PREEMPTION, RDONLY_CAST};

    use super::*;

    fn object() -> Vec<u8> {
        [PREEMPT_DISABLE, RDONLY_CAST, PREEMPT_ENABLE].map(call).concat()
    }

    #[test]
    fn calls_get_the_kernels_ids() {
        let mut object = object();
        link(&mut object, PREEMPTION, |name| Some(name.len() as u32)).unwrap();
        assert_eq!(object[..8], [0x85, 0x20, 0, 0, 19, 0, 0, 0]);
        assert_eq!(object[8..16], call(RDONLY_CAST));
        assert_eq!(object[16..], [0x85, 0x20, 0, 0, 18, 0, 0, 0]);
    }

    #[test]
    fn calls_vanish_where_one_of_the_functions_is_missing() {
        let mut object = object();
        link(&mut object, PREEMPTION, |name| name.ends_with("enable").then_some(1)).unwrap();
        link(&mut object, CAST, |_| Some(7)).unwrap();
        assert_eq!(object[..8], NOTHING);
        assert_eq!(object[8..16], [0x85, 0x20, 0, 0, 7, 0, 0, 0]);
        assert_eq!(object[16..], NOTHING);
    }

    #[test]
    fn the_committed_object_has_calls_to_link() {
        let mut object = super::super::load::OBJECT.to_vec();
        for group in [PREEMPTION, CAST] {
            link(&mut object, group, |_| Some(1)).unwrap();
        }
    }

    #[test]
    fn an_object_without_calls_is_refused() {
        assert!(link(&mut [0; 64], CAST, |_| None).is_err());
    }
}
