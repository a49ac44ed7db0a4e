//! A FUSE daemon that reads the file below with O_DIRECT from a buffer of its own: its EINVAL is not
//! a rule of FUSE. Where the daemon is traced too, its own request shows what was refused.
use std::{
    fs,
    path::Path,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::{Trial, on};
use crate::{
    guest::direct_io::files::fill,
    host::cmd::{self, text},
};

const NAME: &str = "served";

pub(super) fn check(trial: &Trial<'_>, folder: &Path) -> Result<Vec<String>> {
    fill(&folder.join(NAME), 16 << 10)?;
    let mut wrong = Vec::new();
    let seen = served(trial, folder, "96")?;
    let client = Path::new("/mnt/reports-fuse").join(NAME);
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
    let server = Server::start(folder, past)?;
    let file = format!("if={}", text(&server.mount().join(NAME))?);
    let seen = trial.audit(&["dd", &file, "of=/dev/null", "bs=4096", "count=1", "iflag=direct"]);
    server.end()?;
    seen
}

struct Server(Child);

impl Server {
    fn mount(&self) -> &'static Path {
        Path::new("/mnt/reports-fuse")
    }

    fn start(below: &Path, past: &str) -> Result<Self> {
        let me = std::env::current_exe().context("xtask cannot find itself")?;
        let mut command = Command::new(me);
        command.args(["guest", "fuse-server", "--direct-io", "--own-direct", past]).arg(below);
        let mount = Path::new("/mnt/reports-fuse");
        fs::create_dir_all(mount)?;
        let server = Self(command.arg(mount).spawn().context("cannot start the server")?);
        let start = Instant::now();
        while !fs::read_to_string("/proc/self/mounts")?.contains("/mnt/reports-fuse") {
            if start.elapsed() > Duration::from_secs(30) {
                bail!("the FUSE server did not mount");
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(server)
    }

    fn end(mut self) -> Result<()> {
        cmd::output(Command::new("umount").arg(self.mount()))?;
        self.0.wait()?;
        Ok(())
    }
}
