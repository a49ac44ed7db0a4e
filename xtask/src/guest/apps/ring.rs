//! Counts the requests submitted to io_uring by the kernel's tracepoint: a histogram of opcodes,
//! made by ftrace without eBPF. It counts all rings and does not distinguish files, so it is only
//! for programs that use io_uring only for reads and writes of O_DIRECT files.
use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};

use crate::guest::contract::apps::Ops;

const EVENT: &str = "/sys/kernel/tracing/events/io_uring/io_uring_submit_req";
const TRIGGER: &str = "hist:keys=opcode";
/// include/uapi/linux/io_uring.h: READV, READ_FIXED, READ; WRITEV, WRITE_FIXED, WRITE.
const READS: [u64; 3] = [1, 4, 22];
const WRITES: [u64; 3] = [2, 5, 23];

/// The running histogram; it counts from [`Ring::start`] on and is removed on drop.
pub(super) struct Ring;

impl Ring {
    pub(super) fn start() -> Result<Self> {
        fs::write(Path::new(EVENT).join("trigger"), TRIGGER)
            .context("this kernel does not count io_uring's requests (hist triggers)")?;
        Ok(Self)
    }

    pub(super) fn so_far(&self) -> Result<Ops> {
        Ok(ops(&fs::read_to_string(Path::new(EVENT).join("hist"))?))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // A trigger that stays continues to count, and does no harm.
        let _ = fs::write(Path::new(EVENT).join("trigger"), format!("!{TRIGGER}"));
    }
}

fn ops(hist: &str) -> Ops {
    let line = |line: &str| -> Option<(u64, u64)> {
        let (key, hits) = line.strip_prefix("{ opcode:")?.split_once("} hitcount:")?;
        Some((key.trim().parse().ok()?, hits.trim().parse().ok()?))
    };
    let hits: BTreeMap<u64, u64> = hist.lines().filter_map(line).collect();
    let sum = |codes: [u64; 3]| codes.iter().filter_map(|code| hits.get(code)).sum();
    Ops { reads: sum(READS), writes: sum(WRITES) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opcodes_of_a_histogram() {
        let hist = "# trigger info: hist:keys=opcode [active]\n\n\
                    { opcode:          3 } hitcount:          1\n\
                    { opcode:          2 } hitcount:        100\n\
                    { opcode:         22 } hitcount:          7\n\nTotals:\n    Hits: 108\n";
        assert_eq!(ops(hist), Ops { reads: 7, writes: 100 });
    }
}
