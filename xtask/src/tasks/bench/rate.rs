//! `cargo xtask bench load`: measures lost events and the traced program's CPU time at several
//! rates of findings.
use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    guest::contract::bench::{Output, Rate, Seen},
    host::{packages, paths},
    vm::{guest_part::Part, kernels},
};

/// Read on four CPUs at several rates, up to the highest possible; every read is a finding
#[derive(Args)]
pub(super) struct LoadArgs {
    /// The kernel series to boot
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// Write docs/performance-load.md
    #[arg(long)]
    write: bool,
}

const CPUS: u32 = 4;
/// The longest time that the run may take.
const LIMIT: Duration = Duration::from_secs(30 * 60);

pub(super) fn main(args: &LoadArgs) -> Result<()> {
    packages::ensure(&[packages::VM, packages::SCENARIOS])?;
    let kernel = kernels::find(&args.kernel, None)?;
    let part = Part { name: "rate", words: Vec::new(), kernel: &kernel, limit: LIMIT };
    let rows: Vec<Rate> = part.rows(|machine| {
        machine.cpus = CPUS;
        machine.turns = true;
    })?;
    let wrong = wrong(&rows);
    let table = table(&rows);
    println!("\n{table}");
    if args.write {
        let file = paths::workspace()?.join("docs/performance-load.md");
        fs::write(file, page(&kernel.version, &table)).context("cannot write the page")?;
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("; ")) }
}

/// A message for each row in which a read was not counted, was neither told nor reported as lost, or
/// is in no line.
fn wrong(rows: &[Rate]) -> Vec<String> {
    let inexact = rows.iter().filter(|row| {
        let reads = row.load.reads;
        let in_no_line = |s: &Seen| s.summed.is_some_and(|summed| s.told + summed != reads);
        let inexact = |s: &Seen| s.counted != reads || s.told + s.lost != reads || in_no_line(s);
        row.seen.as_ref().is_some_and(inexact)
    });
    inexact.map(|row| format!("the numbers do not add up: {row:?}")).collect()
}

fn table(rows: &[Rate]) -> String {
    let mut out = String::from(
        "| output | asked for | reads/s | of those without | CPU per read, against without | told one by one | told together | lost, said so | dio-trace's CPU | its memory |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let base = rows.iter().find(|b| b.output == row.output.base() && b.pace == row.pace);
        if let Some(base) = base {
            out += &line(row, base);
        }
    }
    out
}

/// A line of the table: a row, relative to the row of the same pace without dio-trace.
fn line(row: &Rate, base: &Rate) -> String {
    let output = match row.output {
        Output::None => "no dio-trace",
        Output::Read => "JSON lines that are read",
        Output::Stuck => "JSON lines that nobody reads",
        Output::Findings => "record",
        Output::NoneDirect => "no dio-trace, direct reads",
        Output::Every => "record --all, direct reads",
    };
    let pace = if row.pace == 0 { "all they can".to_owned() } else { format!("{}/s", row.pace) };
    let per_second = |row: &Rate| row.load.reads as f64 / row.load.seconds;
    let first = format!("| {output} | {pace} | {:.0} |", per_second(row));
    let Some(seen) = &row.seen else { return first + " | | | | | | |\n" };
    let per_read = |row: &Rate| row.load.cpu_seconds / row.load.reads.max(1) as f64;
    let share = |n: u64| n as f64 * 100.0 / row.load.reads.max(1) as f64;
    format!(
        "{first} {:.2} | {:.2} | {:.1} % | {} | {:.1} % | {:.2} | {} MiB |\n",
        per_second(row) / per_second(base),
        per_read(row) / per_read(base),
        share(seen.told),
        seen.summed.map_or_else(String::new, |summed| format!("{:.1} %", share(summed))),
        share(seen.lost),
        seen.cpu_seconds / row.load.seconds,
        seen.kib / 1024,
    )
}

fn page(kernel: &str, table: &str) -> String {
    format!(
        "# Under load\n\nMade by `cargo xtask bench load --write`: kernel {kernel}, {CPUS} emulated CPUs, which take \
         turns on one of the host. Four threads read 4 KiB with O_DIRECT of an ext4 file whose data is journaled, for five seconds: \
         every read is a finding, but for the direct reads of another file. Seconds of an emulator say nothing; the ratios within the run do.\n\n\
         {table}\n\
         *Told one by one* are the reads with a line, or a place in the recording, of their own; *lost* those that \
         dio-trace itself says had none (`ring buffer full`); together they are every read, or the command fails. \
         *Told together* are the lost ones in a line that says how many there were (`lost_requests`, docs/json.md): \
         they are all of the lost ones, or the command fails. The counters hold every read in any case. Where nobody \
         takes the output (a pipe that is not read until the program has ended), the program goes on. *CPU*: seconds per \
         second, while there are four CPUs, counted by the kernel in ticks of 4 ms: coarse where a read takes less; \
         dio-trace's has its end in it, when it detaches and sums up.\n"
    )
}
