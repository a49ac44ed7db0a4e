//! The verbs.

mod args;
mod check;
mod doctor;
mod explain;
mod export;
mod filters;
mod gate;
mod inspect;
mod manners;
mod part;
mod progress;
mod record;
mod report;
mod session;
mod shell;
mod sink;
mod subject;
mod terminal;
mod top;

use std::process::ExitCode;

use clap::Parser as _;

use session::To;

/// Parses the command line and runs the verb.
///
/// Exit codes: 0 done, 1 failure, 2 usage, 3 findings of `--fail-on`, 130 at a second Ctrl-C; `run`
/// passes its command's on.
pub fn main() -> ExitCode {
    // A pipe that closes ends us as it ends any filter; Rust ignores SIGPIPE by default.
    // SAFETY: no other thread runs yet, and SIG_DFL is a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    match args::Cli::parse().verb {
        args::Verb::Trace(trace) => with_runtime(tracing(&trace, To::Output)),
        args::Verb::Top(args) => {
            let (trace, options) = args.split();
            with_runtime(tracing(&trace, To::Top(&options)))
        }
        args::Verb::Record { options, trace } => {
            with_runtime(tracing(&trace, To::Recording(&options)))
        }
        args::Verb::Report(args) => done(report::run(&args)),
        args::Verb::Inspect { file } => done(inspect::run(&file)),
        args::Verb::Export(args) => done(export::run(&args)),
        args::Verb::Doctor(args) => with_runtime(async { doctor::run(&args) }),
        args::Verb::Completions { shell } => {
            shell::completions(shell);
            ExitCode::SUCCESS
        }
        args::Verb::Man { folder } => done(shell::man(&folder)),
        args::Verb::Explain { ids } => explain::run(&ids),
        args::Verb::Check(args) => check::run(&args),
    }
}

async fn tracing(verb: &args::Trace, to: To<'_>) -> ExitCode {
    session::run(verb, to).await.map_or_else(|error| fail(&error), ExitCode::from)
}

fn with_runtime(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => fail(&error.into()),
    }
}

fn done(result: anyhow::Result<()>) -> ExitCode {
    result.map_or_else(|error| fail(&error), |()| ExitCode::SUCCESS)
}

fn fail(error: &anyhow::Error) -> ExitCode {
    say(error);
    ExitCode::FAILURE
}

/// One line: what, why, what to do.
fn say(error: &anyhow::Error) {
    let mut text = String::new();
    for part in error.chain().map(ToString::to_string) {
        // Some libraries' errors say their cause, and have it as their cause too.
        if !text.ends_with(&part) {
            text.extend([if text.is_empty() { "" } else { ": " }, &part]);
        }
    }
    eprintln!("dio-trace: {}", text.lines().next().unwrap_or("failed"));
}
