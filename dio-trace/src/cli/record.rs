//! `dio-trace record`: what a session needs to write a recording.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::args::Trace;
use crate::{
    clock::Clock,
    escape,
    kernel::{line, release},
    recorder::{Done, Options, Recorder},
    trace_file::{Header, Scope},
    tracer::{Missing, Tracer},
    version,
};

#[derive(Args, Debug)]
pub(super) struct RecordArgs {
    /// The file to make; `dio-trace report FILE` reads it, on any machine and without root
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: PathBuf,
    /// Write over FILE if it is there
    #[arg(long)]
    force: bool,
    /// Record every O_DIRECT request, not findings alone
    #[arg(long)]
    all: bool,
    /// Beside findings, record one in N of the other requests
    #[arg(long, value_name = "1/N", value_parser = sample, conflicts_with = "all")]
    sample: Option<u64>,
    /// Stop once the file has this size: 500K, 100M, 2G
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
}

impl RecordArgs {
    /// True if the probes have to send every request.
    pub(super) const fn wants_all(&self) -> bool {
        self.all || self.sample.is_some()
    }

    /// What a recording cannot be asked for.
    pub(super) fn check(verb: &Trace) -> Result<()> {
        let common = verb.common();
        if common.json || common.output.is_some() {
            bail!("a recording has one form: put -o before the verb, and --json after `report`");
        }
        if !common.filters.filter().is_open() {
            bail!(
                "names and verdicts are for looking: record without --comm, --path, --fs, --only"
            );
        }
        if matches!(verb, Trace::Run { gate, .. } if !gate.fail_on.is_empty()) {
            bail!("a recording does not judge: use --fail-on without `record`");
        }
        Ok(())
    }

    /// Creates the file.
    pub(super) fn start(&self, verb: &Trace, tracer: &Tracer) -> Result<Recorder> {
        let options = Options {
            path: self.output.clone(),
            force: self.force,
            sample: self.sample.unwrap_or(0),
            max_size: self.max_size,
        };
        Recorder::start(&options, &self.header(verb, tracer))
    }

    /// What came of it, on stderr; an error if it stopped by itself.
    pub(super) fn finished(&self, done: &Done) -> Result<()> {
        let path = escape::path(&self.output);
        let dropped = if done.dropped == 0 {
            String::new()
        } else {
            format!("; {} requests dropped, the disk was too slow", done.dropped)
        };
        eprintln!(
            "dio-trace: {} requests in {} bytes{dropped}; `dio-trace report {path}` reads it",
            done.requests, done.bytes
        );
        match &done.stopped {
            Some(why) => bail!("recording stopped: {why}; {path} is sound up to there"),
            None => Ok(()),
        }
    }

    fn header(&self, verb: &Trace, tracer: &Tracer) -> Header {
        let pairs = |gaps: &[Missing]| -> Vec<(String, String)> {
            gaps.iter().map(|gap| (gap.probe.clone(), gap.why.clone())).collect()
        };
        let (attached, missing) = tracer.coverage();
        let clock = Clock::now();
        Header {
            tool: version::TEXT.clone(),
            host: line("/proc/sys/kernel/hostname"),
            kernel: release(),
            boot: line("/proc/sys/kernel/random/boot_id"),
            started: clock.wall(Clock::monotonic()),
            clock: clock.offset(),
            scope: scope(verb),
            all: self.all || verb.common().all,
            sample: self.sample.unwrap_or(0),
            attach: tracer.attach().as_str().to_owned(),
            attached: attached.to_vec(),
            missing: pairs(missing),
            dark: pairs(tracer.dark()),
        }
    }
}

fn scope(verb: &Trace) -> Scope {
    match verb {
        Trace::Audit { .. } => Scope::System,
        Trace::Attach { pid, .. } => Scope::Processes(pid.clone()),
        Trace::Run { command, .. } => {
            Scope::Command(command.iter().map(|w| w.to_string_lossy().into_owned()).collect())
        }
    }
}

/// Parses "1/N", and N by itself.
fn sample(text: &str) -> Result<u64, String> {
    let n = text.strip_prefix("1/").unwrap_or(text);
    n.parse().ok().filter(|n| *n > 0).ok_or_else(|| "1/N with N from 1 on".to_owned())
}

/// Parses "500K", "100M", "2G".
fn size(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.trim_end_matches(['B', 'i']).as_bytes().last() {
        Some(b'K' | b'k') => (text.trim_end_matches(|c: char| c.is_ascii_alphabetic()), 10),
        Some(b'M' | b'm') => (text.trim_end_matches(|c: char| c.is_ascii_alphabetic()), 20),
        Some(b'G' | b'g') => (text.trim_end_matches(|c: char| c.is_ascii_alphabetic()), 30),
        _ => (text, 0),
    };
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
    bytes.filter(|n| *n > 0).ok_or_else(|| format!("`{text}` is no size: 500K, 100M, 2G"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_samples() {
        assert_eq!((size("500K"), size("2GiB"), size("7")), (Ok(500 << 10), Ok(2 << 30), Ok(7)));
        assert!(["", "K", "0", "1T", "99999999999G"].iter().all(|bad| size(bad).is_err()));
        assert_eq!((sample("1/100"), sample("5")), (Ok(100), Ok(5)));
        assert!(["", "1/0", "1/x"].iter().all(|bad| sample(bad).is_err()));
    }
}
