//! Helpers for database servers: waiting until one is ready, and running commands as its user.
use std::{
    os::unix::process::CommandExt as _,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    guest::apps::reference::{Running, said},
    host::cmd::{self, text},
};

/// The user for servers that refuse to run as root.
pub(super) const USER: &str = "nobody";
const UID: u32 = 65534;
/// Limit for a server to start, on an emulated CPU and under strace.
const PATIENCE: Duration = Duration::from_secs(180);

/// A command that runs as [`USER`].
pub(super) fn by_user(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.uid(UID).gid(UID).current_dir("/tmp");
    command
}

/// Makes [`USER`] the owner of a folder and all that is in it.
pub(super) fn give(folder: &Path) -> Result<()> {
    cmd::output(Command::new("chown").args(["-R", USER, text(folder)?])).map(drop)
}

/// Copies a folder and keeps its owners.
pub(super) fn copy(from: &Path, to: &Path) -> Result<()> {
    cmd::output(Command::new("cp").args(["-a", text(from)?, text(to)?])).map(drop)
}

/// Waits until `ready` succeeds.
pub(super) fn wait(running: &mut Running, ready: impl Fn() -> Result<String>) -> Result<()> {
    let start = Instant::now();
    loop {
        let Err(error) = ready() else { return Ok(()) };
        if !running.is_running()? {
            bail!("the server ended: {}", said());
        }
        if start.elapsed() > PATIENCE {
            return Err(error).with_context(|| format!("the server did not start: {}", said()));
        }
        thread::sleep(Duration::from_millis(200));
    }
}
