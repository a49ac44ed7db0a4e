//! The list of the scenarios that are not made of cells, and the fixtures that they run on.
use std::path::Path;

use anyhow::Result;

use crate::{
    guest::{
        check::Judge,
        fixtures::{self, ROOT},
        harness::{Tried, end},
        scenarios::{
            Check, family, filters, gate, innocents, live,
            mixed::{self, DirectUser},
            named, recordings, released, reports, rings, shorts, stacks, unprivileged,
        },
        suite::run::Run,
    },
    host::cmd::say,
};

/// A scenario of the suite that is not made of cells.
pub(super) struct Scenario {
    /// The name in the progress lines.
    shown: &'static str,
    /// The name in the result.
    name: &'static str,
    /// The number of runs of dio-trace.
    runs: u64,
    check: Check,
}

/// Scenarios that need a folder where reads are direct, and one where O_DIRECT reads go through the
/// page cache.
pub(super) const WITH_JOURNAL: &[Scenario] = &[
    Scenario { shown: "run --fail-on", name: "fail-on", runs: gate::RUNS, check: gate::check },
    Scenario { shown: "top", name: "top", runs: live::RUNS, check: live::check },
    Scenario {
        shown: "io_uring's rarer features",
        name: "rings",
        runs: rings::RUNS,
        check: rings::check,
    },
    Scenario {
        shown: "no false mixed access",
        name: "innocents",
        runs: innocents::RUNS,
        check: innocents::check,
    },
    Scenario { shown: "run --stack", name: "stack", runs: stacks::RUNS, check: stacks::check },
];

/// Scenarios that need only a folder where reads are direct.
pub(super) const PLAIN: &[Scenario] = &[
    Scenario {
        shown: "descendants at attach",
        name: "family",
        runs: family::RUNS,
        check: family::check,
    },
    Scenario { shown: "filters", name: "filters", runs: filters::RUNS, check: filters::check },
    Scenario { shown: "recording", name: "recording", runs: 1, check: recordings::check },
    Scenario {
        shown: "ordinary user",
        name: "ordinary-user",
        runs: unprivileged::RUNS,
        check: unprivileged::check,
    },
];

/// Scenarios that depend on /proc and user space rather than on how the kernel is probed.
pub(super) const NAMES: &[Scenario] =
    &[Scenario { shown: "names", name: "names", runs: named::RUNS, check: named::check }];

/// Causes and fixes that public reports taught.
pub(super) const REPORTS: &[Scenario] = &[Scenario {
    shown: "public reports",
    name: "reports",
    runs: reports::RUNS,
    check: reports::check,
}];

/// Scenarios that take their fixtures apart.
pub(super) const LET_GO: &[Scenario] = &[Scenario {
    shown: "release of what was traced",
    name: "released",
    runs: released::RUNS,
    check: released::check,
}];

/// Runs scenarios on these fixtures.
pub(super) fn run(
    tried: &Tried,
    out: &Path,
    scenarios: &[Scenario],
    setups: &[&str],
    judge: &mut Judge,
) -> Result<()> {
    let places = fixtures::make_bare(setups)?;
    for Scenario { shown, name, runs, check } in scenarios {
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
