//! `cargo xtask truth`: runs every scenario on every kernel, prints a matrix of the results and
//! writes docs/truth.md.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    guest::contract::suite::Suite,
    host::{
        cmd::say,
        packages::{self, Need},
        paths,
        step_runner::{self, Outcome, timed},
    },
    tasks::suites::{self, Done, Run},
    vm::interrupts,
};

/// Kernel series and how dio-trace attaches there. The slowest come first, so that two VMs in
/// parallel finish at about the same time.
const RUNS: &[(&str, &str)] = &[
    ("7.3", "fentry"),
    ("7.3", "kprobe"),
    ("5.10", "fentry"),
    ("5.10", "kprobe"),
    ("6.1", "fentry"),
    ("6.1", "kprobe"),
    ("6.12", "fentry"),
    ("6.12", "kprobe"),
    ("6.18", "fentry"),
    ("6.18", "kprobe"),
];

/// How long one column may take. On a quiet machine with two CPUs the longest takes less than half
/// of it.
const LIMIT: Duration = Duration::from_secs(100 * 60);

const TOOLS: &[&[Need]] = &[packages::VM, packages::SCENARIOS, packages::RARE];

/// Run every scenario on every kernel, with fentry and with kprobes, and compare what dio-trace
/// reports with what the kernel was measured to do
///
/// Prints a matrix of fixtures and kernels. Without --setup it also writes the matrix and the
/// mismatches to docs/truth.md.
#[derive(Args)]
pub(crate) struct TruthArgs {
    /// Only these kernel series
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<String>,
    /// Only fentry or only kprobe
    #[arg(long, value_name = "HOW")]
    attach: Option<String>,
    /// Only these fixtures (file system, device and mount options), such as xfs-512
    #[arg(long, value_name = "NAME")]
    setup: Vec<String>,
    /// Reuse the results of runs that passed with this same dio-trace binary, and run the rest
    #[arg(long)]
    resume: bool,
    /// Number of VMs in parallel [default: 2, or 1 with a single CPU]
    #[arg(long, value_name = "N")]
    vms: Option<usize>,
}

pub(crate) fn main(args: &TruthArgs) -> Result<u8> {
    interrupts::catch_interrupts();
    let start = Instant::now();
    let runs = chosen(args)?;
    let ready = timed("vm-build", || suites::prepare(&runs, TOOLS).map(|()| Outcome::Passed));
    if let Outcome::Failed(why) = ready.outcome {
        bail!("{why}");
    }
    let whole = args.setup.is_empty();
    let kept: Vec<Done> =
        if args.resume { runs.iter().filter_map(suites::kept).collect() } else { Vec::new() };
    let runs = runs.into_iter().filter(|run| !kept.iter().any(|k| column(&k.run) == column(run)));
    let mut done = suites::run_all(runs.collect(), suites::at_once(args.vms))?;
    interrupts::stop_if_interrupted()?;
    done.extend(kept);
    println!("\n{}", matrix(&done));
    suites::table(&done);
    if whole {
        let path = paths::workspace()?.join("docs/truth.md");
        fs::write(&path, page(&done))
            .with_context(|| format!("cannot write {}", path.display()))?;
        say("docs/truth.md is written");
    }
    let steps: Vec<_> = done.into_iter().map(|done| done.step).collect();
    step_runner::table(&steps, start.elapsed());
    Ok(step_runner::close(&steps))
}

fn chosen(args: &TruthArgs) -> Result<Vec<Run>> {
    let words = if args.setup.is_empty() {
        ["--all-setups", "--scenarios", "all"].map(str::to_owned).to_vec()
    } else {
        args.setup.iter().flat_map(|name| ["--setup".to_owned(), name.clone()]).collect()
    };
    let known: BTreeSet<&str> = RUNS.iter().map(|(kernel, _)| *kernel).collect();
    if let Some(unknown) = args.kernel.iter().find(|kernel| !known.contains(kernel.as_str())) {
        let known: Vec<&str> = known.into_iter().collect();
        bail!("there are no scenarios for kernel {unknown}; there are for {}", known.join(", "));
    }
    let wanted = |kernel: &str, attach: &str| {
        (args.kernel.is_empty() || args.kernel.iter().any(|only| only == kernel))
            && args.attach.as_deref().is_none_or(|only| only == attach)
    };
    let runs: Vec<Run> = RUNS
        .iter()
        .filter(|(kernel, attach)| wanted(kernel, attach))
        .map(|&(kernel, attach)| Run { kernel, attach, words: words.clone(), limit: LIMIT })
        .collect();
    if runs.is_empty() {
        bail!("nothing is left to run: --attach is fentry or kprobe");
    }
    Ok(runs)
}

/// The number of cells (checked requests) of a fixture in one column: those that agree, and all.
#[derive(Clone, Copy, Default)]
struct Count {
    agree: u64,
    cells: u64,
}

/// Counts by fixture, then by column (`6.12 fentry`).
type Counts = BTreeMap<String, BTreeMap<String, Count>>;

