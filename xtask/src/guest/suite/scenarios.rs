//! The list of the scenarios that are not made of cells, and the fixtures that they run on.
use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

use crate::{
    guest::{
        check::Judge,
        fixtures::{self, ROOT},
        harness::{Tried, end},
        scenarios::{
            Check, blind, compat, family, filters, gate, innocents, live,
            mixed::{self, DirectUser},
            named, page_cache, recordings, released, reports, rings, shorts, stacks, unasked,
            unprivileged,
        },
        suite::run::Run,
    },
    host::cmd::say,
};

/// Which scenarios a suite runs; each of these includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Scope {
    /// What depends on how the kernel is probed.
    Kernel,
    /// Also the commands of dio-trace.
    Commands,
    /// Also what takes long, or what one kernel is enough for.
    All,
}

/// A scenario of the suite that is not made of cells.
pub(super) struct Scenario {
    scope: Scope,
    /// The name in the progress lines.
    shown: &'static str,
    /// The name in the result.
    name: &'static str,
    /// The number of runs of dio-trace.
    runs: u64,
    check: Check,
}

const fn scenario(
    scope: Scope,
    name: &'static str,
    shown: &'static str,
    runs: u64,
    check: Check,
) -> Scenario {
    Scenario { scope, shown, name, runs, check }
}

/// Scenarios that need a folder where reads are direct, and one where O_DIRECT reads go through the
/// page cache.
pub(super) const WITH_JOURNAL: &[Scenario] = &[
    scenario(Scope::Commands, "fail-on", "run --fail-on", gate::RUNS, gate::check),
    scenario(Scope::Commands, "top", "top", live::RUNS, live::check),
    scenario(Scope::Kernel, "rings", "io_uring's rarer features", rings::RUNS, rings::check),
    scenario(
        Scope::Kernel,
        "innocents",
        "no false mixed access",
        innocents::RUNS,
        innocents::check,
    ),
    scenario(Scope::Commands, "stack", "run --stack", stacks::RUNS, stacks::check),
];

/// Scenarios that need 32-bit system calls, which only x86-64 has for 64-bit programs.
pub(super) const COMPAT: &[Scenario] = if cfg!(target_arch = "x86_64") {
    &[scenario(Scope::Kernel, "compat", "32-bit programs", compat::RUNS, compat::check)]
} else {
    &[]
};

/// Scenarios that need only a folder where reads are direct.
pub(super) const PLAIN: &[Scenario] = &[
    scenario(Scope::Kernel, "family", "descendants at attach", family::RUNS, family::check),
    scenario(Scope::Kernel, "unasked", "--expect-direct", unasked::RUNS, unasked::check),
    scenario(Scope::Kernel, "page-cache", "cache", page_cache::RUNS, page_cache::check),
    scenario(Scope::Commands, "filters", "filters", filters::RUNS, filters::check),
    scenario(Scope::Commands, "recording", "recording", 1, recordings::check),
    scenario(Scope::Commands, "blind", "a blind tracer", blind::RUNS, blind::check),
    scenario(
        Scope::Commands,
        "ordinary-user",
        "ordinary user",
        unprivileged::RUNS,
        unprivileged::check,
    ),
    scenario(Scope::All, "names", "names", named::RUNS, named::check),
];

/// Causes and fixes that public reports taught.
pub(super) const REPORTS: &[Scenario] =
    &[scenario(Scope::All, "reports", "public reports", reports::RUNS, reports::check)];

/// Scenarios that take their fixtures apart.
pub(super) const LET_GO: &[Scenario] = &[scenario(
    Scope::All,
    "released",
    "release of what was traced",
    released::RUNS,
    released::check,
)];

/// Runs those of the scenarios that are in scope on these fixtures.
pub(super) fn run(
    tried: &Tried,
    out: &Path,
    scope: Scope,
    scenarios: &[Scenario],
    setups: &[&str],
    judge: &mut Judge,
) -> Result<()> {
    let wanted: Vec<_> = scenarios.iter().filter(|scenario| scenario.scope <= scope).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let places = fixtures::make_bare(setups)?;
    for Scenario { shown, name, runs, check, .. } in wanted {
        let wrong = check(tried, &places, out);
        let wrong = wrong.unwrap_or_else(|error| vec![format!("{error:#}")]);
        say(format!("{shown}: {}", if wrong.is_empty() { "right" } else { "NOT RIGHT" }));
        judge.verdict(name, *runs, wrong);
    }
    fixtures::clear(Path::new(ROOT))
}

/// Checks the causes of short reads.
pub(super) fn short_counts(tried: &Tried, out: &Path, judge: &mut Judge) -> Result<()> {
    let (reads, wrong) = shorts::check(&tried.tool, &tried.attach, out)?;
    let word = if wrong.is_empty() { "right" } else { "NOT RIGHT" };
    say(format!("short counts: {reads} reads, {word}"));
    judge.verdict("short-counts", reads as u64, wrong);
    Ok(())
}

/// Checks the report of mixed access: one process uses a file directly, another one through the
/// page cache.
pub(super) fn mixed_access(tried: &Tried, out: &Path, judge: &mut Judge) -> Result<()> {
    let root = Path::new(ROOT);
    let places = fixtures::make(vec![(fixtures::find("ext4-512")?, Vec::new())], root)?;
    let run = Run { tried, out, number: 0, places: &places };
    let traces = run.traces("mixed");
    let user = DirectUser::start(&places[0].0.path)?;
    let tool = run.attach(user.pid(), &[], &traces)?;
    let wanted = user.mix()?;
    end(tool, &traces)?;
    let wrong = mixed::judge(&traces.report()?, &wanted);
    say(format!("mixed access: {}", if wrong.is_empty() { "right" } else { "NOT RIGHT" }));
    judge.verdict("mixed", 1, wrong);
    fixtures::clear(root)
}
