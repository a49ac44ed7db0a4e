//! `cargo xtask truth`: runs every scenario on each kernel of an architecture, prints a matrix of the
//! results and puts it into docs/truth.md.
mod columns;
mod page;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    host::{
        arch,
        cmd::{say, text},
        packages::{self, Need},
        paths,
        step_runner::{self, Outcome, timed},
    },
    tasks::suites::{self, Done, Run},
    vm::{interrupts, kernels},
};

/// A kernel, and how dio-trace attaches there.
struct Offered {
    kernel: &'static str,
    attach: &'static str,
    /// True if it runs only when it is asked for, by `--more` or by name.
    more: bool,
}

const fn offer(kernel: &'static str, attach: &'static str) -> Offered {
    Offered { kernel, attach, more: false }
}

const fn more(kernel: &'static str, attach: &'static str) -> Offered {
    Offered { kernel, attach, more: true }
}

/// The columns. The slowest kernels come first, so that two VMs in parallel finish at about the same
/// time. Of [`kernels::lacks_fentry`] there is none by fentry.
const RUNS: &[Offered] = &[
    offer("7.3", "fentry"),
    offer("7.3", "kprobe"),
    offer("5.10", "fentry"),
    offer("5.10", "kprobe"),
    offer("6.1", "fentry"),
    offer("6.1", "kprobe"),
    offer("6.12", "fentry"),
    offer("6.12", "kprobe"),
    offer("6.18", "fentry"),
    offer("6.18", "kprobe"),
    more("7.3-rt", "fentry"),
    more("7.3-rt", "kprobe"),
    more("6.12-rt", "fentry"),
    more("6.12-rt", "kprobe"),
    more("7.3-cloud", "fentry"),
    more("6.12-cloud", "fentry"),
    offer("7.3-arm64", "fentry"),
    offer("7.3-arm64", "kprobe"),
    offer("6.12-arm64", "fentry"),
    offer("6.12-arm64", "kprobe"),
    offer("6.1-arm64", "kprobe"),
    offer("6.12-arm64-16k", "fentry"),
    more("7.3-arm64-16k", "fentry"),
];

/// The order of the columns in the report: by kernel, with fentry before kprobe.
const ORDER: &[&str] = &[
    "5.10",
    "6.1",
    "6.12",
    "6.18",
    "7.3",
    "6.12-rt",
    "7.3-rt",
    "6.12-cloud",
    "7.3-cloud",
    "6.1-arm64",
    "6.12-arm64",
    "7.3-arm64",
    "6.12-arm64-16k",
    "7.3-arm64-16k",
];

/// How long one column may take. On a quiet machine with two CPUs the longest takes less than half
/// of it.
const LIMIT: Duration = Duration::from_secs(100 * 60);

const TOOLS: &[&[Need]] = &[packages::VM, packages::SCENARIOS, packages::RARE];

