//! `cargo xtask stress`: makes thousands of requests at once on several CPUs, and compares
//! dio-trace's events with the program's tally, request by request.
use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    guest::contract::stress::Row,
    host::{build, cmd::say, packages, paths},
    vm::{boot::Setup, interrupts, kernels, running::to_terminal},
};

/// The most guests that may crash and be booted again.
const CRASHES: u32 = 10;

/// Compare every request of a program under stress with the program's own tally
///
/// In a VM with several CPUs, a program's eight threads make thousands of direct requests through
/// every API, to files on several file systems and devices, with many in flight. A bystander
/// process does the same. dio-trace, attached to the program, must report each of its requests once
/// and none of the bystander's, and must lose nothing. Each run is made twice: with --all, and with
/// findings only.
#[derive(Args)]
pub(crate) struct StressArgs {
    /// The kernel series to boot
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// The number of runs
    #[arg(long, default_value_t = 20)]
    runs: u64,
    /// The number of CPUs of the VM
    #[arg(long, default_value_t = 4)]
    smp: u32,
    /// How dio-trace attaches: fentry or kprobe
    #[arg(long, default_value = "fentry")]
    attach: String,
    /// Run the emulated CPUs at the same time, like those of a real machine
    ///
    /// QEMU's emulation then occasionally crashes a guest while probes are attached. Such a guest
    /// is booted again, and the crash is counted.
    #[arg(long)]
    parallel: bool,
    /// The approximate number of requests per thread
    #[arg(long, default_value_t = 1500)]
    requests: usize,
}

pub(crate) fn main(args: &StressArgs) -> Result<u8> {
    interrupts::catch_interrupts();
    packages::ensure(&[packages::VM, packages::SCENARIOS])?;
    let kernel = kernels::find(&args.kernel, None)?;
    let binaries = build::release(&["dio-trace", "xtask"])?;
    let out = paths::target()?.join("stress").join(format!("{}-{}", args.kernel, args.attach));
    paths::fresh(&out)?;
    // Copies, because the checkout may be rebuilt during the run.
    for program in ["xtask", "dio-trace"] {
        let from = binaries.join(program);
        fs::copy(&from, out.join(program))
            .with_context(|| format!("cannot copy {}", from.display()))?;
    }
    let file = out.join("rows.jsonl");
    let (mut crashes, mut rows) = (0, Vec::new());
    loop {
        let first = rows.last().map_or(1, |row: &Row| row.run + u64::from(!row.all));
        if first > args.runs {
            break;
        }
        let mut setup = Setup::new(kernel.clone());
        setup.machine.cpus = args.smp;
        setup.machine.turns = !args.parallel;
        // IOPOLL needs a polled queue.
        setup.machine.append = "nvme.poll_queues=2".to_owned();
        setup.out = Some(out.clone());
        let command = guest(args, first);
        let ended = setup.once(&command, Some(Duration::from_secs(3 * 3600)), &mut to_terminal);
        interrupts::stop_if_interrupted()?;
        rows = read(&file)?;
        match ended {
            Ok(code) if rows.last().is_none_or(|row| row.run < args.runs || row.all) => {
                bail!("the command in the guest ended with exit code {code} before its last run");
            }
            Ok(_) => {}
            Err(error) => {
                crashes += 1;
                say(format!("the guest crashed: {error:#}"));
                if crashes > CRASHES {
                    bail!("{crashes} guests crashed");
                }
            }
        }
    }
    Ok(report(args, &rows, crashes))
}

fn guest(args: &StressArgs, first: u64) -> Vec<String> {
    let (first, last) = (first.to_string(), args.runs.to_string());
    let requests = args.requests.to_string();
    let mut words = vec!["/out/xtask", "guest", "stress", "--tool", "/out/dio-trace"];
    words.extend(["--attach", &args.attach, "--out", "/out/rows.jsonl"]);
    words.extend(["--first", &first, "--last", &last, "--requests", &requests]);
    words.into_iter().map(str::to_owned).collect()
}

fn read(file: &Path) -> Result<Vec<Row>> {
    let text = fs::read_to_string(file).unwrap_or_default();
    // A crash may have truncated the last line.
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    whole.map(|line| serde_json::from_str(line).context("the guest wrote an invalid row")).collect()
}

/// Prints the table of all runs. Returns the exit code.
fn report(args: &StressArgs, rows: &[Row], crashes: u32) -> u8 {
    println!();
    println!(
        "{:>4} {:<8} {:>8} {:>8} {:>7} {:>7} {:>6}  result",
        "run", "shown", "requests", "events", "missed", "extra", "s"
    );
    for Row { run, all, seconds, score } in rows {
        let shown = if *all { "all" } else { "findings" };
        let word = if score.is_exact() { "exact" } else { "NOT EXACT" };
        println!(
            "{run:>4} {shown:<8} {:>8} {:>8} {:>7} {:>7} {seconds:>6.0}  {word}",
            score.requests, score.events, score.missed, score.extra
        );
    }
    let exact = rows.iter().filter(|row| row.score.is_exact()).count();
    let requests: u64 = rows.iter().map(|row| row.score.requests).sum();
    println!();
    println!(
        "{} {} on {} CPUs: {exact} of {} runs exact, {requests} requests, {crashes} guests crashed",
        args.kernel,
        args.attach,
        args.smp,
        rows.len()
    );
    u8::from(exact != rows.len())
}
