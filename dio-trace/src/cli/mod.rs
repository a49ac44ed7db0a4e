//! The command line: parses it, runs the verb and sets the exit code. A verb is a subcommand, such
//! as `audit` or `report`; most have a module here.

mod args;
mod cache;
mod check;
mod doctor;
mod explain;
mod export;
mod filters;
mod gate;
mod input;
mod inspect;
mod interactive;
mod kernels;
mod live_table;
mod manual;
mod metrics;
mod output;
mod progress;
mod record;
mod report;
mod result_file;
mod selection;
mod serve;
mod session;
mod shell;
mod subject;
mod terminal;
mod top;
mod trace;
mod tty;
mod values;
mod version;
mod watch;
mod when;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use crate::util::stdio::{note, or_end};
use anyhow::Context as _;
#[cfg(test)]
pub(crate) use explain::Cause;
use session::To;
use trace::Trace;

/// Parses the command line and runs the verb.
///
/// Exit codes: 0 done, 1 failure, 2 usage, 3 findings of `--fail-on`, 130 at a second Ctrl-C. `run`
/// exits with its command's code.
pub fn main() -> ExitCode {
    let verb = match args::parse() {
        Ok(args) => {
            tty::choose(args.color);
            args.verb
        }
        Err(error) => return no_verb(&error),
    };
    match verb {
        args::Verb::Trace(trace) => with_runtime(tracing(&trace, To::Output)),
        args::Verb::Top(args) => {
            let once = args.is_once();
            let (trace, options) = args.split();
            with_runtime(tracing(&trace, if once { To::Sums } else { To::Top(&options) }))
        }
        args::Verb::Cache(args) => with_runtime(async { coded(cache::run(*args).await) }),
        args::Verb::Serve(args) => with_runtime(tracing(&args.trace(), To::Nothing)),
        args::Verb::Record { options, trace } => {
            with_runtime(tracing(&trace, To::Recording(&options)))
        }
        args::Verb::Report(args) => done(report::run(&args)),
        args::Verb::Inspect { file } => done(inspect::run(&file)),
        args::Verb::Export(args) => done(export::run(&args)),
        args::Verb::Doctor(args) => with_runtime(async { doctor::run(&args) }),
        args::Verb::Completions { shell } => done(shell::completions(shell)),
        args::Verb::Man { folder } => done(shell::man(&folder)),
        args::Verb::Explain { ids, json } => explain::run(&ids, json),
        args::Verb::Check(args) => check::run(&args),
    }
}

async fn tracing(verb: &Trace, to: To<'_>) -> ExitCode {
    coded(session::run(verb, to).await)
}

fn coded(result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(usage) => no_verb(&usage.format(&mut args::command())),
            Err(error) => fail(&error),
        },
    }
}

fn with_runtime(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => fail(&error.into()),
    }
}

/// Prints help, the version or a usage error, when there is no verb to run.
fn no_verb(error: &clap::Error) -> ExitCode {
    let printed = error.print().and_then(|()| io::stdout().flush());
    if error.use_stderr() {
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1));
    }
    done(printed.map_err(or_end).context("cannot write stdout"))
}

fn done(result: Result<(), impl Into<anyhow::Error>>) -> ExitCode {
    result.map_or_else(|error| fail(&error.into()), |()| ExitCode::SUCCESS)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    say(error);
    ExitCode::FAILURE
}

/// Prints an error on one line of stderr: what failed, why, and what to do.
fn say(error: &anyhow::Error) {
    let mut text = String::new();
    for part in error.chain().map(ToString::to_string) {
        // Some libraries' errors repeat their source's text in their own.
        if !text.ends_with(&part) {
            text.extend([if text.is_empty() { "" } else { ": " }, &part]);
        }
    }
    note!("{}", text.lines().next().unwrap_or("failed"));
}
