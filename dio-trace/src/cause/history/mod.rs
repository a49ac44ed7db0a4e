//! The kernel's own history: which behaviour that a rule explains began or ended in which release,
//! and by which commit.
//!
//! - [`version`]: the version of a kernel
//! - [`change`]: one behaviour, and whether a kernel has it
//! - [`table`]: the behaviours that are known, from 5.10 to 7.3
//! - [`compare`]: what differs between two kernels
//!
//! A version alone does not say everything: stable kernels have backports, and distributions have
//! more of them. What is not established is [`Holds::NotKnown`].

mod change;
mod compare;
#[cfg(test)]
mod measured;
mod table;
mod version;

pub use change::{Change, Commit, Effect, Holds, Stable, Turn};
pub use compare::{Comparison, Difference, Kernels};
pub use version::{KernelVersion, NotAVersion, Series};

/// The oldest and the newest series that the table covers.
pub const COVERED: (Series, Series) = (Series::new(5, 10), Series::new(7, 3));

/// All changes, by subject.
pub fn changes() -> impl Iterator<Item = &'static Change> {
    table::TABLES.iter().copied().flatten()
}

/// The changes that concern a rule.
pub fn changes_of(cause: &str) -> impl Iterator<Item = &'static Change> {
    changes().filter(move |change| change.causes.contains(&cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cause::find;

    fn turns(change: &'static Change) -> impl Iterator<Item = &'static Turn> {
        [&change.since, &change.until].into_iter().flatten()
    }

    #[test]
    fn ids_are_unique_and_causes_are_rules() {
        let ids: Vec<&str> = changes().map(|change| change.id).collect();
        for (i, change) in changes().enumerate() {
            let id = change.id;
            assert!(!ids[..i].contains(&id), "{id} twice");
            assert!(id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
            assert!(!change.causes.is_empty(), "{id}");
            for cause in change.causes {
                assert!(find(cause).is_some(), "{id}: there is no cause {cause}");
            }
        }
    }

    #[test]
    fn facts_are_texts_that_a_line_can_end() {
        for Change { id, fact, note, .. } in changes() {
            assert!(fact.len() > 10 && !fact.ends_with('.'), "{id}: {fact}");
            for text in [fact, note] {
                assert!(
                    !text.contains("  ") && !text.contains('|') && !text.ends_with(' '),
                    "{id}"
                );
            }
        }
    }

    #[test]
    fn ranges_are_in_order() {
        for change in changes() {
            let id = change.id;
            assert!(change.since.is_some() || change.until.is_some(), "{id} never changes");
            if let (Some(since), Some(until)) = (&change.since, &change.until) {
                assert!(since.release < until.release, "{id}");
            }
            for turn in turns(change) {
                assert!(turn.earliest.is_none_or(|earliest| earliest < turn.release), "{id}");
                assert!(turn.release <= COVERED.1, "{id}");
            }
        }
    }

    #[test]
    fn backports_are_to_older_series_and_one_for_each() {
        for change in changes() {
            for turn in turns(change) {
                let series: Vec<_> = turn.stable.iter().map(|stable| stable.series()).collect();
                for (i, each) in series.iter().enumerate() {
                    assert!(each.is_none_or(|each| each < turn.release), "{}", change.id);
                    assert!(!series[..i].contains(each), "{}: {each:?} twice", change.id);
                }
            }
        }
    }

    #[test]
    fn commits_have_hash_and_subject() {
        for change in changes() {
            for Commit { hash, subject } in turns(change).flat_map(|turn| turn.commits) {
                let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
                assert!((12..=40).contains(&hash.len()) && hash.chars().all(hex), "{hash}");
                assert!(subject.len() > 10 && !subject.contains(['|', '`']), "{hash}: {subject}");
                assert!(!subject.contains("  "), "{hash}: {subject}");
            }
        }
    }

    #[test]
    fn a_hash_has_one_subject() {
        let commits = || changes().flat_map(turns).flat_map(|turn| turn.commits);
        for one in commits() {
            for other in commits().filter(|other| other.hash == one.hash) {
                assert_eq!(one.subject, other.subject);
            }
        }
    }
}
