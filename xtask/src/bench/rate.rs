//! What is lost under load, and what it costs the program: a curve over the rate of findings.
use std::{fmt::Write as _, fs, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    build,
    guest::{Output, Rate},
    host, kernels, places,
    vm::{self, Setup},
};

/// Four CPUs read as fast as they can, and slower; every read is a finding
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
/// A limit on the run.
const LIMIT: Duration = Duration::from_secs(30 * 60);

pub(super) fn main(args: &LoadArgs) -> Result<()> {
    host::ensure(&[host::VM, host::SCENARIOS])?;
    vm::catch_interrupts();
    let kernel = kernels::find(&args.kernel, None)?;
    let release = build::release(&["dio-trace", "xtask"])?;
    let out = places::target()?.join("bench-load");
    places::fresh(&out)?;
    let mut setup = Setup::new(kernel.clone());
    setup.machine.cpus = CPUS;
    setup.machine.turns = true;
    setup.out = Some(out.clone());
    let program = |name: &str| release.join(name).display().to_string();
    let words = [&program("xtask"), "guest", "rate", "--tool", &program("dio-trace")];
    let words: Vec<String> =
        words.iter().copied().chain(["--out", "/out/rows"]).map(str::to_owned).collect();
    let code = setup.once(&words, Some(LIMIT), &mut vm::to_terminal)?;
    if code != 0 {
        bail!("the guest's part failed with exit code {code}");
    }
    let text = fs::read_to_string(out.join("rows")).context("the guest wrote nothing")?;
    let rows =
        text.lines().map(|line| serde_json::from_str(line).context("the guest wrote no row"));
    let rows: Vec<Rate> = rows.collect::<Result<_>>()?;
    places::remove(&out)?;
    let wrong = wrong(&rows);
    let table = table(&rows);
    println!("\n{table}");
    if args.write {
        let file = places::workspace()?.join("docs/performance-load.md");
        fs::write(file, page(&kernel.version, &table)).context("cannot write the page")?;
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("; ")) }
}

/// A read that was neither told nor said to be lost, or not counted.
fn wrong(rows: &[Rate]) -> Vec<String> {
    let watched = rows.iter().filter(|row| row.output != Output::None);
    let inexact = watched
        .filter(|row| row.counted != row.load.reads || row.told + row.lost != row.load.reads);
    inexact.map(|row| format!("the numbers do not add up: {row:?}")).collect()
}

fn table(rows: &[Rate]) -> String {
    let mut out = String::from(
        "| output | asked for | reads/s | of those without | CPU per read, against without | told | lost, said so | dio-trace's CPU | its memory |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in rows {
        let base = rows.iter().find(|r| r.output == Output::None && r.pace == row.pace);
        let per_second = |row: &Rate| row.load.reads as f64 / row.load.seconds;
        let per_read = |row: &Rate| row.load.cpu_seconds / row.load.reads.max(1) as f64;
        let against = |what: &dyn Fn(&Rate) -> f64| base.map_or(0.0, |base| what(row) / what(base));
        let pace =
            if row.pace == 0 { "all they can".to_owned() } else { format!("{}/s", row.pace) };
        let of = |n: u64| format!("{:.1} %", n as f64 * 100.0 / row.load.reads.max(1) as f64);
        let _ = match row.output {
            Output::None => {
                writeln!(out, "| no dio-trace | {pace} | {:.0} | | | | | | |", per_second(row))
            }
            output => writeln!(
                out,
                "| {} | {pace} | {:.0} | {:.2} | {:.2} | {} | {} | {:.2} | {} MiB |",
                if output == Output::Stuck { "nobody reads it" } else { "read" },
                per_second(row),
                against(&per_second),
                against(&per_read),
                of(row.told),
                of(row.lost),
                row.tool_seconds / row.load.seconds,
                row.tool_kib / 1024,
            ),
        };
    }
    out
}

fn page(kernel: &str, table: &str) -> String {
    format!(
        "# Under load\n\nMade by `cargo xtask bench load --write`: kernel {kernel}, {CPUS} emulated CPUs, which take \
         turns on one of the host. Four threads read 4 KiB with O_DIRECT of an ext4 file whose data is journaled, for five seconds: \
         every read is a finding with its line of JSON. Seconds of an emulator say nothing; the ratios within the run do.\n\n\
         {table}\n\
         *told* are the reads with a line of their own, *lost* those that dio-trace itself says had none (`ring buffer \
         full`); together they are every read, or the command fails. The counters hold every read in any case. Where nobody \
         takes the output (a pipe that is not read until the program has ended), the program goes on. *CPU*: seconds per \
         second, while there are four CPUs, counted by the kernel in ticks of 4 ms: coarse where a read takes less; \
         dio-trace's has its end in it, when it detaches and sums up.\n"
    )
}
