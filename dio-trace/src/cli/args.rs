//! The command line: its verbs and their help.

use std::{env, ffi::OsString, path::PathBuf};

use clap::{
    Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, error::ErrorKind,
};
use clap_complete::Shell;

use crate::{
    cause::RULES,
    cli::{
        cache::CacheArgs,
        check::CheckArgs,
        doctor::DoctorArgs,
        export::ExportArgs,
        manual::with_examples,
        record::RecordArgs,
        report::ReportArgs,
        serve::ServeArgs,
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
    max_term_width = 80
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
    /// Show who fills the page cache: which processes bring in pages of which files, how, and what
    /// makes them leave
    ///
    /// Counts every page that comes in or leaves while it runs. On a terminal the screen follows along.
    /// docs/cache.md explains the columns.
    Cache(Box<CacheArgs>),
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
    ///
    /// Without a verb it records running processes, as `attach` traces them: record -p 1234 -o FILE.
    Record {
        #[command(flatten)]
        options: RecordArgs,
        #[command(subcommand)]
        trace: Box<Trace>,
    },
    /// Trace the whole system for metrics alone: Prometheus scrapes them at --metrics
    /// (127.0.0.1:9836)
    Serve(Box<ServeArgs>),
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
        /// Write JSON lines, one per cause (docs/json.md)
        #[arg(long)]
        json: bool,
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

/// Options of the verbs that trace which `record` refuses (record.rs:check): its help does not list
/// them.
const NOT_RECORDED: &[&str] =
    &["json", "utc", "by", "comm", "path", "fs", "only", "errors", "cause", "fail_on", "report"];

/// The definition of the command line.
pub(super) fn command() -> Command {
    with_examples(Cli::command()).mut_subcommand("record", |record| {
        record.mut_subcommands(|verb| {
            verb.mut_args(|arg| match arg.get_id().as_str() {
                "output" => arg.help("The recording to write; `dio-trace report FILE` reads it"),
                id if NOT_RECORDED.contains(&id) => arg.hide(true),
                _ => arg,
            })
        })
    })
}

/// Parses the command line of this process.
///
/// # Errors
/// A usage error, or what to print for `--help` and `--version`.
pub(super) fn parse() -> Result<Cli, clap::Error> {
    parsed(&env::args_os().collect::<Vec<_>>())
}

/// Parses a command line. `record` without a verb is `record attach`: people type `record -p PID`.
pub(super) fn parsed(words: &[OsString]) -> Result<Cli, clap::Error> {
    exactly(words).or_else(|error| {
        let lacks_verb = matches!(
            error.kind(),
            ErrorKind::UnknownArgument
                | ErrorKind::MissingSubcommand
                | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        );
        let Some(record) = words.iter().position(|word| word == "record").filter(|_| lacks_verb)
        else {
            return Err(error);
        };
        let (before, options) = words.split_at(record + 1);
        let attach: Vec<_> = [before, &["attach".into()], options].concat();
        exactly(&attach).map_err(|_| error)
    })
}

fn exactly(words: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(words)?;
    Cli::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_valid() {
        command().debug_assert();
    }

    #[test]
    fn options_of_record_stand_on_either_side_of_its_verb() {
        for line in [
            "record -o F --force --max-size 1M audit -d 1",
            "record audit -o F --force --max-size 1M -d 1",
            "record --force audit -o F -d 1 --max-size 1M",
            "record -p 1 -o F --force --max-size 1M -d 1",
            "--color never record -d 1 -o F --pid 1 --max-size 1M --force",
        ] {
            let words: Vec<OsString> =
                ["dio-trace"].into_iter().chain(line.split(' ')).map(Into::into).collect();
            let Verb::Record { options, trace } = parsed(&words).expect(line).verb else {
                panic!("{line}")
            };
            let shown = format!("{options:?}");
            assert!(shown.contains("force: true, "), "{line}: {shown}");
            assert!(shown.contains("max_size: Some(1048576)"), "{line}: {shown}");
            assert_eq!(options.file(trace.common()).expect(line), "F", "{line}");
            let attaches = matches!(*trace, Trace::Attach { .. });
            assert_eq!(attaches, !line.contains("audit"), "{line}");
        }
    }

    #[test]
    fn a_usage_error_of_record_is_about_what_was_typed() {
        let error = |line: &str| {
            let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
            parsed(&words).expect_err(line).to_string()
        };
        assert!(error("dio-trace record aduit -o F").contains("'audit'"));
        assert!(error("dio-trace record --nonsense -o F").contains("--nonsense"));
    }

    #[test]
    fn the_help_of_record_lists_what_it_takes() {
        let mut command = command();
        command.build();
        let record = command.find_subcommand_mut("record").expect("a verb");
        let help = record.find_subcommand_mut("run").expect("a verb").render_help().to_string();
        for refused in ["--json", "--utc", "--by", "--only", "--fail-on"] {
            assert!(!help.contains(refused), "{refused}: {help}");
        }
        for taken in ["--output", "--force", "--all", "--dev"] {
            assert!(help.contains(taken), "{taken}: {help}");
        }
    }
}
