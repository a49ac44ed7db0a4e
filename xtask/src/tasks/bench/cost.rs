//! What a request costs, in the guest's instructions.
use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    guest::bench::tracers::TRACERS,
    host::{cmd::say, packages, paths, step_runner::Outcome},
    tasks::bench::{costs::Costs, page},
    vm::{guest_part::Part, kernels},
};

/// What a request costs, in instructions, with no tracer, with dio-trace and with its peers
///
/// QEMU runs one instruction a nanosecond of the guest's clock, so the figures are the same at
/// every run, or nearly.
#[derive(Args, Clone)]
pub(crate) struct CostArgs {
    /// The kernel series to boot
    #[arg(long, default_value = SERIES)]
    kernel: String,
    /// These tracers alone, by the names of the table
    #[arg(long)]
    tracer: Vec<String>,
    /// Write docs/performance.md, and the figures that the test holds dio-trace to
    #[arg(long, conflicts_with_all = ["tracer", "kernel"])]
    write: bool,
}

/// The kernel whose figures are kept.
const SERIES: &str = "6.12";
/// A limit on one run.
const LIMIT: Duration = Duration::from_secs(60 * 60);
/// A cost may grow by so much until the test fails.
const TOLERANCE: f64 = 0.05;
/// Tracers that the test measures.
const GUARDED: &[&str] = &["dio-trace", "dio-trace-kprobe"];

pub(crate) fn main(args: &CostArgs) -> Result<()> {
    packages::ensure(&[packages::VM, packages::SCENARIOS, packages::PEERS])?;
    let costs = measure(&args.kernel, &args.tracer)?;
    println!("\n{}", page::table(&costs));
    println!("{}", page::programs(&costs));
    if args.write {
        let workspace = paths::workspace()?;
        fs::write(workspace.join("docs/performance.md"), page::whole(&costs))
            .context("cannot write docs/performance.md")?;
        fs::write(workspace.join(KEPT), kept(&costs)).context("cannot keep the figures")?;
    }
    Ok(())
}

/// Boots the kernel and measures these tracers; none: all.
fn measure(series: &str, tracers: &[String]) -> Result<Costs> {
    let kernel = kernels::find(series, None)?;
    let words = tracers.iter().flat_map(|tracer| ["--tracer".to_owned(), tracer.clone()]);
    let part = Part { name: "bench", words: words.collect(), kernel: &kernel, limit: LIMIT };
    let rows = part.rows(|machine| machine.icount = true)?;
    Ok(Costs { kernel: kernel.version, rows })
}

/// The figures that the test holds dio-trace to: tracer, kind, instructions added.
const KEPT: &str = "xtask/bench/cost.tsv";

fn kept(costs: &Costs) -> String {
    let mut text = format!("# Linux {}; written by `cargo xtask bench --write`\n", costs.kernel);
    for tracer in GUARDED {
        for (kind, _) in
            costs.rows.iter().filter(|row| row.tracer == *tracer).flat_map(|row| &row.costs)
        {
            if let Some((added, _)) = costs.added(tracer, kind) {
                text.push_str(&format!("{tracer}\t{kind}\t{added:.0}\n"));
            }
        }
    }
    text
}

/// Fails where dio-trace's cost has grown over the figures that are kept.
pub(crate) fn guard() -> Result<Outcome> {
    packages::ensure(&[packages::VM, packages::SCENARIOS])?;
    let text = fs::read_to_string(paths::workspace()?.join(KEPT)).context(KEPT)?;
    let limits = parse(&text)?;
    let wanted: Vec<String> =
        [TRACERS[0].id()].into_iter().chain(GUARDED.iter().map(|&name| name.to_owned())).collect();
    let costs = measure(SERIES, &wanted)?;
    let complaints =
        compare(&limits, |tracer, kind| costs.added(tracer, kind).map(|added| added.0));
    complaints.iter().for_each(say);
    Ok(match complaints.first() {
        None => Outcome::Passed,
        Some(first) => Outcome::Failed(first.clone()),
    })
}

type Limits<'a> = BTreeMap<(&'a str, &'a str), f64>;

fn parse(text: &str) -> Result<Limits<'_>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let limits: Limits<'_> = lines
        .map(|line| match line.split('\t').collect::<Vec<_>>()[..] {
            [tracer, kind, added] => Ok(((tracer, kind), added.parse().context("a figure")?)),
            _ => bail!("{KEPT}: no line of three words: {line}"),
        })
        .collect::<Result<_>>()?;
    if limits.is_empty() {
        bail!("{KEPT} holds nothing");
    }
    Ok(limits)
}

/// Every figure that is kept must have been measured again, and not have grown.
fn compare(limits: &Limits<'_>, now: impl Fn(&str, &str) -> Option<f64>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (&(tracer, kind), &limit) in limits {
        match now(tracer, kind) {
            Some(now) if now <= limit * (1.0 + TOLERANCE) => {}
            Some(now) => complaints.push(format!(
                "{tracer}, {kind}: {now:+.0} instructions, {limit:+.0} before; \
                 if it must be: cargo xtask bench --write"
            )),
            None => complaints.push(format!("{tracer}, {kind}: not measured")),
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_that_grows_is_found() {
        let limits = parse("# Linux 6\ndio-trace\tdirect-read\t1000\n").expect("three words");
        let complaints = |now| compare(&limits, |_, _| now).len();
        assert_eq!(complaints(Some(1049.0)), 0);
        assert_eq!(complaints(Some(500.0)), 0);
        assert_eq!(complaints(Some(1051.0)), 1);
        assert_eq!(complaints(None), 1);
    }

    #[test]
    fn figures_that_are_none_are_refused() {
        for bad in ["", "# nothing\n", "a\tb\n", "a\tb\tc\n"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
