//! `dio-trace check`: forecasts and small proofs, for people and as JSON.

use std::{io, path::PathBuf, process::ExitCode};

use clap::Args;

use super::sink::page_width;
use crate::{
    check::{Overall, check},
    stdio::print,
    ui,
};

/// Exit codes beside 0, all direct.
const NOT_DIRECT: u8 = 1;
const CANNOT_TELL: u8 = 2;

#[derive(Args, Debug)]
pub(super) struct CheckArgs {
    /// Files, directories or block devices
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Only ask: no read, and no file is made
    #[arg(long)]
    no_probe: bool,
    /// A JSON line for each path (docs/json.md)
    #[arg(long)]
    json: bool,
}

/// Checks each path; the worst answer decides the exit code.
pub(super) fn run(args: &CheckArgs) -> ExitCode {
    let width = page_width(&io::stdout());
    let mut worst = Overall::Direct;
    for (i, path) in args.paths.iter().enumerate() {
        let report = match check(path, !args.no_probe) {
            Ok(report) => report,
            Err(error) => {
                super::say(&error);
                worst = worst.max(Overall::Unknown);
                continue;
            }
        };
        let text = if args.json {
            serde_json::to_string(&report).map(|line| line + "\n").unwrap_or_default()
        } else {
            let gap = if i == 0 { "" } else { "\n" };
            format!("{gap}{}", ui::check_page(&report, width))
        };
        if let Err(error) = print(&text) {
            super::say(&error.into());
            return ExitCode::from(CANNOT_TELL);
        }
        worst = worst.max(report.overall);
    }
    match worst {
        Overall::Direct => ExitCode::SUCCESS,
        Overall::Not => ExitCode::from(NOT_DIRECT),
        Overall::Unknown => ExitCode::from(CANNOT_TELL),
    }
}
