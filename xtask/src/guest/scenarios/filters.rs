//! Filters: what they leave out must be neither shown nor counted, whether the kernel side or the
//! user side applies the filter.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    guest::{
        contract::json::counted,
        direct_io::files::fill,
        fixtures::{Place, mount},
        harness::{Traces, Tried, stop, wait_until_tracing},
    },
    host::cmd::{self, text},
};

/// The number of runs of dio-trace.
pub(crate) const RUNS: u64 = 2;
const SIZE: usize = 16 << 10;
/// The number of requests that [`job`] makes.
pub(crate) const REQUESTS: u64 = 18;
/// A cgroup name in docker's format.
const CONTAINER: &str = "docker-5eed5eed5eed.scope";

/// Runs dio-trace twice on files of the first folder, where reads and writes are direct; returns
/// the mismatches.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let Tried { tool, attach, series } = tried;
    let folder = &places[0].path;
    let job = job(folder)?;
    let folder = text(folder)?;
    let mut wrong = Vec::new();

    let filters = ["--op", "write", "--api", "read,readv", "--dev", folder, "--fs", "ext4,xfs"];
    let output = Command::new(tool)
        .args(["run", "--json", "--all", "--attach", attach, "--path", "*/wanted"])
        .args(["--only", "direct,fallback", "--comm", "dd", "--min-latency", "1us"])
        .args(filters)
        .args(["--", "sh", "-c", &job])
        .output()
        .context("cannot start dio-trace")?;
    wrong.extend(compare(&String::from_utf8_lossy(&output.stdout), 4, "run with filters"));

    // The job runs once inside a container's cgroup and once outside. 5.10 cannot tell them apart.
    let cgroup = container()?;
    let traces = Traces::new(out, "filters");
    let mut tool = Command::new(tool)
        .args(["audit", "--json", "--all", "--attach", attach, "--container", "5eed5eed"])
        .args(["-o", text(&traces.json)?])
        .stderr(fs::File::create(&traces.talk)?)
        .spawn()
        .context("cannot start dio-trace")?;
    if series.as_str() == "5.10" {
        let status = tool.wait()?;
        let talk = fs::read_to_string(&traces.talk)?;
        if status.code() != Some(1) || !talk.contains("read the cgroup") {
            wrong.push(format!("audit --container ended with {status}: {talk}"));
        }
        return Ok(wrong);
    }
    wait_until_tracing(&mut tool, &traces)?;
    let enter = format!("echo $$ > {}/cgroup.procs; {job}", text(&cgroup)?);
    cmd::output(Command::new("sh").args(["-c", &enter]))?;
    cmd::output(Command::new("sh").args(["-c", &job]))?;
    stop(tool, &traces)?;
    let talk = fs::read_to_string(&traces.json)?;
    wrong.extend(compare(&talk, REQUESTS, "audit --container"));
    Ok(wrong)
}

/// Makes two files and returns a command that makes [`REQUESTS`] requests: for each file 4 reads,
/// one read that finds the end, and 4 writes.
pub(crate) fn job(folder: &Path) -> Result<String> {
    for name in ["wanted", "other"] {
        fill(&folder.join(name), SIZE)?;
    }
    let folder = text(folder)?;
    let part = |name: &&str| {
        format!(
            "dd if={folder}/{name} of=/dev/null iflag=direct bs=4096; \
             dd if=/dev/zero of={folder}/{name} oflag=direct conv=notrunc bs=4096 count=4; "
        )
    };
    Ok(["wanted", "other"].iter().map(part).collect())
}

/// Makes the cgroup that a docker container would have; returns its folder.
fn container() -> Result<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if !root.join("cgroup.controllers").exists() {
        mount(&["-t", "cgroup2", "none"], root)?;
    }
    let cgroup = root.join("system.slice").join(CONTAINER);
    fs::create_dir_all(&cgroup)?;
    Ok(cgroup)
}

/// Compares the number of events and of counted requests with `requests`; the mismatch, if any.
pub(crate) fn compare(json: &str, requests: u64, what: &str) -> Option<String> {
    let lines: Vec<Value> =
        json.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let seen = lines.iter().filter(|line| line["kind"] == "request").count() as u64;
    let summary = lines.iter().find(|line| line["kind"] == "summary");
    let counted = summary.map_or(0, counted);
    (seen != requests || counted != requests)
        .then(|| format!("{what}: {seen} events and {counted} counted, not {requests}: {json}"))
}
