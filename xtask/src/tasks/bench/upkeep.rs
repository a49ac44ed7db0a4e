//! `cargo xtask bench upkeep`: measures dio-trace itself: its start-up, its CPU time while nothing
//! happens, and its memory over many requests of many files.
use std::{fs, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    guest::contract::bench::{Long, Rest},
    host::{
        build,
        cmd::{self, say},
        packages, paths,
    },
    vm::{
        guest_part::Part,
        kernels::{self, Kernel},
    },
};

/// Measure start-up, CPU time at rest, and memory over millions of requests of 100,000 files
#[derive(Args)]
pub(super) struct UpkeepArgs {
    /// The kernel series to boot
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// How often each file is read
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(10..))]
    rounds: u64,
    /// Write docs/performance-upkeep.md
    #[arg(long)]
    write: bool,
}

/// The longest time that each run may take.
const LIMIT: Duration = Duration::from_secs(60 * 60);
/// The most CPU seconds per second while nothing happens.
const RESTING: f64 = 0.002;
/// The largest allowed ratio of peak memory to memory after a tenth of the requests.
const FLAT: f64 = 1.25;

pub(super) fn main(args: &UpkeepArgs) -> Result<()> {
    packages::ensure(&[packages::VM, packages::SCENARIOS])?;
    let kernel = kernels::find(&args.kernel, None)?;
    let rests: Vec<Rest> = part(&kernel, None).rows(|machine| machine.icount = true)?;
    let longs: Vec<Long> =
        part(&kernel, Some(args.rounds)).rows(|machine| machine.memory = "4G".to_owned())?;
    let pumped = pumped()?;
    let tables = [rests_table(&rests), longs_table(&longs), pumped_table(&pumped)].join("\n");
    println!("\n{tables}");
    if args.write {
        let file = paths::workspace()?.join("docs/performance-upkeep.md");
        fs::write(file, page(&kernel.version, &tables)).context("cannot write the page")?;
    }
    let fat = pumped.iter().filter_map(Pumped::grown);
    let wrong = rests.iter().filter_map(restless).chain(longs.iter().flat_map(grown)).chain(fat);
    let wrong: Vec<String> = wrong.collect();
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("; ")) }
}

fn part(kernel: &Kernel, rounds: Option<u64>) -> Part<'_> {
    let words = rounds.map_or_else(Vec::new, |n| vec!["--rounds".to_owned(), n.to_string()]);
    Part { name: "upkeep", words, kernel, limit: LIMIT }
}

/// The result of feeding made-up events through the path of live ones without a kernel, because in
/// emulation the kernel would take too long to make as many events.
struct Pumped {
    /// The output: `json` or `screen`.
    sink: &'static str,
    /// Memory after a tenth of the events, in KiB.
    early: u64,
    /// Peak memory, in KiB.
    most: u64,
    /// Events per second.
    rate: u64,
}

const PUMPED: u64 = 10_000_000;
const PUMPED_FILES: u64 = 100_000;

fn pumped() -> Result<Vec<Pumped>> {
    say("building dio-trace");
    let mut build = build::cargo()?;
    build.args(["build", "--release", "--locked", "--package", "dio-trace"]);
    cmd::run(build.args(["--example", "bench_events"]))?;
    ["json", "screen"].into_iter().map(pump).collect()
}

fn pump(sink: &'static str) -> Result<Pumped> {
    say(format!("{PUMPED} events of {PUMPED_FILES} files to {sink}"));
    let mut example = Command::new(paths::target()?.join("release/examples/bench_events"));
    let out = cmd::output(example.arg(sink).args([PUMPED, PUMPED_FILES].map(|n| n.to_string())))?;
    let numbers = out.split_whitespace().skip(1).map(str::parse).collect::<Result<Vec<u64>, _>>();
    match numbers.as_deref() {
        Ok(&[early, most, rate]) => Ok(Pumped { sink, early, most, rate }),
        _ => bail!("bench_events printed {out:?}"),
    }
}

impl Pumped {
    /// A message if memory grew with the number of events.
    fn grown(&self) -> Option<String> {
        let Self { sink, early, most, .. } = self;
        (*most as f64 > *early as f64 * FLAT)
            .then(|| format!("memory grows with events to {sink}: {early} KiB, {most} KiB"))
    }
}

fn pumped_table(rows: &[Pumped]) -> String {
    let mut out = String::from(
        "| made-up events, no kernel | of files | memory after a tenth | at most | events/s |\n\
         |---|---:|---:|---:|---:|\n",
    );
    for Pumped { sink, early, most, rate } in rows {
        let mib = |kib: &u64| *kib as f64 / 1024.0;
        let (early, most) = (mib(early), mib(most));
        out += &format!(
            "| {PUMPED} to {sink} | {PUMPED_FILES} | {early:.1} MiB | {most:.1} MiB | {rate} |\n"
        );
    }
    out
}

