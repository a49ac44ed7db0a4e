//! `dio-trace explain`: the rule table for people.

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

/// Usage, as clap has it.
const USAGE: u8 = 2;

/// Prints these causes in full, or all of them in a line each.
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
                "there is no cause `{}`; near it: {} (`dio-trace explain` lists all)",
                escape(id.as_bytes()),
                nearest(id).join(", ")
            );
            ExitCode::from(USAGE)
        }
    }
}
