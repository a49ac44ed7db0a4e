//! `cargo xtask fuzz`: runs each fuzz target with mutated inputs for a bounded time.
//!
//! It runs libFuzzer as cargo-fuzz does, but on stable Rust: the only thing that libFuzzer needs
//! from the compiler is an LLVM pass, which `-C passes` enables. `cargo +nightly fuzz run TARGET`
//! works on the same folder.
use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::host::{
    build,
    cmd::{self, say},
    packages, paths,
};

const TARGETS: &[&str] = &["event", "recording", "contents"];
/// Passed as `--target`, so that build scripts and procedural macros are not instrumented.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// The compiler flags that cargo-fuzz uses.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];
/// The largest input, in bytes.
const LARGEST: &str = "-max_len=65536";
/// The memory limit, in MiB.
const MEMORY: &str = "-rss_limit_mb=2048";
/// The time limit for one input, in seconds.
const PATIENCE: &str = "-timeout=20";

/// Feed mutated bytes to the reader of recordings and the decoder of events
#[derive(Args)]
pub(crate) struct FuzzArgs {
    /// Only this target: event, recording, contents
    target: Option<String>,
    /// Seconds for each target
    #[arg(long, default_value_t = 60)]
    seconds: u32,
}

pub(crate) fn main(args: &FuzzArgs) -> Result<()> {
    if let Some(target) = &args.target {
        ensure!(
            TARGETS.contains(&target.as_str()),
            "no fuzz target is called `{target}`; there are {}",
            TARGETS.join(", ")
        );
    }
    packages::ensure(&[packages::FUZZ])?;
    let folder = paths::workspace()?.join("fuzz");
    let built = paths::target()?.join("fuzz");
    say("building the fuzz targets");
    let mut build = build::cargo()?;
    build
        .current_dir(&folder)
        .args(["build", "--release", "--locked", "--target", TRIPLE])
        .env("CARGO_TARGET_DIR", &built)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    cmd::run(&mut build).context("the fuzz targets do not build")?;
    let wanted = |target: &&&str| args.target.as_ref().is_none_or(|only| only == **target);
    for target in TARGETS.iter().filter(wanted) {
        run(target, args.seconds, &folder, &built)?;
    }
    Ok(())
}

/// Fails if fuzz/Cargo.lock does not match its Cargo.toml. No other command builds the fuzz
/// targets, so nothing else would find out.
pub(crate) fn ensure_locked() -> Result<()> {
    let manifest = paths::workspace()?.join("fuzz/Cargo.toml");
    let mut metadata = build::cargo()?;
    metadata.args(["metadata", "--locked", "--format-version", "1", "--filter-platform", TRIPLE]);
    metadata.arg("--manifest-path").arg(&manifest);
    cmd::output(&mut metadata)
        .with_context(|| format!("the lock file of {} is stale", manifest.display()))
        .map(drop)
}

fn run(target: &str, seconds: u32, folder: &Path, built: &Path) -> Result<()> {
    let found = built.join("found").join(target);
    fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    say(format!("{target} for {seconds} s"));
    let crashes = built.join(format!("{target}-"));
    let mut command = Command::new(built.join(TRIPLE).join("release").join(target));
    command
        .args([LARGEST, MEMORY, PATIENCE, "-print_final_stats=1"])
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-artifact_prefix={}", crashes.display()))
        .arg(&found)
        .arg(folder.join("corpus").join(target));
    let out = command.output().with_context(|| format!("cannot start the target {target}"))?;
    let stderr = String::from_utf8_lossy(&out.stderr);
    let lines: Vec<&str> = stderr.lines().collect();
    if !out.status.success() {
        bail!(
            "{target} failed; its input is {}*: when the bug is fixed, add the input to \
             fuzz/corpus/{target}\n{}",
            crashes.display(),
            lines[lines.len().saturating_sub(30)..].join("\n")
        );
    }
    for line in lines
        .iter()
        .filter(|line| line.contains("number_of_executed_units") || line.contains("DONE"))
    {
        println!("{target:<10} {}", line.trim());
    }
    Ok(())
}
