//! Loads and attaches every eBPF program on this kernel, and says what came of it.
use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use aya::programs::loaded_programs;
use clap::Args;
use serde_json::Value;

use crate::{
    guest::{
        contract::load::Loaded,
        fixtures::mount,
        harness::{Traces, stop, verified_instructions, wait_until_tracing},
    },
    host::cmd,
};

/// Where the self-test finds a file system with direct I/O.
const DISK: &str = "/dev/vda";
const FOLDER: &str = "/mnt";

#[derive(Args, Clone, Debug)]
pub(crate) struct LoadArgs {
    /// Path of the dio-trace binary
    #[arg(long)]
    tool: PathBuf,
    /// File to write the result to, as a line of JSON
    #[arg(long)]
    out: PathBuf,
    /// fentry or kprobe: how dio-trace must attach; may be given for both
    #[arg(long)]
    attach: Vec<String>,
}

pub(crate) fn main(args: &LoadArgs) -> Result<()> {
    cmd::output(Command::new("mkfs.ext4").args(["-q", "-F", DISK, "1G"]))?;
    mount(&[DISK], Path::new(FOLDER))?;
    let mut out = File::create(&args.out).context("cannot write the rows")?;
    for attach in &args.attach {
        writeln!(out, "{}", serde_json::to_string(&load(&args.tool, attach)?)?)?;
    }
    Ok(())
}

/// The ways of tracing that have probes of their own, with everything that can be asked for; and where
/// their JSON has the gaps.
const WAYS: &[(&[&str], &str)] = &[
    (
        &[
            "audit",
            "--force-blind",
            "--why-eagain",
            "--verify-stable",
            "--stack",
            "--expect-direct",
            "/nothing/*",
        ],
        "/probes/missing",
    ),
    (&["cache"], "/missing"),
];

/// Traces the whole system for a moment, in each way.
fn load(tool: &Path, attach: &str) -> Result<Loaded> {
    let mut all = Loaded { attach: attach.to_owned(), ..Loaded::default() };
    for (words, gaps) in WAYS {
        let loaded = load_way(tool, attach, words, gaps)?;
        all.programs.extend(loaded.programs);
        all.gaps.extend(loaded.gaps);
        all.count += loaded.count;
        all.refused = all.refused.or(loaded.refused);
    }
    Ok(all)
}

/// Traces the whole system for a moment, in one way.
fn load_way(tool: &Path, attach: &str, words: &[&str], gaps_at: &str) -> Result<Loaded> {
    let traces = Traces::new(Path::new("/tmp"), attach);
    let attach = attach.to_owned();
    let mut tool = Command::new(tool)
        .args(words)
        .args(["--json", "--attach", &attach])
        .stdout(File::create(&traces.json)?)
        .stderr(File::create(&traces.talk)?)
        .spawn()
        .context("cannot start dio-trace")?;
    if let Err(error) = wait_until_tracing(&mut tool, &traces) {
        // It may still be attaching. It fails only if dio-trace has ended.
        let _ = tool.kill();
        tool.wait().context("cannot wait for dio-trace")?;
        let refused = Some(format!("{error:#}"));
        return Ok(Loaded { attach, refused, ..Loaded::default() });
    }
    let programs = verified_instructions()?.into_iter().collect();
    let count = loaded_programs().count();
    stop(tool, &traces)?;
    let json = fs::read_to_string(&traces.json).context("dio-trace wrote no JSON")?;
    Ok(Loaded { attach, count, programs, gaps: gaps(&json, gaps_at)?, refused: None })
}

/// The gaps in the last line, at this place in its JSON.
fn gaps(json: &str, at: &str) -> Result<Vec<(String, String)>> {
    let summary: Value = serde_json::from_str(json.lines().last().unwrap_or_default())
        .with_context(|| format!("no summary: {json}"))?;
    let word = |gap: &Value, name: &str| gap[name].as_str().unwrap_or_default().to_owned();
    let gaps = summary.pointer(at).and_then(Value::as_array).into_iter().flatten();
    Ok(gaps.map(|gap| (word(gap, "probe"), word(gap, "why"))).collect())
}
