//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::cli::{
    check::CheckArgs, doctor::DoctorArgs, export::ExportArgs, record::RecordArgs,
    report::ReportArgs, top::TopArgs, trace::Trace,
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