/// Run every scenario on each kernel, with fentry and with kprobes, and compare what dio-trace reports
/// with what the kernel was measured to do
///
/// Prints a matrix of fixtures and kernels. Without --setup it also puts these columns and their
/// mismatches into docs/truth.md; the other columns there stay.
#[derive(Args)]
pub(crate) struct TruthArgs {
    /// Only these kernels, by name: a series, or one such as 6.12-rt or 6.12-arm64-16k
    #[arg(long, value_name = "NAME")]
    kernel: Vec<String>,
    /// The kernels of this architecture: amd64, arm64 [default: this machine's]
    #[arg(long, conflicts_with = "kernel")]
    arch: Option<String>,
    /// Also the flavours that are left out to save time
    #[arg(long, conflicts_with = "kernel")]
    more: bool,
    /// A kernel image that is not Debian's, such as a release candidate; with --modules and --series
    ///
    /// Its results are printed, and not written to docs/truth.md.
    #[arg(long, value_name = "FILE", requires_all = ["modules", "series"])]
    #[arg(conflicts_with_all = ["kernel", "arch", "more"])]
    image: Option<PathBuf>,
    /// The modules of the image: a folder like /lib/modules/VERSION
    #[arg(long, value_name = "DIR", requires = "image")]
    modules: Option<PathBuf>,
    /// The series whose expectations the image is compared with
    #[arg(long, value_name = "SERIES", requires = "image")]
    series: Option<String>,
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
    let whole = args.setup.is_empty() && args.image.is_none();
    let kept: Vec<Done> =
        if args.resume { runs.iter().filter_map(suites::kept).collect() } else { Vec::new() };
    let runs =
        runs.into_iter().filter(|run| !kept.iter().any(|kept| kept.run.name() == run.name()));
    let mut done = suites::run_all(runs.collect(), suites::at_once(args.vms))?;
    interrupts::stop_if_interrupted()?;
    done.extend(kept);
    let new = columns::of(&done)?;
    println!("\n{}", page::matrices(&new));
    suites::table(&done);
    if whole {
        let columns = columns::merge(&new, &in_order())?;
        let path = paths::workspace()?.join(page::PAGE);
        fs::write(&path, page::page(&columns))
            .with_context(|| format!("cannot write {}", path.display()))?;
        say(format!("{} is written", page::PAGE));
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
    if let Some(image) = &args.image {
        return given(args, image, &words);
    }
    let mut known: Vec<&str> = RUNS.iter().map(|run| run.kernel).collect();
    known.dedup();
    if let Some(unknown) = args.kernel.iter().find(|kernel| !known.contains(&kernel.as_str())) {
        bail!("there are no scenarios for kernel {unknown}; there are for {}", known.join(", "));
    }
    let arch = args.arch.as_deref().map_or_else(arch::host, arch::find)?;
    let wanted = |run: &&Offered| -> bool {
        let kernel = match &args.kernel[..] {
            [] => {
                kernels::arch_of(run.kernel).is_some_and(|of| of.name == arch.name)
                    && (args.more || !run.more)
            }
            names => names.iter().any(|name| name == run.kernel),
        };
        kernel && args.attach.as_deref().is_none_or(|only| only == run.attach)
    };
    let runs: Vec<Run> =
        RUNS.iter().filter(wanted).map(|offered| run_of(offered, words.clone())).collect();
    if runs.is_empty() {
        bail!("nothing is left to run: --attach is fentry or kprobe");
    }
    Ok(runs)
}

/// The runs of a kernel image.
fn given(args: &TruthArgs, image: &Path, words: &[String]) -> Result<Vec<Run>> {
    let mut kernel = kernels::find(text(image)?, args.modules.as_deref())?;
    kernel.series = args.series.clone().unwrap_or_default();
    if !kernels::SERIES.contains(&kernel.series.as_str()) {
        bail!("--series is one of {}", kernels::SERIES.join(", "));
    }
    let run = |attach| Run {
        kernel: "custom",
        given: Some(kernel.clone()),
        attach,
        words: words.to_vec(),
        limit: LIMIT,
    };
    let wanted = |attach: &&str| args.attach.as_deref().is_none_or(|only| only == *attach);
    Ok(["fentry", "kprobe"].into_iter().filter(wanted).map(run).collect())
}

fn run_of(offered: &Offered, words: Vec<String>) -> Run {
    Run { kernel: offered.kernel, given: None, attach: offered.attach, words, limit: LIMIT }
}

/// All columns, in the order of the report.
fn in_order() -> Vec<Run> {
    let mut runs: Vec<Run> = RUNS.iter().map(|offered| run_of(offered, Vec::new())).collect();
    runs.sort_by_key(|run| (ORDER.iter().position(|name| *name == run.kernel), run.attach));
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_is_known_and_has_its_place() {
        for offered in RUNS {
            assert!(kernels::arch_of(offered.kernel).is_some(), "{}", offered.kernel);
            assert!(ORDER.contains(&offered.kernel), "{}", offered.kernel);
            assert!(offered.attach == "kprobe" || !kernels::lacks_fentry(offered.kernel));
        }
    }
}
