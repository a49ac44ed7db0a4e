//! What a request costs, in the guest's instructions.
use std::{collections::BTreeMap, fmt::Write as _, fs, time::Duration};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{
    build,
    guest::{KINDS, Measured, TRACERS},
    host, kernels, places,
    vm::{self, Setup},
};

/// What a request costs, in instructions, with no tracer, with dio-trace and with its peers
///
/// QEMU runs one instruction a nanosecond of the guest's clock, so the figures are the same at
/// every run, or nearly.
#[derive(Args, Clone)]
pub(crate) struct CostArgs {
    /// The kernel series to boot
    #[arg(long, default_value = "6.12")]
    kernel: String,
    /// These tracers alone, by the names of the table
    #[arg(long)]
    tracer: Vec<String>,
    /// Write docs/performance.md
    #[arg(long)]
    write: bool,
}

/// A limit on one run.
const LIMIT: Duration = Duration::from_secs(60 * 60);

pub(crate) fn main(args: &CostArgs) -> Result<()> {
    host::ensure(&[host::VM, host::SCENARIOS, host::PEERS])?;
    let rows = measure(&args.kernel, &args.tracer)?;
    println!("\n{}", table(&rows));
    if let Some(programs) = rows.iter().find(|row| !row.programs.is_empty()) {
        println!("{}", programs_table(programs));
    }
    if args.write {
        bail!("not yet");
    }
    Ok(())
}

/// Boots the kernel and measures these tracers; none: all.
pub(crate) fn measure(kernel: &str, tracers: &[String]) -> Result<Vec<Measured>> {
    vm::catch_interrupts();
    let kernel = kernels::find(kernel, None)?;
    let release = build::release(&["dio-trace", "xtask"])?;
    let out = places::target()?.join("bench");
    places::fresh(&out)?;
    let mut setup = Setup::new(kernel);
    setup.machine.icount = true;
    setup.out = Some(out.clone());
    let program = |name: &str| release.join(name).display().to_string();
    let mut words = vec![program("xtask"), "guest".into(), "bench".into()];
    words.extend(["--tool".into(), program("dio-trace"), "--out".into(), "/out/rows".into()]);
    for tracer in tracers {
        words.extend(["--tracer".into(), tracer.clone()]);
    }
    let code = setup.once(&words, Some(LIMIT), &mut vm::to_terminal)?;
    if code != 0 {
        bail!("the guest's part failed with exit code {code}");
    }
    let text = fs::read_to_string(out.join("rows")).context("the guest wrote nothing")?;
    places::remove(&out)?;
    text.lines().map(|line| serde_json::from_str(line).context("the guest wrote no row")).collect()
}

/// A line for each tracer, a column for each kind of request: without a tracer what it takes,
/// with one what that adds.
fn table(rows: &[Measured]) -> String {
    let base: BTreeMap<&str, f64> = rows
        .iter()
        .filter(|row| row.tracer == TRACERS[0].id())
        .flat_map(|row| row.costs.iter().map(|(kind, cost)| (kind.as_str(), cost.least)))
        .collect();
    let mut text = format!("{:<18}", "");
    for kind in KINDS {
        let _ = write!(text, " {:>13}", kind.name);
    }
    for row in rows.iter().filter(|row| row.programs.is_empty()) {
        let _ = write!(text, "\n{:<18}", row.tracer);
        for kind in KINDS {
            let cost = row.costs.iter().find(|(name, _)| name == kind.name).map(|(_, c)| c.least);
            let shown = match (cost, base.get(kind.name)) {
                (Some(cost), Some(base)) if row.tracer != TRACERS[0].id() => {
                    format!("{:+.0}", cost - base)
                }
                (Some(cost), _) => format!("{cost:.0}"),
                (None, _) => String::new(),
            };
            let _ = write!(text, " {shown:>13}");
        }
    }
    text
}

fn programs_table(row: &Measured) -> String {
    let mut text = format!("\n{:<18} {:>9} {:>9} {:>9}", "program", "runs", "per run", "verified");
    for program in &row.programs {
        let _ = write!(
            text,
            "\n{:<18} {:>9} {:>9} {:>9}",
            program.name,
            program.run_cnt,
            program.run_time_ns / program.run_cnt.max(1),
            program.verified_insns
        );
    }
    text
}
