//! `dio-trace explain`: prints the causes of the rule table as text.

use std::{io, process::ExitCode};

use crate::{
    cause::{Rule, find, nearest},
    cli::{done, tty::page_width},
    output::text,
    util::{
        escape::escape,
        stdio::{note, print},
    },
};

/// Exit code for a usage error, the same as clap's.
const USAGE: u8 = 2;

/// Prints the causes with these ids in full; without ids, one line per cause.
pub(super) fn run(ids: &[String]) -> ExitCode {
    let width = page_width(&io::stdout());
    if ids.is_empty() {
        return done(print(&text::cause_list(width)));
    }
    let rules: Result<Vec<&Rule>, &String> = ids.iter().map(|id| find(id).ok_or(id)).collect();
    match rules {
        Ok(rules) => {
            let pages: Vec<String> =
                rules.iter().map(|rule| text::cause_page(rule, width)).collect();
            done(print(&pages.join("\n")))
        }
        Err(id) => {
            note!(
                "there is no cause `{}`; similar: {} (`dio-trace explain` lists all)",
                escape(id.as_bytes()),
                nearest(id).join(", ")
            );
            ExitCode::from(USAGE)
        }
    }
}
