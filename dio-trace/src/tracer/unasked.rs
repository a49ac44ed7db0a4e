//! `--expect-direct`: the files that the probes leave out, because no pattern fits their path.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap, PerCpuHashMap},
};
use dio_trace_common::abi::{BufferedUse, FileId, UNASKED_CALLS};

/// Leaves the file of this use out from here on, and forgets the use.
pub(super) fn rule_out(bpf: &mut Ebpf, unasked: &BufferedUse) -> Result<()> {
    let map = bpf.map_mut("RULED_OUT").context("the object has no map RULED_OUT")?;
    HashMap::<_, FileId, u32>::try_from(map)?.insert(unasked.file, 1, 0)?;
    let map = bpf.map_mut("BUFFERED_USES").context("the object has no map BUFFERED_USES")?;
    let mut map = PerCpuHashMap::<_, BufferedUse, u64>::try_from(map)?;
    for how in [unasked.how, unasked.how | UNASKED_CALLS] {
        // Gone already is fine.
        let _ = map.remove(&BufferedUse { how, ..*unasked });
    }
    Ok(())
}
