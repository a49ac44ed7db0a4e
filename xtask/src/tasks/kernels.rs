//! `cargo xtask kernels`: fetches and lists the kernels that VMs boot, and loads every eBPF program on
//! each of them.
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};

use crate::{
    guest::contract::load::Loaded,
    vm::{
        guest_part::Part,
        interrupts,
        kernels::{self, Kernel, SERIES},
    },
};

/// How long attaching may take on one kernel.
const LIMIT: Duration = Duration::from_secs(10 * 60);

/// The kernels that `load` takes by default: those of the scenarios, those in between, and flavours,
/// of this machine's architecture and of arm64. The modules of 7.0 and 7.1 cannot be had.
const LOADED: &[&str] = &[
    "5.10",
    "6.1",
    "6.12",
    "6.16",
    "6.17",
    "6.18",
    "6.19",
    "7.2",
    "7.3",
    "6.12-rt",
    "6.12-cloud",
    "7.3-rt",
    "7.3-cloud",
    "6.1-arm64",
    "6.12-arm64",
    "6.18-arm64",
    "7.3-arm64",
    "6.12-arm64-16k",
    "7.3-arm64-16k",
];
#[derive(Args)]
pub(crate) struct KernelsArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Fetch kernels into the cache: 5.10, 6.1, 6.12, 6.18, 7.3, others by name, or `all` of these
    Fetch {
        #[arg(required = true)]
        kernels: Vec<String>,
        /// Fetch the newest point version even where one is cached
        #[arg(long)]
        refresh: bool,
    },
    /// List the kernels in the cache
    List,
    /// Load and attach every eBPF program on each kernel, and print verified instructions and
    /// refusals
    Load {
        /// Only these kernels, such as 6.16 or 6.12-arm64-16k
        kernels: Vec<String>,
        /// Only fentry or only kprobe
        #[arg(long)]
        attach: Option<String>,
        /// Further parameters for the kernel's command line
        #[arg(long, default_value = "", allow_hyphen_values = true)]
        append: String,
    },
}

pub(crate) fn main(args: &KernelsArgs) -> Result<u8> {
    match &args.verb {
        Verb::Fetch { kernels, refresh } => fetch(kernels, *refresh).map(|()| 0),
        Verb::List => list().map(|()| 0),
        Verb::Load { kernels, attach, append } => load(kernels, attach.as_deref(), append),
    }
}

fn fetch(names: &[String], refresh: bool) -> Result<()> {
    let mut wanted: Vec<&str> = names.iter().map(String::as_str).collect();
    if wanted == ["all"] {
        wanted = SERIES.to_vec();
    }
    for name in wanted {
        if refresh {
            kernels::forget(name)?;
        }
        show(&kernels::debian(name)?);
    }
    Ok(())
}

fn list() -> Result<()> {
    for name in LOADED {
        match kernels::cached(name)? {
            Some(kernel) => show(&kernel),
            None => println!("{name}\t-\tnot fetched"),
        }
    }
    Ok(())
}

fn show(kernel: &Kernel) {
    println!("{}\t{}\t{}", kernel.name, kernel.version, kernel.image.display());
}

/// Loads the programs on each kernel, and returns 1 if one refuses them or was not tried.
fn load(names: &[String], attach: Option<&str>, append: &str) -> Result<u8> {
    interrupts::catch_interrupts();
    if attach.is_some_and(|attach| !["fentry", "kprobe"].contains(&attach)) {
        bail!("--attach is fentry or kprobe");
    }
    let all: Vec<&str> = match names {
        [] => LOADED.to_vec(),
        names => names.iter().map(String::as_str).collect(),
    };
    let (mut lines, mut failed) = (Vec::new(), false);
    for name in all {
        interrupts::stop_if_interrupted()?;
        match loaded(name, attach, append) {
            Ok((kernel, rows)) => {
                failed |= rows.iter().any(|row| row.refused.is_some());
                lines.extend(rows.iter().flat_map(|row| told(&kernel, row)));
            }
            Err(error) => {
                failed = true;
                lines.push(format!("{name:<14} not tried: {error:#}"));
            }
        }
    }
    lines.iter().for_each(|line| println!("{line}"));
    Ok(u8::from(failed))
}

/// Boots a kernel and loads the programs by fentry and by kprobes.
fn loaded(name: &str, attach: Option<&str>, append: &str) -> Result<(Kernel, Vec<Loaded>)> {
    let kernel = kernels::find(name, None)?;
    let wanted = |how: &&&str| match attach {
        Some(only) => only == **how,
        None => **how == "kprobe" || !kernels::lacks_fentry(name),
    };
    let words = ["fentry", "kprobe"]
        .iter()
        .filter(wanted)
        .flat_map(|how| ["--attach".to_owned(), (*how).to_owned()])
        .collect();
    let part = Part { name: "load", words, kernel: &kernel, limit: LIMIT };
    let rows = part.rows(|machine| machine.append = append.to_owned())?;
    Ok((kernel, rows))
}

/// A line for each kernel, and one for each thing that it lacks.
fn told(kernel: &Kernel, loaded: &Loaded) -> Vec<String> {
    let name = format!("{:<14} {:<6} {:<24}", kernel.name, loaded.attach, kernel.version);
    if let Some(why) = &loaded.refused {
        return vec![format!("{name} refused: {}", why.lines().next().unwrap_or_default())];
    }
    let sum: u32 = loaded.programs.iter().map(|(_, verified)| verified).sum();
    let most = loaded.programs.iter().max_by_key(|(_, verified)| *verified);
    // Kernels before 5.16 do not count.
    let verified = most.map_or("instructions not known".to_owned(), |(program, most)| {
        format!("{sum:>7} verified, most {most} of {program}")
    });
    let mut lines = vec![format!("{name} {:>3} programs, {verified}", loaded.count)];
    lines.extend(loaded.gaps.iter().map(|(probe, why)| format!("    {probe}: {why}")));
    lines
}
