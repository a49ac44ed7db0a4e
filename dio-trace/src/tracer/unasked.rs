//! `--expect-direct`: the sums of the probes, and the files that they leave out.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{HashMap, PerCpuHashMap},
};
use dio_trace_common::abi::{BufferedUse, FileId, UnaskedSum};

const USES: &str = "UNASKED_USES";

/// The sums over all CPUs.
pub(super) fn uses(bpf: &Ebpf) -> Result<Vec<(BufferedUse, UnaskedSum)>> {
    let map = bpf.map(USES).context("the object has no map UNASKED_USES")?;
    let map = PerCpuHashMap::<_, BufferedUse, UnaskedSum>::try_from(map)?;
    map.iter()
        .map(|row| {
            let (unasked, by_cpu) = row?;
            let sum = by_cpu.iter().fold(UnaskedSum::default(), |sum, cpu| UnaskedSum {
                calls: sum.calls + cpu.calls,
                bytes: sum.bytes + cpu.bytes,
            });
            Ok((unasked, sum))
        })
        .collect()
}

/// Leaves a file out from here on.
pub(super) fn rule_out(bpf: &mut Ebpf, file: FileId) -> Result<()> {
    let map = bpf.map_mut("RULED_OUT").context("the object has no map RULED_OUT")?;
    Ok(HashMap::<_, FileId, u32>::try_from(map)?.insert(file, 1, 0)?)
}

/// Forgets a use: if there is another one, it is sent as the first.
pub(super) fn forget(bpf: &mut Ebpf, unasked: &BufferedUse) -> Result<()> {
    let map = bpf.map_mut(USES).context("the object has no map UNASKED_USES")?;
    let mut map = PerCpuHashMap::<_, BufferedUse, UnaskedSum>::try_from(map)?;
    // Gone already is fine.
    let _ = map.remove(unasked);
    Ok(())
}
