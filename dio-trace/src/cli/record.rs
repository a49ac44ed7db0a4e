//! `dio-trace record`: its options, and the recorder that a tracing session writes to.

use std::path::{Path, PathBuf};

use anyhow::{Error, Result, bail};
use clap::{Args, error::ErrorKind};
use dio_trace_common::verdict::Verdict;

use crate::{
    cli::{
        subject::Subject,
        trace::{Common, Trace},
        values::{size, verdict},
        version,
    },
    kernel::{line, page_size, release},
    model::MissingProbe,
    recording::{
        format::{Header, Scope},
        recorder::{Done, Keep, Options, Recorder},
    },
    tracer::Tracer,
    util::{
        clock::{Clock, Zone},
        escape,
        private_file::is_dash,
        stdio::note,
    },
};

#[derive(Args, Debug)]
pub(super) struct RecordArgs {
    /// The file to write; `dio-trace report FILE` reads it, on any machine and without root
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite FILE if it exists
    #[arg(long, global = true)]
    force: bool,
    /// Record every O_DIRECT request, not only findings
    #[arg(long)]
    all: bool,
    /// In addition to findings, record one in N of the other requests
    #[arg(long, value_name = "1/N", value_parser = sample, global = true,
          conflicts_with = "all")]
    sample: Option<u64>,
    /// Stop once the file has this size: 500K, 100M, 2G
    #[arg(long, value_name = "SIZE", value_parser = size, global = true)]
    max_size: Option<u64>,
    /// Start a new file at this size: FILE.1, FILE.2, …; with KEEP, keep only the last KEEP files
    #[arg(long, value_name = "SIZE[:KEEP]", value_parser = rotation, global = true,
          conflicts_with_all = ["max_size", "force"])]
    rotate: Option<(u64, Option<u64>)>,
    /// Keep the last SIZE bytes in memory; write them on SIGUSR1 and at the end: FILE.1, FILE.2, …
    #[arg(long, value_name = "SIZE", value_parser = room, global = true,
          conflicts_with_all = ["max_size", "force", "rotate"])]
    flight_recorder: Option<u64>,
    /// Also write the flight recorder on the first finding with one of these verdicts
    #[arg(long, value_delimiter = ',', value_name = "VERDICT", value_parser = verdict(),
          global = true, requires = "flight_recorder")]
    dump_on: Vec<Verdict>,
}

impl RecordArgs {
    /// True if the probes have to emit every request.
    pub(super) const fn wants_all(&self) -> bool {
        self.all || self.sample.is_some()
    }

    /// True if the recording is kept in memory and written on SIGUSR1.
    pub(super) const fn is_flight_recorder(&self) -> bool {
        self.flight_recorder.is_some()
    }

    /// The recording to write: -o stands before the verb or behind it.
    ///
    /// # Errors
    /// If it is missing, or given twice.
    pub(super) fn file<'a>(&'a self, common: &'a Common) -> Result<&'a Path> {
        match (&self.output, &common.output) {
            (Some(file), None) | (None, Some(file)) => Ok(file),
            (None, None) => Err(usage("--output FILE (-o) is missing: the recording to write")),
            (Some(_), Some(_)) => {
                Err(usage("--output (-o) is given twice: a recording has one name"))
            }
        }
    }

    /// Rejects options that `record` cannot be combined with.
    ///
    /// # Errors
    /// If there is such an option; the error says what to use instead.
    pub(super) fn check(&self, verb: &Trace) -> Result<()> {
        let common = verb.common();
        if self.sample.is_some() && common.all {
            bail!(
                "--all records every request, --sample one in N without a finding: use one of them"
            );
        }
        if common.json {
            bail!("a recording has one format: give --json to `dio-trace report`");
        }
        if common.utc {
            bail!("a recording keeps its host's zone: give --utc to `dio-trace report`");
        }
        if common.by.is_some() {
            bail!("a recording keeps what sums are made from: give --by to `dio-trace report`");
        }
        if is_dash(self.file(common)?) {
            bail!(
                "a recording needs a file, not a stream: when the disk is full, it is cut to its \
                 last whole block (-o FILE; `./-` is a file named -)"
            );
        }
        if !common.filter().is_open() {
            bail!(
                "--comm, --path, --fs, --only, --errors and --cause filter when a recording is read: give \
                 them to `dio-trace report`"
            );
        }
        if matches!(verb, Trace::Run { gate, .. } if !gate.fail_on.is_empty()) {
            bail!("--fail-on cannot be combined with `record`");
        }
        Ok(())
    }

