//! A FUSE daemon that reads the file below with O_DIRECT from a buffer of its own: its EINVAL is not
//! a rule of FUSE. Where the daemon is traced too, its own request shows what was refused.
use std::path::Path;

use anyhow::Result;

use super::{Trial, on};
use crate::guest::{direct_io::files::fill, fixtures::Served};

const NAME: &str = "served";
const MOUNT: &str = "/mnt/reports-fuse";

pub(super) fn check(trial: &Trial<'_>, folder: &Path) -> Result<Vec<String>> {
    fill(&folder.join(NAME), 16 << 10)?;
    let mut wrong = Vec::new();
    let seen = served(trial, folder, "96")?;
    let client = Path::new(MOUNT).join(NAME);
    match on(&seen, &client, 1) {
        Ok(seen) => wrong.extend(seen[0].explained(
            "daemon-refused",
            "likely the answer of the fuse daemon",
            "dio-trace audit",
        )),
        Err(why) => wrong.push(why),
    }
    match on(&seen, &folder.join(NAME), 1) {
        Ok(seen) => wrong.extend(seen[0].explained(
            "misaligned",
            "the buffer is 96 bytes past a multiple of",
            "posix_memalign",
        )),
        Err(why) => wrong.push(why),
    }
    // The fix: the daemon aligns its buffer.
    let seen = served(trial, folder, "0")?;
    match on(&seen, &client, 1) {
        Ok(seen) if seen[0].ret == 4096 && seen[0].verdict == "client" => {}
        Ok(seen) => wrong.push(format!("the fix failed: {:?}", seen[0])),
        Err(why) => wrong.push(why),
    }
    Ok(wrong)
}

/// Traces everything while a client reads once from a daemon whose buffer is `past` bytes past a
/// page.
fn served(trial: &Trial<'_>, folder: &Path, past: &str) -> Result<Vec<super::Seen>> {
    let words = ["xtask", "guest", "fuse-server", "--direct-io", "--own-direct", past];
    let server = Served::start(&words, folder, Path::new(MOUNT))?;
    let file = format!("if={MOUNT}/{NAME}");
    let seen = trial.audit(&["dd", &file, "of=/dev/null", "bs=4096", "count=1", "iflag=direct"]);
    server.end()?;
    seen
}
