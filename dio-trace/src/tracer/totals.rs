//! Reads counters and statistics from the per-CPU maps and sums them over the CPUs.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, PerCpuArray, PerCpuHashMap},
};
use dio_trace_common::abi::{BufferedUse, Counter, CounterKey, STATS, Stat};

/// Sums the per-CPU statistics.
pub(super) fn stats(bpf: &Ebpf) -> Result<[u64; STATS]> {
    let map = stats_by_cpu(bpf)?;
    let mut sums = [0; STATS];
    for (index, sum) in sums.iter_mut().enumerate() {
        *sum = map.get(&(index as u32), 0)?.iter().sum();
    }
    Ok(sums)
}

/// Lets no more requests begin.
pub(super) fn end(bpf: &mut Ebpf) -> Result<()> {
    let map = bpf.map_mut("ENDED").context("the object has no map ENDED")?;
    Ok(Array::<_, u32>::try_from(map)?.set(0, 1, 0)?)
}

/// Sums one of the per-CPU statistics.
pub(super) fn stat(bpf: &Ebpf, which: Stat) -> Result<u64> {
    Ok(stats_by_cpu(bpf)?.get(&(which as u32), 0)?.iter().sum())
}

fn stats_by_cpu(bpf: &Ebpf) -> Result<PerCpuArray<&MapData, u64>> {
    let map = bpf.map("STATS_BY_CPU").context("the object has no map STATS_BY_CPU")?;
    Ok(PerCpuArray::try_from(map)?)
}

/// Sums the per-CPU counters of each key.
pub(super) fn counters(bpf: &Ebpf) -> Result<Vec<(CounterKey, Counter)>> {
    let slots = bpf.map("COUNTED").context("the object has no map COUNTED")?;
    let slots = HashMap::<_, CounterKey, u32>::try_from(slots)?;
    let map = bpf.map("COUNTERS").context("the object has no map COUNTERS")?;
    let map = PerCpuArray::<_, Counter>::try_from(map)?;
    slots
        .iter()
        .map(|row| {
            let (key, slot) = row?;
            let by_cpu = map.get(&slot, 0)?;
            let mut by_cpu = by_cpu.iter();
            let first = *by_cpu.next().context("a counter without a CPU")?;
            Ok((key, by_cpu.fold(first, add)))
        })
        .collect()
}

/// Sums the per-CPU page counts of the processes that use a directly used file through the page
/// cache.
pub(super) fn buffered_uses(bpf: &Ebpf) -> Result<Vec<(BufferedUse, u64)>> {
    let map = bpf.map("BUFFERED_USES").context("the object has no map BUFFERED_USES")?;
    let map = PerCpuHashMap::<_, BufferedUse, u64>::try_from(map)?;
    map.iter()
        .map(|row| {
            let (key, by_cpu) = row?;
            Ok((key, by_cpu.iter().sum()))
        })
        .collect()
}

/// Empties the map that [`buffered_uses`] reads.
pub(super) fn forget_buffered_uses(bpf: &mut Ebpf) -> Result<()> {
    let map = bpf.map_mut("BUFFERED_USES").context("the object has no map BUFFERED_USES")?;
    let mut map = PerCpuHashMap::<_, BufferedUse, u64>::try_from(map)?;
    let keys: Vec<BufferedUse> = map.keys().collect::<Result<_, _>>()?;
    for key in keys {
        map.remove(&key)?;
    }
    Ok(())
}

fn add(mut sum: Counter, other: &Counter) -> Counter {
    sum.merge(other);
    sum
}