    /// Creates the file and starts the recorder.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub(super) fn start(
        &self,
        verb: &Trace,
        subject: &Subject,
        tracer: &Tracer,
    ) -> Result<Recorder> {
        let options = Options {
            path: self.file(verb.common())?.to_owned(),
            force: self.force,
            sample: self.sample.unwrap_or(0),
            max_size: self.max_size,
            keep: match (self.rotate, self.flight_recorder) {
                (Some((size, keep)), _) => Keep::Rotate { size, keep },
                (_, Some(size)) => Keep::Flight { size, on: self.dump_on.clone() },
                (None, None) => Keep::Whole,
            },
        };
        Recorder::start(&options, &self.header(verb, subject, tracer))
    }

    /// Prints a summary of the recording on stderr.
    ///
    /// # Errors
    /// If the recorder stopped early, for example because the disk was full.
    pub(super) fn finished(done: &Done) -> Result<()> {
        let path = match &done.files[..] {
            [first, .., last] => format!("{} … {}", escape::path(first), escape::path(last)),
            files => files.first().map_or_else(|| "FILE".to_owned(), escape::path),
        };
        let dropped = if done.dropped == 0 {
            String::new()
        } else {
            format!("; {} requests dropped, the disk was too slow", done.dropped)
        };
        let lost = match done.lost {
            0 => String::new(),
            n => format!("; {n} more did not fit"),
        };
        note!(
            "{} requests in {} bytes{lost}{dropped}; `dio-trace report {path}` reads it",
            done.requests,
            done.bytes
        );
        match &done.stopped {
            Some(why) if done.unended => bail!(
                "recording stopped: {why}; that could not be written to {path}, which ends as if \
                 the recorder had been killed"
            ),
            Some(why) => bail!("recording stopped: {why}; {path} is valid up to there and says so"),
            None => Ok(()),
        }
    }

    fn header(&self, verb: &Trace, subject: &Subject, tracer: &Tracer) -> Header {
        let pairs = |gaps: &[MissingProbe]| -> Vec<(String, String)> {
            gaps.iter().map(|gap| (gap.probe.clone(), gap.why.clone())).collect()
        };
        let (attached, missing) = tracer.coverage();
        let clock = Clock::now();
        Header {
            tool: version::TEXT.clone(),
            host: line("/proc/sys/kernel/hostname"),
            kernel: release(),
            page: u32::try_from(page_size()).ok(),
            boot: line("/proc/sys/kernel/random/boot_id"),
            started: clock.wall(Clock::monotonic()),
            clock: clock.offset(),
            zone: Zone::local(),
            scope: scope(verb, subject),
            all: self.all || verb.common().all,
            stacks: verb.common().stack,
            sample: self.sample.unwrap_or(0),
            attach: tracer.attach().as_str().to_owned(),
            attached: attached.to_vec(),
            missing: pairs(missing),
            dark: pairs(tracer.dark()),
            blind: tracer.blind().map(str::to_owned).collect(),
        }
    }
}

fn usage(text: &str) -> Error {
    clap::Error::raw(ErrorKind::MissingRequiredArgument, text).into()
}

fn scope(verb: &Trace, subject: &Subject) -> Scope {
    match (verb, subject) {
        (Trace::Run { command, .. }, _) => {
            Scope::Command(command.iter().map(|w| w.to_string_lossy().into_owned()).collect())
        }
        (_, Subject::Processes { pids, .. }) => Scope::Processes(pids.clone()),
        _ => Scope::System,
    }
}

/// Parses "1/N", or "N" with the same meaning.
fn sample(text: &str) -> Result<u64, String> {
    let n = text.strip_prefix("1/").unwrap_or(text);
    n.parse().ok().filter(|n| *n > 0).ok_or_else(|| "must be 1/N with N at least 1".to_owned())
}

/// Parses a size of at least 1 MiB. A smaller file or buffer would have room for names only.
fn room(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 1 << 20;
    size(text).and_then(|n| if n < LEAST { Err("at least 1M".to_owned()) } else { Ok(n) })
}

/// Parses "100M" and "100M:5".
fn rotation(text: &str) -> Result<(u64, Option<u64>), String> {
    let Some((bytes, keep)) = text.split_once(':') else { return Ok((room(text)?, None)) };
    let keep = keep.parse().ok().filter(|n| *n > 0);
    Ok((room(bytes)?, Some(keep.ok_or("KEEP is a number of files, at least 1")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_and_samples_are_parsed() {
        assert_eq!(rotation("1M:5"), Ok((1 << 20, Some(5))));
        assert_eq!((rotation("1M"), room("2M")), (Ok((1 << 20, None)), Ok(2 << 20)));
        assert!(["1023K", "1M:", "1M:0", "1M:x", ":5"].iter().all(|bad| rotation(bad).is_err()));
        assert_eq!((sample("1/100"), sample("5")), (Ok(100), Ok(5)));
        assert!(["", "1/0", "1/x"].iter().all(|bad| sample(bad).is_err()));
    }
}
