//! `cargo xtask bench`: measures the cost of a request in instructions of the guest.
use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    guest::bench::tracers::TRACERS,
    host::{cmd::say, packages, paths, step_runner::Outcome},
    tasks::bench::{costs::Costs, page},
    vm::{guest_part::Part, kernels},
};

/// Measure the cost of a request in instructions, without a tracer, with dio-trace and with other
/// tracers
///
/// QEMU runs one instruction per nanosecond of the guest's clock, so the figures hardly differ
/// between runs.
#[derive(Args, Clone)]
pub(crate) struct CostArgs {
    /// The kernel series to boot
    #[arg(long, default_value = SERIES)]
    kernel: String,
    /// Only these tracers, by their names in the table
    #[arg(long)]
    tracer: Vec<String>,
    /// Write docs/performance.md, and xtask/bench/cost.tsv with the limits of the test's step
    /// `cost`
    #[arg(long, conflicts_with_all = ["tracer", "kernel"])]
    write: bool,
}

/// The kernel series whose figures are in [`KEPT`].
const SERIES: &str = "6.12";
/// The longest time that one run may take.
const LIMIT: Duration = Duration::from_secs(60 * 60);
/// The fraction by which a cost may grow before the test fails.
const TOLERANCE: f64 = 0.05;
/// The tracers that the test measures.
const GUARDED: &[&str] = &["dio-trace", "dio-trace-kprobe"];

pub(crate) fn main(args: &CostArgs) -> Result<()> {
    packages::ensure(&[packages::VM, packages::SCENARIOS, packages::PEERS])?;
    let costs = measure(&args.kernel, &args.tracer)?;
    println!("\n{}", page::table(&costs));
    println!("\nWith the tracer's own process:\n\n{}", page::means(&costs));
    println!("{}", page::programs(&costs));
    if args.write {
        let workspace = paths::workspace()?;
        fs::write(workspace.join("docs/performance.md"), page::whole(&costs))
            .context("cannot write docs/performance.md")?;
        fs::write(workspace.join(KEPT), kept(&costs)).context("cannot write the figures")?;
    }
    Ok(())
}

/// Boots the kernel and measures these tracers, or all if the slice is empty.
fn measure(series: &str, tracers: &[String]) -> Result<Costs> {
    let kernel = kernels::find(series, None)?;
    let words = tracers.iter().flat_map(|tracer| ["--tracer".to_owned(), tracer.clone()]);
    let part = Part { name: "bench", words: words.collect(), kernel: &kernel, limit: LIMIT };
    let rows = part.rows(|machine| machine.icount = true)?;
    Ok(Costs { kernel: kernel.version, rows })
}

/// The file of the figures that the test compares with. The fields are tracer, kind of request and
/// added instructions.
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

/// Measures dio-trace again. The outcome is `Failed` if a cost has grown by more than [`TOLERANCE`]
/// over the figures in [`KEPT`].
pub(crate) fn guard() -> Result<Outcome> {
    packages::ensure(&[packages::VM, packages::SCENARIOS])?;
    let text = fs::read_to_string(paths::workspace()?.join(KEPT)).context(KEPT)?;
    let limits = parse(&text)?;
    let wanted: Vec<String> =
        [TRACERS[0].id()].into_iter().chain(GUARDED.iter().map(|&name| name.to_owned())).collect();
    let costs = measure(SERIES, &wanted)?;
    let grown = compare(&limits, |tracer, kind| costs.added(tracer, kind).map(|added| added.0));
    grown.iter().for_each(say);
    Ok(match grown.first() {
        None => Outcome::Passed,
        Some(first) => Outcome::Failed(first.clone()),
    })
}

/// Added instructions by tracer and kind of request.
type Limits<'a> = BTreeMap<(&'a str, &'a str), f64>;

fn parse(text: &str) -> Result<Limits<'_>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let limits: Limits<'_> = lines
        .map(|line| match line.split('\t').collect::<Vec<_>>()[..] {
            [tracer, kind, added] => Ok(((tracer, kind), added.parse().context("a figure")?)),
            _ => bail!("{KEPT}: a line does not have three fields: {line}"),
        })
        .collect::<Result<_>>()?;
    if limits.is_empty() {
        bail!("{KEPT} has no figures");
    }
    Ok(limits)
}

/// Returns a message for each figure that was not measured again or has grown by more than
/// [`TOLERANCE`].
fn compare(limits: &Limits<'_>, now: impl Fn(&str, &str) -> Option<f64>) -> Vec<String> {
    let mut grown = Vec::new();
    for (&(tracer, kind), &limit) in limits {
        match now(tracer, kind) {
            Some(now) if now <= limit * (1.0 + TOLERANCE) => {}
            Some(now) => grown.push(format!(
                "{tracer}, {kind}: {now:+.0} instructions, {limit:+.0} before; \
                 if the growth is justified: cargo xtask bench --write"
            )),
            None => grown.push(format!("{tracer}, {kind}: not measured")),
        }
    }
    grown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_that_grows_is_found() {
        let limits = parse("# Linux 6\ndio-trace\tdirect-read\t1000\n").expect("three words");
        let grown = |now| compare(&limits, |_, _| now).len();
        assert_eq!(grown(Some(1049.0)), 0);
        assert_eq!(grown(Some(500.0)), 0);
        assert_eq!(grown(Some(1051.0)), 1);
        assert_eq!(grown(None), 1);
    }

    #[test]
    fn invalid_figures_are_rejected() {
        for bad in ["", "# nothing\n", "a\tb\n", "a\tb\tc\n"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
