//! The command line.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{
    cli::{
        check::CheckArgs,
        doctor::DoctorArgs,
        export::ExportArgs,
        filters::Filters,
        record::RecordArgs,
        report::ReportArgs,
        subject::{Named, Processes},
        top::TopArgs,
    },
    gate::{Form, Rule},
    model::Attach,
};

/// Was it really direct? Which file, why not, what to do
///
/// Follows every O_DIRECT read and write through the kernel and says whether it went past the
/// page cache. Findings go to stdout as they happen, a summary at the end.
#[derive(Debug, Parser)]
#[command(
    version = crate::cli::version::TEXT.as_str(),
    max_term_width = 80,
    after_help = "Examples:\n  \
        sudo dio-trace audit -d 10             the whole system for ten seconds\n  \
        sudo dio-trace attach -p 1234          a process and its descendants\n  \
        sudo dio-trace run -- fio job.fio      a command, from its first request\n  \
        sudo dio-trace audit --json | jq .     for programs\n  \
        sudo dio-trace top                     the whole system, live\n  \
        dio-trace check /var/lib/db            will it be direct there? no root\n  \
        dio-trace explain data-journal         what a cause means; no root\n  \
        sudo dio-trace doctor                  what works here\n\n\
        Exit codes: 0 done, 1 failure, 2 usage, 3 --fail-on, 130 at a second Ctrl-C;\n\
        run passes its command's code on."
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    #[command(flatten)]
    Trace(Box<Trace>),
    /// Watch O_DIRECT live: rates, share direct, latency and findings, by process or file
    ///
    /// A screen for a terminal of 80x24 or more; less shows less. ? lists the keys.
    Top(Box<TopArgs>),
    /// Say of files, directories and devices whether O_DIRECT will be direct there; no root, no eBPF
    ///
    /// Asks what the kernel says of them, then proves it: small reads, and for writes a new file
    /// beside it (4 MiB at most, without a name). Of files alike on one file system the first is
    /// tried. Exit codes: 0 proven direct, 1 not direct, 2 could not tell, or a forecast.
    Check(CheckArgs),
    /// Say what this kernel and this user can do, and what to do about the rest
    ///
    /// Where it may, it attaches all probes for a moment. Exit codes: 0 tracing works, 1 it does not.
    Doctor(DoctorArgs),
    /// Write what is traced to a file, to be looked at later and elsewhere
    Record {
        #[command(flatten)]
        options: RecordArgs,
        #[command(subcommand)]
        trace: Box<Trace>,
    },
    /// Say what was recorded, as tracing would have; no root, on any machine
    Report(ReportArgs),
    /// Show a recording's header, blocks and damage
    Inspect {
        /// A recording; - for stdin
        file: PathBuf,
    },
    /// Write the requests of a recording for other programs: JSON lines, CSV, Parquet, Perfetto, folded
    Export(ExportArgs),
    /// Say what a cause means, how it is proven and what to do; without an id, list them all
    Explain {
        /// Id of a cause, as in `cause` of --json and in the screen's last line
        #[arg(value_name = "ID")]
        ids: Vec<String>,
    },
    /// Write a shell's completions to stdout
    ///
    /// bash: dio-trace completions bash > ~/.local/share/bash-completion/completions/dio-trace
    Completions {
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write man pages to a folder
    #[command(hide = true)]
    Man { folder: PathBuf },
}

/// The verbs that trace.
#[derive(Debug, Subcommand)]
pub(super) enum Trace {
    /// Trace a command and what it starts, from its first request to its exit
    Run {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        gate: GateArgs,
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Trace running processes with their descendants; a systemd unit; a container
    ///
    /// Ends when they have all ended. Examples: attach -p 1234; attach postgres; attach --unit
    /// postgresql@18-main; attach --container 3f4a9c.
    Attach {
        #[command(flatten)]
        subject: Named,
        #[command(flatten)]
        common: Common,
    },
    /// Trace the whole system
    Audit {
        #[command(flatten)]
        processes: Processes,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args, Debug)]
pub(super) struct Common {
    /// Stop after this time: 10, 10s, 500ms, 2m, 1h
    #[arg(short, long, value_parser = duration)]
    pub(super) duration: Option<Duration>,
    /// Show every O_DIRECT request, not findings alone
    #[arg(long)]
    pub(super) all: bool,
    /// JSON lines (docs/json.md)
    #[arg(long)]
    pub(super) json: bool,
    /// Write the report to this file instead of stdout, line by line
    #[arg(short, long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Times in UTC, not in this machine's zone
    #[arg(long)]
    pub(super) utc: bool,
    /// How to attach the probes
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    pub(super) attach: Mode,
    /// Show the program's own stack at each kind of finding: who asked for it (docs/stacks.md)
    #[arg(long)]
    pub(super) stack: bool,
    #[command(flatten)]
    pub(super) filters: Filters,
    /// Say more on stderr; twice for the probes' own messages
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

/// Findings that fail a build.
#[derive(Args, Debug)]
pub(super) struct GateArgs {
    /// Exit with 3 on these findings: fallback, partial, short, refused, failed, mixed, unknown
    ///
    /// WORD:MIN fails from so many on. short leaves out the end of a file or device. Losing events
    /// fails too.
    #[arg(long, value_delimiter = ',', value_name = "WORD[:MIN],…")]
    pub(super) fail_on: Vec<Rule>,
    /// Write what --fail-on found to a file: .json, .md or .xml (JUnit)
    #[arg(long, value_name = "FILE", requires = "fail_on", value_parser = report_file)]
    pub(super) report: Option<ReportFile>,
}

/// A file, and the form that its name asks for.
#[derive(Clone, Debug)]
pub(super) struct ReportFile {
    pub(super) path: PathBuf,
    pub(super) form: Form,
}

fn report_file(text: &str) -> Result<ReportFile, String> {
    let path = PathBuf::from(text);
    let form = Form::of(&path).ok_or("its name must end in .json, .md or .xml")?;
    Ok(ReportFile { path, form })
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Mode {
    /// fentry where the kernel takes it, else kprobe
    Auto,
    Fentry,
    Kprobe,
}

impl Mode {
    pub(super) const fn wish(self) -> Option<Attach> {
        match self {
            Self::Auto => None,
            Self::Fentry => Some(Attach::Fentry),
            Self::Kprobe => Some(Attach::Kprobe),
        }
    }
}

impl Trace {
    pub(super) const fn common(&self) -> &Common {
        match self {
            Self::Run { common, .. } | Self::Attach { common, .. } | Self::Audit { common, .. } => {
                common
            }
        }
    }
}

/// Parses "10", "10s", "500ms", "200us", "2m", "1h".
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit `{unit}`: use us, ms, s, m or h")),
    };
    let value: f64 = number.parse().map_err(|_| format!("`{number}` is no number"))?;
    Duration::try_from_secs_f64(value * scale)
        .ok()
        .filter(|d| !d.is_zero())
        .ok_or_else(|| "must be more than 0 and not absurdly long".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for bad in ["", "x", "-1", "0", "5d", "1e300h", "NaN"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
