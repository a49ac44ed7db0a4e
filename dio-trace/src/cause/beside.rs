//! Explaining what is no request.

use super::{
    Explanation, Rule,
    rules::{
        beside::{MIXED_ACCESS, OPEN_REFUSED},
        notes::{LOOP_BUFFERED, buffered_below},
    },
};
use crate::enrich::Facts;

/// Why O_DIRECT itself was refused for a file of this file system.
#[must_use]
pub fn explain_refusal(fs: &str, proven: bool) -> Explanation {
    let why = if proven {
        format!("{fs} offers no direct I/O for this file")
    } else {
        format!("likely {fs} cannot do direct I/O for this file, or a layer below it cannot")
    };
    by(&OPEN_REFUSED, why)
}

/// What it means that a process uses a file through the page cache that others use directly.
#[must_use]
pub fn explain_mixed(writes: bool) -> Explanation {
    let how = if writes { "writes" } else { "reads or maps" };
    by(&MIXED_ACCESS, format!("{how} through the page cache what others use with O_DIRECT"))
}

/// What there is to know of all direct requests to a file, healthy ones too.
#[must_use]
pub fn explain_file(facts: &Facts) -> Option<Explanation> {
    buffered_below(&facts.device.layers).map(|why| by(&LOOP_BUFFERED, why))
}

fn by(rule: &'static Rule, why: String) -> Explanation {
    Explanation { id: rule.id, why, fix: rule.fix.to_owned() }
}
