//! What runs inside the VM: set-ups, the workload with its own tally, the judge.
pub(crate) fn main() -> anyhow::Result<()> { Ok(()) }
