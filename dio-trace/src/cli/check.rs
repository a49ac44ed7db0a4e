//! `dio-trace check`: checks whether O_DIRECT will be direct on each path, as text or as JSON.

use std::{io, path::PathBuf, process::ExitCode};

use clap::Args;
use serde::Serialize;

use crate::{
    cause::history::KernelVersion,
    check::{Checker, Failure, Overall},
    cli::{kernels::running_and, tty::page_width},
    output::text,
    util::stdio::print,
};

/// Exit code if a path is not direct. The code is 0 only if all paths are proven direct.
const NOT_DIRECT: u8 = 1;
/// Exit code if the answer for a path is unknown, or only a forecast.
const CANNOT_TELL: u8 = 2;

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// Files, directories or block devices
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only make a forecast: read nothing and create no file
    #[arg(long)]
    no_probe: bool,
    /// Also say what would change on another kernel, such as 7.2 or 6.12.77 (docs/kernels.md)
    #[arg(long, value_name = "VERSION")]
    kernel: Option<KernelVersion>,
    /// Write one JSON line per path (docs/json.md)
    #[arg(long)]
    json: bool,
}

/// Checks each path; the worst answer decides the exit code.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    survive_file_limits();
    let width = page_width(&io::stdout());
    let kernels = match args.kernel.map(running_and).transpose() {
        Ok(kernels) => kernels,
        Err(error) => {
            super::say(&error);
            return ExitCode::from(CANNOT_TELL);
        }
    };
    let mut checker = Checker::new(!args.no_probe).comparing(kernels);
    let mut worst = Overall::Direct;
    for (i, path) in args.paths.iter().enumerate() {
        let checked = checker.check(path);
        let overall = checked.as_ref().map_or(Overall::Unknown, |report| report.overall);
        worst = worst.max(overall);
        if let Err(error) = &checked {
            super::say(error);
        }
        let text = match &checked {
            Ok(report) if args.json => line(report),
            Ok(report) => {
                let gap = if i == 0 { "" } else { "\n" };
                format!("{gap}{}", text::check_page(report, width))
            }
            Err(error) if args.json => line(&Failure::new(path, error)),
            Err(_) => continue,
        };
        if let Err(error) = print(&text) {
            super::say(&error.into());
            return ExitCode::from(CANNOT_TELL);
        }
    }
    match worst {
        Overall::Direct => ExitCode::SUCCESS,
        Overall::Not => ExitCode::from(NOT_DIRECT),
        Overall::Unknown => ExitCode::from(CANNOT_TELL),
    }
}

/// A line of JSON.
pub(super) fn line(what: &impl Serialize) -> String {
    serde_json::to_string(what).map(|line| line + "\n").unwrap_or_default()
}

/// Ignores SIGXFSZ, so that a write past RLIMIT_FSIZE fails with an error, which is reported,
/// instead of killing the process.
fn survive_file_limits() {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
