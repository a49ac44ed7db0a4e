//! Why, and what to do: one rule table over what a request left behind and what its file says.

mod case;
#[cfg(test)]
mod examples;
mod explain;
mod forecast;
mod rules;
mod side_events;

use strsim::levenshtein;

pub use case::Case;
pub use explain::{Explanation, explain, wants_extents};
pub use forecast::forecast;
pub use rules::{IO_ERRORS, Limits, NOT_EXPLAINED, RULES, limits_of};
pub use side_events::{DirectBy, explain_file, explain_mixed, explain_refusal, mixed_cause};

/// A row of the table.
pub struct Rule {
    /// Stable identifier: `cause` in JSON, and what `dio-trace explain` takes.
    pub id: &'static str,
    /// It in one line.
    pub title: &'static str,
    /// What it means in general.
    pub means: &'static str,
    /// How it is proven for a request, or why it is only likely.
    pub proof: &'static str,
    /// What to do about it.
    pub fix: &'static str,
    /// Where it is met.
    pub on: &'static str,
    pub scenario: Scenario,
    /// The reason in a sentence, if this rule fits; begins with "likely" where it is not proven
    /// for this request.
    pub test: fn(&Case<'_>) -> Option<String>,
}

/// What makes a rule fire on a real kernel.
pub enum Scenario {
    /// These set-ups of xtask/scenarios/.
    In(&'static [&'static str]),
    /// None of them: what it would need.
    Needs(&'static str),
}

/// The rule of that id.
#[must_use]
pub fn find(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.id == id)
}

/// Ids that `text` may have meant, the nearest first.
#[must_use]
pub fn nearest(text: &str) -> Vec<&'static str> {
    const FEW: usize = 3;
    let mut near: Vec<(usize, &str)> =
        RULES.iter().map(|rule| (distance(text, rule.id), rule.id)).collect();
    near.sort_unstable();
    near.iter().take(FEW).map(|(_, id)| *id).collect()
}

/// How far two ids are apart: edits between them, or between their parts, so that "journal" is near
/// "data-journal".
fn distance(a: &str, b: &str) -> usize {
    let theirs: Vec<&str> = b.split('-').collect();
    let nearest =
        |part: &str| theirs.iter().map(|other| levenshtein(part, other)).min().unwrap_or(0);
    let parts: usize = a.split('-').map(nearest).sum();
    levenshtein(a, b).min(parts + theirs.len().abs_diff(a.split('-').count()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_texts_say_something() {
        for (i, rule) in RULES.iter().enumerate() {
            let id = rule.id;
            assert!(RULES[..i].iter().all(|other| other.id != id), "{id} twice");
            assert!(id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            assert!(rule.title.chars().count() <= 54, "{id}: the title is too long for the list");
            for text in [rule.means, rule.proof, rule.fix] {
                assert!(text.len() > 20 && !text.contains("  "), "{id}: {text}");
            }
            assert!(!rule.on.is_empty(), "{id}");
        }
    }

    #[test]
    fn a_typing_error_is_near() {
        assert_eq!(nearest("mis-aligned")[0], "misaligned");
        assert_eq!(nearest("btrfs-checksum")[0], "btrfs-checksums");
        assert_eq!(nearest("journal")[0], "data-journal");
    }
}
