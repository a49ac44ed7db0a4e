//! Prometheus: the rules with their tests, and a server in a VM that scrapes dio-trace there.
use std::{collections::BTreeSet, fs, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::Compared;
use crate::{
    guest::contract::prometheus::Scraped,
    host::{
        cmd::{self, text},
        packages, paths, prometheus,
        step_runner::Outcome,
    },
    vm::{guest_part::Part, kernels},
};

/// The longest time that the VM may take: attaching, and the start of a server under emulation.
const LIMIT: Duration = Duration::from_secs(15 * 60);
const KERNEL: &str = "6.12";

/// Runs the unit tests of the rules, and reads the dashboard.
pub(super) fn rules() -> Result<Outcome> {
    let promtool = prometheus::folder()?.join("promtool");
    let folder = paths::workspace()?.join("packaging/prometheus");
    for words in
        [["check", "rules", "dio-trace.rules.yml"], ["test", "rules", "dio-trace.rules.test.yml"]]
    {
        cmd::output(Command::new(&promtool).args(words).current_dir(&folder))?;
    }
    let expressions = dashboard()?;
    ensure!(expressions.len() > 10, "the dashboard has {} expressions", expressions.len());
    Ok(Outcome::Passed)
}

/// The expressions of the dashboard, with values in place of Grafana's variables.
fn dashboard() -> Result<Vec<String>> {
    let path = paths::workspace()?.join("packaging/grafana/dio-trace.json");
    let text = fs::read_to_string(&path).context("cannot read the dashboard")?;
    let dashboard: Value = serde_json::from_str(&text).context("the dashboard is not JSON")?;
    let panels = dashboard["panels"].as_array().context("the dashboard has no panels")?;
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    ensure!(ids.len() == panels.len(), "two panels have the same id");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions: Vec<String> = targets
        .filter_map(|target| target["expr"].as_str())
        .map(|expression| {
            [("$__rate_interval", "1m"), ("$__range", "1m"), ("$instance", ".*"), ("$comm", ".*")]
                .iter()
                .fold(expression.to_owned(), |text, (name, value)| text.replace(name, value))
        })
        .collect();
    for expression in &expressions {
        ensure!(!expression.contains('$'), "an unknown variable: {expression}");
    }
    Ok(expressions)
}

/// Scrapes dio-trace in a VM, and compares what Prometheus has with dio-trace's summary.
pub(super) fn scraped() -> Result<Vec<Compared>> {
    packages::ensure(&[packages::VM, packages::SCENARIOS])?;
    let programs = prometheus::folder()?;
    let expressions = paths::target()?.join("dashboard-expressions.json");
    fs::write(&expressions, serde_json::to_string(&dashboard()?)?)?;
    let kernel = kernels::find(KERNEL, None)?;
    let words = [
        ("--programs", text(&programs)?),
        ("--rules", text(&paths::workspace()?.join("packaging/prometheus"))?),
        ("--expressions", text(&expressions)?),
    ]
    .iter()
    .flat_map(|(option, value)| [(*option).to_owned(), (*value).to_owned()])
    .collect();
    let part = Part { name: "prometheus", words, kernel: &kernel, limit: LIMIT };
    let rows: Vec<Scraped> = part.rows(|machine| machine.memory = "4G".to_owned())?;
    let row = rows.into_iter().next().context("the guest wrote no row")?;
    ensure!(row.prometheus == row.summary, "Prometheus has other totals: {row:?}");
    let Scraped { prometheus: totals, seconds, .. } = row;
    Ok(vec![Compared {
        engine: "Prometheus".to_owned(),
        of: format!("a VM with Linux {KERNEL}"),
        requests: totals.requests.values().sum(),
        direct_bytes: totals.direct_bytes,
        cached_bytes: totals.cached_bytes,
        findings: totals.findings,
        seconds,
    }])
}