fn counts(done: &[Done]) -> Counts {
    let mut counts = Counts::new();
    for done in done {
        for scored in done.suite.iter().flat_map(|suite| &suite.setups) {
            if scored.cells == 0 {
                continue; // the totals of a run, which are not a fixture
            }
            let row = counts.entry(scored.name.clone()).or_default();
            let count = row.entry(column(&done.run)).or_default();
            count.cells += scored.cells;
            count.agree += scored.cells.saturating_sub(scored.wrong + scored.missed + scored.extra);
        }
    }
    counts
}

fn column(run: &Run) -> String {
    format!("{} {}", run.kernel, run.attach)
}

/// The columns, ordered by kernel, with fentry before kprobe.
fn columns(done: &[Done]) -> Vec<String> {
    const ORDER: &[&str] = &["5.10", "6.1", "6.12", "6.18", "7.3"];
    let place = |run: &Run| (ORDER.iter().position(|k| *k == run.kernel), run.attach);
    let mut runs: Vec<&Run> = done.iter().map(|done| &done.run).collect();
    runs.sort_by_key(|run| place(run));
    runs.into_iter().map(column).collect()
}

/// The text of one cell of the matrix: `8` if all 8 agree, `7/8` if 7 do, `-` if not measured.
fn word(count: Option<&Count>) -> String {
    match count {
        None => "-".to_owned(),
        Some(count) if count.agree == count.cells => count.cells.to_string(),
        Some(count) => format!("{}/{}", count.agree, count.cells),
    }
}

/// The matrix as a Markdown table, aligned so that it is readable on a terminal too.
fn matrix(done: &[Done]) -> String {
    let (counts, columns) = (counts(done), columns(done));
    let width = counts.keys().map(String::len).max().unwrap_or(0).max(7);
    let mut text = format!("| {:<width$} |", "set-up");
    for column in &columns {
        let _ = write!(text, " {column:>11} |");
    }
    let _ = write!(text, "\n|-{:-<width$}-|", "");
    for _ in &columns {
        text.push_str("------------:|");
    }
    text.push('\n');
    for (setup, row) in &counts {
        let _ = write!(text, "| {setup:<width$} |");
        for column in &columns {
            let _ = write!(text, " {:>11} |", word(row.get(column)));
        }
        text.push('\n');
    }
    text
}

/// The text of docs/truth.md.
fn page(done: &[Done]) -> String {
    let sum = |part: fn(&Suite) -> u64| -> u64 {
        done.iter().filter_map(|done| done.suite.as_ref()).map(part).sum()
    };
    let mut text = format!(
        "# Truth report\n\n\
         Written by `cargo xtask truth`. Each cell is a system call made on a real kernel in a \
         virtual machine: dio-trace's verdict, outcome, count, errno, bytes by path, file, process, \
         cause and side effects against what that kernel was measured to do without eBPF, the \
         program's own tally, mincore(2) and /proc/self/io. Every cell is made twice, under \
         `attach -p --all` and under `run`, and counts twice.\n\n\
         {} cells: {} wrong, {} missed, {} extra.\n\n\
         A column is a kernel series and how dio-trace was attached there; the last run of the \
         command had these. A number says that so many cells were checked and all agree, `a/b` that a of b agree, `-` \
         that the set-up cannot be made or was not measured there. Beside the set-ups each run \
         compares dio-trace's totals and losses with the program's.\n\n",
        sum(|suite| suite.cells),
        sum(|suite| suite.wrong),
        sum(|suite| suite.missed),
        sum(|suite| suite.extra),
    );
    text.push_str(&matrix(done));
    text.push_str("\n## Disagreements\n\n");
    let disagreements = suites::complaints(done, column);
    for line in &disagreements {
        let _ = writeln!(text, "- {line}");
    }
    if disagreements.is_empty() {
        text.push_str("None.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::contract::suite::Score;

    fn done(kernel: &'static str, wrong: u64) -> Done {
        let scored = |name: &str, cells, wrong| Score {
            name: name.to_owned(),
            cells,
            wrong,
            missed: 0,
            extra: 0,
        };
        let suite = Suite {
            cells: 8,
            wrong,
            setups: vec![scored("ext4", 4, wrong), scored("ext4", 4, 0), scored("totals", 0, 0)],
            complaints: (0..wrong).map(|n| format!("complaint {n}")).collect(),
            ..Suite::default()
        };
        Done {
            run: Run { kernel, attach: "fentry", words: Vec::new(), limit: LIMIT },
            step: timed("x", || Ok(Outcome::Passed)),
            suite: Some(suite),
        }
    }

    #[test]
    fn the_page_lists_disagreements() {
        let page = page(&[done("6.12", 1), done("6.1", 0)]);
        assert!(page.contains("16 cells: 1 wrong, 0 missed, 0 extra"), "{page}");
        assert!(page.contains("| ext4    |           8 |         7/8 |"), "{page}");
        assert!(page.contains("- 6.12 fentry: complaint 0"), "{page}");
        assert!(!page.contains("totals |"));
    }
}
