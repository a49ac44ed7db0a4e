//! The verbs.

mod args;
mod check;
mod explain;
mod gate;
mod session;
mod sink;

use std::process::ExitCode;

use clap::Parser as _;

/// Parses the command line and runs the verb.
///
/// Exit codes: 0 done, 1 failure, 2 usage, 3 findings of `--fail-on`; `run` passes its command's on.
pub fn main() -> ExitCode {
    // A pipe that closes ends us as it ends any filter; Rust ignores SIGPIPE by default.
    // SAFETY: no other thread runs yet, and SIG_DFL is a valid disposition.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let trace = match args::Cli::parse().verb {
        args::Verb::Trace(trace) => trace,
        args::Verb::Explain { ids } => return explain::run(&ids),
        args::Verb::Check(args) => return check::run(&args),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    match runtime.block_on(session::run(&trace)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    say(error);
    ExitCode::FAILURE
}

/// One line: what, why, what to do.
fn say(error: &anyhow::Error) {
    let text = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
    eprintln!("dio-trace: {}", text.lines().next().unwrap_or("failed"));
}