/// A message if dio-trace uses more CPU time at rest than [`RESTING`].
fn restless(row: &Rest) -> Option<String> {
    (row.cpu > RESTING)
        .then(|| format!("{} does not rest: {:.4} s of CPU a second", row.way, row.cpu))
}

/// Messages about a row whose numbers do not add up, whose names are missing without losses, or
/// whose memory grew.
fn grown(row: &Long) -> Vec<String> {
    let mut wrong = Vec::new();
    if row.counted + row.uncounted != row.reads || row.told + row.lost != row.reads {
        wrong.push(format!("the numbers do not add up: {row:?}"));
    }
    if row.unnamed != 0 && row.lost == 0 {
        wrong.push(format!("{} reads have no name", row.unnamed));
    }
    let early = row.memory.iter().find(|(emitted, _)| *emitted == row.reads / 10);
    match early {
        Some((_, kib)) if row.peak_kib as f64 <= *kib as f64 * FLAT => {}
        _ => wrong.push(format!("memory grows: {:?}, {} KiB", row.memory, row.peak_kib)),
    }
    wrong
}

fn rests_table(rows: &[Rest]) -> String {
    let mut out = String::from(
        "| | until it traces | its own CPU of that | CPU at rest, each second | waits at rest, each second | memory |\n\
         |---|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        out += &format!(
            "| {} | {:.1} s | {:.1} s | {:.0} µs | {:.1} | {} MiB |\n",
            row.way,
            row.start_seconds,
            row.start_cpu,
            row.cpu * 1e6,
            row.waits,
            row.kib / 1024
        );
    }
    out
}

fn longs_table(rows: &[Long]) -> String {
    let mut out = String::from(
        "| files | reads | counted, or said not to be | told | lost, said so | without a name | memory on the way | at most |\n\
         |---:|---:|---:|---:|---:|---:|---|---:|\n",
    );
    for row in rows {
        let memory: Vec<String> = row
            .memory
            .iter()
            .map(|(emitted, kib)| format!("{emitted}: {:.1} MiB", *kib as f64 / 1024.0))
            .collect();
        out += &format!(
            "| {} | {} | {} + {} | {} | {} | {} | {} | {:.1} MiB |\n",
            row.files,
            row.reads,
            row.counted,
            row.uncounted,
            row.told,
            row.lost,
            row.unnamed,
            memory.join(", "),
            row.peak_kib as f64 / 1024.0
        );
    }
    out
}

fn page(kernel: &str, tables: &str) -> String {
    format!(
        "# Upkeep\n\nMade by `cargo xtask bench upkeep --write`: kernel {kernel}, emulated.\n\n{tables}\n\
         The first table is of one CPU that runs an instruction a nanosecond (`-icount`): its seconds are billions of \
         instructions, in which the kernel's verifier is. *At rest* nothing is read for a minute. The second is of a program that opens \
         one file after the other with O_DIRECT, reads 4 KiB and closes it, traced by `attach --json --all`; the memory is after so many \
         lines. Counters are fewer than the files: reads of those without one are said to be counted nowhere, named each and told all the \
         same, as far as one CPU for both comes after the program. \
         The third is the loader alone on the machine at hand: the same way from event to line, fallbacks all. \
         The command fails if a read is neither told nor lost, neither counted nor said not to be, has no name though nothing was lost, if memory grows by more than a quarter after the first tenth, \
         or if dio-trace at rest takes more than {:.1} % of a CPU.\n",
        RESTING * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Long {
        Long {
            files: 10,
            reads: 100,
            counted: 90,
            uncounted: 10,
            told: 100,
            unnamed: 0,
            lost: 0,
            memory: vec![(10, 1000)],
            peak_kib: 1200,
        }
    }

    #[test]
    fn memory_that_grows_with_events_is_found() {
        let of = |most| Pumped { sink: "json", early: 1000, most, rate: 1 };
        assert!(of(1200).grown().is_none() && of(1300).grown().is_some());
    }

    #[test]
    fn growth_and_gaps_are_found() {
        assert!(grown(&row()).is_empty());
        for bad in [
            Long { peak_kib: 1300, ..row() },
            Long { memory: Vec::new(), ..row() },
            Long { told: 99, ..row() },
            Long { counted: 89, ..row() },
            Long { unnamed: 1, ..row() },
        ] {
            assert_eq!(grown(&bad).len(), 1, "{bad:?}");
        }
    }
}
