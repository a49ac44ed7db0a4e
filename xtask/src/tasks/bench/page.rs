//! Formats the tables of [`super::cost`] for the terminal and for docs/performance.md.
use std::fmt::Write as _;

use crate::{
    guest::bench::{
        load::KINDS,
        tracers::{TRACERS, Tracer},
    },
    tasks::bench::costs::Costs,
};

/// The targets: tracer, kind of request, and the most instructions that the tracer should add.
const TARGETS: &[(&str, &str, f64)] = &[
    ("dio-trace", "direct-read", 1400.0),
    ("dio-trace", "buffered-read", 700.0),
    ("dio-trace", "pipe-read", 450.0),
    ("dio-trace", "socket-read", 450.0),
    ("dio-trace", "fallback-read", 3500.0),
    ("dio-trace-all", "direct-read", 2300.0),
];

/// Pairs of tracers of which the first should add less than the second.
const BELOW: &[(&str, &str)] =
    &[("dio-trace", "bpftrace-fentry"), ("dio-trace-kprobe", "bpftrace-kprobe")];
/// The kinds of requests for which [`BELOW`] is checked.
const BELOW_KINDS: &[&str] = &["direct-read", "buffered-read"];

/// The tracers whose cost per request was measured in this run.
fn tracers(costs: &Costs) -> impl Iterator<Item = &'static Tracer> {
    let ran = |tracer: &&Tracer| costs.rows.iter().any(|row| row.tracer == tracer.id());
    TRACERS.iter().filter(|tracer| !tracer.programs).filter(ran)
}

/// A table with one line per kind of request and one column per tracer. The first column is the
/// cost without a tracer, the others are what each tracer adds.
pub(super) fn table(costs: &Costs) -> String {
    grid(costs, |(least, _)| least)
}

/// The same with the tracer's own process.
pub(super) fn means(costs: &Costs) -> String {
    grid(costs, |(_, mean)| mean)
}

fn grid(costs: &Costs, which: fn((f64, f64)) -> f64) -> String {
    let mut text = String::from("|");
    let mut rule = String::from("\n|---|");
    for tracer in tracers(costs) {
        let _ = write!(text, " | {}", tracer.name);
        rule.push_str("---:|");
    }
    text.push_str(" |");
    text.push_str(&rule);
    for kind in KINDS {
        let _ = write!(text, "\n| {}", kind.name);
        for (number, tracer) in tracers(costs).enumerate() {
            let shown = match number {
                0 => costs.base(kind.name).map(|base| format!("{:.0}", which(base))),
                _ => {
                    costs.added(&tracer.id(), kind.name).map(|more| format!("{:+.0}", which(more)))
                }
            };
            let _ = write!(text, " | {}", shown.unwrap_or_default());
        }
        text.push_str(" |");
    }
    text
}

/// A table of the eBPF programs: runs, instructions per run, and instructions that the verifier
/// processed.
pub(super) fn programs(costs: &Costs) -> String {
    let mut text = String::new();
    for program in costs.rows.iter().flat_map(|row| &row.programs) {
        if text.is_empty() {
            text.push_str("| program | runs | instructions a run | instructions verified |\n|---|---:|---:|---:|\n");
        }
        let each = program.ns / program.runs.max(1);
        let _ = writeln!(
            text,
            "| {} | {} | {each} | {} |",
            program.name, program.runs, program.verified
        );
    }
    text
}

fn targets(costs: &Costs) -> String {
    let mut text = String::from("| | adds | target | |\n|---|---:|---:|---|\n");
    let mut line = |what: String, adds: Option<(f64, f64)>, limit: Option<f64>| {
        let (Some((adds, _)), Some(limit)) = (adds, limit) else { return };
        let word = if adds <= limit { "met" } else { "**missed**" };
        let _ = writeln!(text, "| {what} | {adds:+.0} | {limit:.0} | {word} |");
    };
    for &(tracer, kind, limit) in TARGETS {
        line(format!("{tracer}, {kind}"), costs.added(tracer, kind), Some(limit));
    }
    for (ours, theirs) in BELOW {
        for kind in BELOW_KINDS {
            let limit = costs.added(theirs, kind).map(|theirs| theirs.0);
            line(format!("{ours}, {kind}: below {theirs}"), costs.added(ours, kind), limit);
        }
    }
    text
}

/// The text of docs/performance.md.
pub(super) fn whole(costs: &Costs) -> String {
    format!(
        "# What it costs\n\n\
         Made by `cargo xtask bench --write` on Linux {}. The guest runs under QEMU's\n\
         `-icount shift=0,sleep=off` with one CPU: an instruction is a nanosecond of its clock, and\n\
         the figures are the same at every run, or nearly. They are instructions of the guest, not\n\
         time: a cache miss costs a real CPU more, a predicted branch less. Ratios carry over best.\n\n\
         An ext4 on a memory-backed null_blk; requests of 4 KiB, of 64 bytes to pipes and sockets;\n\
         `libaio-32` and `io_uring-32` keep 32 in flight. The journaled file of `fallback-read` is\n\
         read through the page cache, and each of its reads is a finding with an event.\n\
         Peers run xtask/bench/*.bt: a latency histogram of O_DIRECT requests and whether the page\n\
         cache served them, by file descriptor flags, and a latency histogram of libaio and io_uring from\n\
         the submission to the completion, no more; perf trace and strace show `pread64`.\n\n\
         ## In the program's own way\n\n\
         What a request takes with no tracer, and what each tracer adds to it.\n\n{}\n\n\
         ## With the tracer's own process\n\n\
         The same as the mean of all requests, with everything that runs meanwhile on the one CPU:\n\
         the timer's interrupts and the tracer's reading, formatting and writing.\n\n{}\n\n\
         ## Targets\n\n{}\n\
         ## Programs\n\n\
         As the kernel counts them with `kernel.bpf_stats_enabled`, which adds its own reading of\n\
         the clock to each run. Bystanders' runs, which leave at once, are in the mean.\n\n{}\n\
         `cargo xtask test` measures dio-trace again and fails where a figure of\n\
         xtask/bench/cost.tsv has grown by more than 5 %. docs/performance-notes.md says what\n\
         helped and what did not.\n",
        costs.kernel,
        table(costs),
        means(costs),
        targets(costs),
        programs(costs),
    )
}
