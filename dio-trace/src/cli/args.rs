//! The command line: its verbs and their help.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::{
    cause::RULES,
    cli::{
        check::CheckArgs,
        doctor::DoctorArgs,
        export::ExportArgs,
        record::RecordArgs,
        report::ReportArgs,
        top::TopArgs,
        trace::Trace,
        values::{Color, Suggested},
    },
};

/// Was it really direct? Which file, why not, what to do
///
/// Follows every O_DIRECT read and write through the kernel and says whether it bypassed the page
/// cache. Findings go to stdout as they happen, a summary at the end.
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
        run exits with its command's code, 127 if there is no such command."
)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) verb: Verb,
    /// When to use colours; auto: on a terminal, unless NO_COLOR is set or TERM is dumb
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    pub(super) color: Color,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    #[command(flatten)]
    Trace(Box<Trace>),
    /// Watch O_DIRECT live: rates, share direct, latency and findings, by process or file
    ///
    /// Needs a terminal of 80x24 or more to show everything; a smaller one shows less. ? lists the
    /// keys.
    Top(Box<TopArgs>),
    /// Check whether O_DIRECT will be direct on files, directories and devices; no root, no eBPF
    ///
    /// Makes a forecast from the attributes of each path, then proves it: by small reads, and for
    /// writes by a temporary file in the same directory (4 MiB at most, without a name). Of several
    /// similar files on one file system only the first is tried. Exit codes: 0 proven direct, 1 not
    /// direct, 2 unknown, or only a forecast.
    Check(CheckArgs),
    /// Show whether tracing works with this kernel and this user, and how to fix what does not
    ///
    /// If permitted, attaches all probes for a moment. Exit codes: 0 tracing works, 1 it does not.
    Doctor(DoctorArgs),
    /// Record a trace to a file, to be read later and on any machine
    Record {
        #[command(flatten)]
        options: RecordArgs,
        #[command(subcommand)]
        trace: Box<Trace>,
    },
    /// Show a recording the way live tracing would; no root, on any machine
    Report(ReportArgs),
    /// Show a recording's header, blocks and damage
    Inspect {
        /// A recording; - for stdin
        file: PathBuf,
    },
    /// Export the requests of a recording: JSON lines, CSV, Parquet, Perfetto, folded
    Export(ExportArgs),
    /// Explain what a cause means, how it is proven, what to do, and how kernels differ; without an
    /// id, list all causes
    Explain {
        /// Id of a cause, as in `cause` of --json and in the last line of the text output
        #[arg(value_name = "ID", hide_possible_values = true,
              value_parser = Suggested::<String>::new(RULES.iter().map(|rule| rule.id)))]
        ids: Vec<String>,
    },
    /// Write completions for a shell to stdout
    ///
    /// bash: dio-trace completions bash > ~/.local/share/bash-completion/completions/dio-trace
    Completions {
        #[arg(value_enum)]
        shell: Shell,
    },
    /// Write man pages to a directory
    #[command(hide = true)]
    Man { folder: PathBuf },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_valid() {
        Cli::command().debug_assert();
    }
}
