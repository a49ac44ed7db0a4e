//! The rule table as text: a list, a page per cause, and docs/causes.md.

#[cfg(test)]
use crate::cause::Scenario;
use crate::{
    cause::{RULES, Rule},
    output::text::{columns::wrap, kernels::history},
};

/// All causes, one line per cause.
#[must_use]
pub fn cause_list(width: usize) -> String {
    let longest = RULES.iter().map(|rule| rule.id.len()).max().unwrap_or(0);
    let line = |rule: &Rule| wrap(&format!("{:<longest$}  ", rule.id), rule.title, width) + "\n";
    let lines: String = RULES.iter().map(line).collect();
    format!("{lines}\nIn the order of decision. dio-trace explain ID says more.\n")
}

/// The page of one cause.
#[must_use]
pub fn cause_page(rule: &Rule, width: usize) -> String {
    let title = format!("{}: {}", rule.id, rule.title);
    let part = |label: &str, text: &str| wrap(&format!("  {label:<9}"), text, width) + "\n";
    let mut page = [
        wrap("", &title, width) + "\n",
        part("means:", rule.means),
        part("proof:", rule.proof),
        part("fix:", rule.fix),
        part("where:", rule.on),
    ]
    .concat();
    for (i, behaviour) in history(rule.id).iter().enumerate() {
        page += &part(if i == 0 { "kernels:" } else { "" }, behaviour);
    }
    page
}

/// The scenario in words.
#[cfg(test)]
fn scenario(scenario: &Scenario) -> String {
    match scenario {
        Scenario::In(setups) => format!("scenarios: {}", setups.join(", ")),
        Scenario::Program(name) => format!("the scenario {name}"),
        Scenario::Needs(what) => format!("no scenario: needs {what}"),
    }
}

/// The text of docs/causes.md; a test compares the file with it.
#[cfg(test)]
pub(crate) fn cause_document() -> String {
    const WIDTH: usize = 100;
    let mut out = "\
# Causes

Why a request was not direct, was refused or came back short, and what to do: the rule table of
dio-trace, in the order of decision. The first rule that fits is taken; `cause` in the JSON
is its id. `dio-trace explain ID` shows the same on a terminal. A reason that is not proven for the
request at hand says \"likely\".

Generated from dio-trace/src/cause/rules/: `BLESS=1 cargo test -p dio-trace golden` regenerates it.
\"scenarios\" names the fixtures of xtask/scenarios/ in which a rule fires on real kernels. *Kernels*
are the lines of docs/kernels.md for the cause; where there are none, it does not depend on the
kernel, as far as is known.

| id | in short |
|---|---|
"
    .to_owned();
    for rule in RULES {
        out += &format!("| [{id}](#{id}) | {} |\n", rule.title, id = rule.id);
    }
    for rule in RULES {
        out += &format!("\n## {}\n\n**{}.**\n", rule.id, capital(rule.title));
        out += &format!("{}\n", wrap("", rule.means, WIDTH));
        for (label, text) in [
            ("Proof", rule.proof.to_owned()),
            ("Fix", rule.fix.to_owned()),
            ("Where", rule.on.to_owned()),
            ("Seen", scenario(&rule.scenario)),
        ] {
            out += &format!("\n{}\n", wrap("", &format!("*{label}:* {text}"), WIDTH));
        }
        let kernels: Vec<String> =
            history(rule.id).iter().map(|text| wrap("- ", text, WIDTH) + "\n").collect();
        if !kernels.is_empty() {
            out += &format!("\n*Kernels:*\n\n{}", kernels.concat());
        }
    }
    out
}

#[cfg(test)]
fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_fit_80_columns() {
        let pages = RULES.iter().map(|rule| cause_page(rule, 80)).chain([cause_list(80)]);
        for page in pages {
            assert!(page.lines().all(|line| line.chars().count() <= 80), "{page}");
        }
        assert!(cause_list(80).lines().count() == RULES.len() + 2, "{}", cause_list(80));
    }
}
