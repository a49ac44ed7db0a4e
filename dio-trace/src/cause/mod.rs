//! Explains requests: one rule table maps a request's evidence and its file's attributes to a cause
//! (why it was not direct, short or failed) and a remedy.

mod case;
#[cfg(test)]
mod examples;
mod explain;
mod forecast;
pub mod history;
mod reason;
mod rules;
mod side_events;

use strsim::levenshtein;

pub use case::Case;
pub use explain::{Explanation, explain, wants_extents};
pub use forecast::forecast;
pub use reason::{Certainty, Reason, ReasonKind, RecentKinds};
pub use rules::{
    ALIGNMENT_PROBE, BUFFER_CHANGED, IO_ERRORS, LOOP_BUFFERED, Limits, NOT_EXPLAINED, PUNTED,
    RULES, WAITS, WOULD_BLOCK, limits_of,
};
pub use side_events::{
    DirectBy, Unasked, explain_file, explain_mixed, explain_rejected_open, explain_unasked,
    mixed_cause,
};

/// A row of the rule table: one cause.
pub struct Rule {
    /// Stable identifier: `cause` in JSON, and the argument of `dio-trace explain`.
    pub id: &'static str,
    /// The cause in one line.
    pub title: &'static str,
    /// What the cause means in general.
    pub means: &'static str,
    /// How the cause is proven for a request, or why it is only likely.
    pub proof: &'static str,
    /// The remedy for most requests; a [`Reason`] may have another.
    pub fix: &'static str,
    /// File systems, devices or situations in which the cause occurs.
    pub on: &'static str,
    pub scenario: Scenario,
    /// The reason why the rule fits the request; None if it does not.
    pub test: fn(&Case<'_>) -> Option<Reason>,
}

/// What makes a rule fire on a real kernel.
pub enum Scenario {
    /// The fixtures of xtask/scenarios/ in which the rule fires.
    In(&'static [&'static str]),
    /// A program of xtask/src/guest/scenarios/ makes it fire.
    Program(&'static str),
    /// No fixture makes it fire; the text says what that would need.
    Needs(&'static str),
}

/// The rule with this id.
#[must_use]
pub fn find(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.id == id)
}

/// The three ids nearest to `text`, which is likely misspelt; the nearest first.
#[must_use]
pub fn nearest(text: &str) -> Vec<&'static str> {
    const FEW: usize = 3;
    let mut near: Vec<(usize, &str)> =
        RULES.iter().map(|rule| (distance(text, rule.id), rule.id)).collect();
    near.sort_unstable();
    near.iter().take(FEW).map(|(_, id)| *id).collect()
}

/// Edit distance between two ids, or between their parts if that is less, so that "journal" is near
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
