//! [`Reason`]: why a rule fits a request, in one sentence, and whether that is proven.

use std::{
    fmt,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

/// Whether a reason is proven for the request at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// The evidence and the file's attributes prove what the sentence says.
    Proven,
    /// A part of the reason is a guess; the sentence says "likely" before that part.
    Likely,
}

/// The kind of a reason: the same for two reasons of one rule that differ only in numbers, such as
/// offsets, pages or process ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReasonKind(u64);

impl ReasonKind {
    /// The kind of a sentence: its words, without those that have a digit or depend on a number.
    pub(crate) fn of(sentence: &str) -> Self {
        const OF_NUMBER: &[&str] = &["has", "have", "is", "are", "was", "were"];
        let mut hasher = DefaultHasher::new();
        for word in sentence.split(|c: char| !c.is_alphanumeric()) {
            let varies = word.contains(|c: char| c.is_ascii_digit()) || OF_NUMBER.contains(&word);
            // "1 page" and "2 pages" are alike.
            let word = word.trim_end_matches('s');
            if !varies && !word.is_empty() {
                word.hash(&mut hasher);
            }
        }
        Self(hasher.finish())
    }
}

/// The reason of a rule that fits. Code that decides asks for the certainty, never for the words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    certainty: Certainty,
    sentence: String,
    fix: Option<String>,
}

impl Reason {
    /// A reason that is proven.
    pub fn proven(sentence: impl Into<String>) -> Self {
        Self { certainty: Certainty::Proven, sentence: sentence.into(), fix: None }
    }

    /// A reason that is only likely. `guess` is the sentence without the word "likely".
    pub fn likely(guess: impl fmt::Display) -> Self {
        Self { certainty: Certainty::Likely, sentence: format!("likely {guess}"), fix: None }
    }

    /// Ends this reason with a guess, which is written without the word "likely".
    #[must_use]
    pub fn and_likely(self, guess: impl fmt::Display) -> Self {
        let sentence = format!("{}: likely {guess}", self.sentence);
        Self { certainty: Certainty::Likely, sentence, fix: self.fix }
    }

    /// Gives this request another remedy than the rule has for most.
    #[must_use]
    pub fn with_fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// The remedy, if it is another than the rule's.
    #[must_use]
    pub fn fix(&self) -> Option<&str> {
        self.fix.as_deref()
    }

    /// The kind of the reason, by which outputs tell whether they have shown it.
    #[must_use]
    pub fn kind(&self) -> ReasonKind {
        ReasonKind::of(&self.sentence)
    }

    /// Whether the reason is proven.
    #[must_use]
    pub const fn certainty(&self) -> Certainty {
        self.certainty
    }
}

/// The sentence that every output shows.
impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_says_likely() {
        let shown = |reason: &Reason| (reason.certainty(), reason.to_string());
        let proven = Reason::proven("it is full");
        assert_eq!(shown(&proven), (Certainty::Proven, "it is full".to_owned()));
        let likely = Reason::likely("it is full");
        assert_eq!(shown(&likely), (Certainty::Likely, "likely it is full".to_owned()));
        let both = proven.and_likely("a log filled it");
        assert_eq!(
            shown(&both),
            (Certainty::Likely, "it is full: likely a log filled it".to_owned())
        );
    }

    #[test]
    fn reasons_that_differ_in_numbers_are_of_one_kind() {
        let kind = |sentence: &str| Reason::proven(sentence).kind();
        for (one, other) in [
            ("offset 100 is not a multiple of 512", "offset 7 is not a multiple of 4096"),
            ("1 cached page of this file was dropped", "3 cached pages of this file were dropped"),
            ("used directly by postgres/42", "used directly by postgres/43"),
        ] {
            assert_eq!(kind(one), kind(other), "{one}");
        }
        for (one, other) in [
            ("offset 100 is not a multiple of 512", "length 100 is not a multiple of 512"),
            ("offset 1 is not a multiple of 512", "offset 1, length 1 is not a multiple of 512"),
            ("used directly by postgres/42", "used directly by mysqld/42"),
        ] {
            assert_ne!(kind(one), kind(other), "{one}");
        }
        assert_ne!(Reason::likely("it is full").kind(), kind("it is full"));
    }
}
