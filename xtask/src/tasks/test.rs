//! `cargo xtask test`: runs all checks that must pass before a commit, and prints a table of them.
use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};
use clap::Args;

use crate::{
    bpf::{self, Checked},
    host::{
        build, cmd, packages,
        step_runner::{self, Outcome, timed},
    },
    tasks::{
        bench, dist, fuzz, html,
        suites::{self, Run},
        verified,
    },
    vm::interrupts,
};

/// The kernels that the scenarios run on, and how dio-trace attaches there. The slowest come first,
/// so that two VMs in parallel finish at about the same time.
const SCENARIOS: &[(&str, &str)] = &[
    ("6.1", "fentry"),
    ("6.18", "fentry"),
    ("7.3", "fentry"),
    ("6.12", "fentry"),
    ("6.12", "kprobe"),
];

/// How long the suite of one kernel may take.
const LIMIT: Duration = Duration::from_secs(40 * 60);

/// Check the format, lints, unit tests, the eBPF objects, the HTML page, the cost of tracing and the
/// Debian package, and run the scenarios on real kernels
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Leave out the steps that boot VMs
    #[arg(long)]
    quick: bool,
    /// Only these steps: format, lint, unit, object, html, cost, install, vm, or one VM such as
    /// vm-6.12-kprobe
    #[arg(long, value_name = "STEP")]
    only: Vec<String>,
    /// Number of VMs in parallel [default: 2, or 1 with a single CPU]
    #[arg(long, value_name = "N")]
    vms: Option<usize>,
    /// Keep the numbers of verified instructions of these VMs in xtask/bench/verified.tsv
    #[arg(long)]
    write_verified: bool,
}

/// The step that measures the cost of tracing.
const COST: &str = "cost";
/// The step that builds the Debian package, and installs and uses it.
const INSTALL: &str = "install";

type Plain = fn() -> Result<Outcome>;

/// The steps that need no VM.
const PLAIN: &[(&str, Plain)] =
    &[("format", format), ("lint", lint), ("unit", unit), ("object", object), ("html", page)];

pub(crate) fn main(args: &TestArgs) -> Result<u8> {
    interrupts::catch_interrupts();
    let runs: Vec<Run> = SCENARIOS
        .iter()
        .map(|&(kernel, attach)| Run {
            kernel,
            given: None,
            attach,
            words: words(kernel, attach),
            limit: LIMIT,
        })
        .collect();
    check_names(args, &runs)?;
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let mut runs: Vec<Run> = runs
        .into_iter()
        .filter(|run| !args.quick && (wanted(&run.name()) || wanted("vm")))
        .collect();

    let start = Instant::now();
    let mut steps = Vec::new();
    for (name, step) in PLAIN.iter().filter(|(name, _)| wanted(name)) {
        steps.push(timed(name, step));
        interrupts::stop_if_interrupted()?;
    }
    if !args.quick && wanted(INSTALL) {
        steps.push(timed(INSTALL, dist::installed));
        interrupts::stop_if_interrupted()?;
    }
    let cost = !args.quick && wanted(COST);
    let mut done = Vec::new();
    if !runs.is_empty() {
        let ready = timed("vm-build", || {
            suites::prepare(&runs, &[packages::VM, packages::SCENARIOS]).map(|()| Outcome::Passed)
        });
        let failed = matches!(ready.outcome, Outcome::Failed(_));
        steps.push(ready);
        if failed {
            runs.clear();
        }
    }
    // The cost is counted in instructions, which other VMs do not change.
    thread::scope(|scope| -> Result<()> {
        let cost = cost.then(|| scope.spawn(|| timed(COST, bench::guard)));
        done = suites::run_all(runs, suites::at_once(args.vms))?;
        if let Some(cost) = cost {
            steps.push(cost.join().map_err(|_| anyhow!("the thread of the step cost died"))?);
        }
        Ok(())
    })?;
    interrupts::stop_if_interrupted()?;
    suites::table(&done);
    if args.write_verified {
        verified::keep(&done)?;
    }
    let verified = (!done.is_empty()).then(|| timed("verified", || verified::check(&done)));
    steps.extend(done.into_iter().map(|done| done.step));
    steps.extend(verified);
    step_runner::table(&steps, start.elapsed());
    Ok(step_runner::close(&steps))
}

/// Further arguments for the guest's suite. What does not depend on how the kernel is probed runs
/// once, on 6.12: a start of dio-trace takes up to a minute under emulation.
fn words(kernel: &str, attach: &str) -> Vec<String> {
    let words: &[&str] = match (kernel, attach) {
        ("6.12", "fentry") => &["--scenarios", "all", "--deleted-files"],
        _ => &["--scenarios", "kernel"],
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn check_names(args: &TestArgs, runs: &[Run]) -> Result<()> {
    let names: Vec<String> = PLAIN
        .iter()
        .map(|(name, _)| (*name).to_owned())
        .chain([COST, INSTALL].map(str::to_owned))
        .chain(runs.iter().map(Run::name))
        .collect();
    for wanted in &args.only {
        if wanted != "vm" && !names.contains(wanted) {
            bail!(
                "no step is called `{wanted}`; there are {}, and vm for all VMs",
                names.join(", ")
            );
        }
    }
    Ok(())
}

fn cargo(words: &[&str]) -> Result<Outcome> {
    cmd::run(build::cargo()?.args(words))?;
    Ok(Outcome::Passed)
}

fn format() -> Result<Outcome> {
    cargo(&["fmt", "--all", "--check"])
}

fn lint() -> Result<Outcome> {
    fuzz::ensure_locked()?;
    cargo(&["clippy", "--locked", "--all-targets", "--", "-D", "warnings"])
}

fn unit() -> Result<Outcome> {
    cargo(&["test", "--locked"])
}

fn object() -> Result<Outcome> {
    Ok(match bpf::check()? {
        Checked::Same => Outcome::Passed,
        Checked::Unable(why) => Outcome::Skipped(format!(
            "THE COMMITTED OBJECT WAS NOT CHECKED AGAINST ITS SOURCE: {why}"
        )),
    })
}

fn page() -> Result<Outcome> {
    html::check().map(|_| Outcome::Passed)
}
