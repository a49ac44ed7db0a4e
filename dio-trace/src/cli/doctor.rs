//! `dio-trace doctor`: shows whether tracing works here, as text or as JSON.

use std::{io, process::ExitCode};

use clap::Args;

use crate::{
    cli::{done, tty::page_width, values::Mode},
    doctor::examine,
    output::text,
    util::stdio::print,
};

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    /// How to attach the probes
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    attach: Mode,
    /// List every probe, by its name in this kernel
    #[arg(short, long)]
    verbose: bool,
    /// Write one JSON object (docs/json.md)
    #[arg(long)]
    json: bool,
}

/// Prints the report; the exit code is 0 if tracing works. Must run inside a tokio runtime.
pub(super) fn run(args: &DoctorArgs) -> ExitCode {
    let report = examine(args.attach.wish());
    let text = if args.json {
        serde_json::to_string(&report).unwrap_or_default() + "\n"
    } else {
        text::doctor_page(&report, args.verbose, page_width(&io::stdout()))
    };
    let printed = done(print(&text));
    if report.works { printed } else { ExitCode::FAILURE }
}
