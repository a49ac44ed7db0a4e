//! `dio-trace explain`: prints the causes of the rule table as text or JSON.

use std::{io, process::ExitCode};

use serde::Serialize;

use crate::{
    cause::{RULES, Rule, find, nearest},
    cli::{check::line, done, tty::page_width},
    flow::explained::SCHEMA,
    output::text,
    util::{
        escape::escape,
        stdio::{note, print},
    },
};

/// Exit code for a usage error, the same as clap's.
const USAGE: u8 = 2;

/// A cause of the rule table (docs/json.md).
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Cause {
    v: u32,
    kind: &'static str,
    cause: &'static str,
    title: &'static str,
    means: &'static str,
    proof: &'static str,
    fix: &'static str,
    on: &'static str,
    kernels: Vec<String>,
}

impl Cause {
    fn of(rule: &Rule) -> Self {
        Self {
            v: SCHEMA,
            kind: "cause",
            cause: rule.id,
            title: rule.title,
            means: rule.means,
            proof: rule.proof,
            fix: rule.fix,
            on: rule.on,
            kernels: text::history(rule.id),
        }
    }
}

/// The causes as JSON lines.
fn lines<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> String {
    rules.into_iter().map(|rule| line(&Cause::of(rule))).collect()
}

/// Prints the causes with these ids in full; without ids, one line per cause as text, or all of them
/// as JSON.
pub(super) fn run(ids: &[String], json: bool) -> ExitCode {
    let width = page_width(&io::stdout());
    if ids.is_empty() {
        return done(print(&if json { lines(RULES) } else { text::cause_list(width) }));
    }
    let rules: Result<Vec<&Rule>, &String> = ids.iter().map(|id| find(id).ok_or(id)).collect();
    match rules {
        Ok(rules) if json => done(print(&lines(rules))),
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
