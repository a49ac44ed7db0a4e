//! [`Reason`]: why a rule fits a request, in one sentence, and whether that is proven.

use std::fmt;

use ahash::HashMap;

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
        // FNV-1a: a collision would only hide a sentence.
        const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
        const PRIME: u64 = 0x0100_0000_01b3;
        let text = sentence.as_bytes();
        // The hashes of all words, of this word, and of this word without its last letter.
        let (mut all, mut word, mut shorter) = (BASIS, BASIS, BASIS);
        let (mut start, mut has_digit) = (0, false);
        for end in 0..=text.len() {
            let byte = text.get(end).copied().unwrap_or(b' ');
            if byte.is_ascii_alphabetic() || !byte.is_ascii() {
                shorter = word;
                word = (word ^ u64::from(byte)).wrapping_mul(PRIME);
            } else if byte.is_ascii_digit() {
                has_digit = true;
            } else {
                let letters = &text[start..end];
                let of_number =
                    matches!(letters, b"has" | b"have" | b"is" | b"are" | b"was" | b"were");
                if !has_digit && !of_number && !letters.is_empty() {
                    // "1 page" and "2 pages" are alike.
                    let hash = if letters.ends_with(b"s") { shorter } else { word };
                    all = (all ^ hash).wrapping_mul(PRIME);
                }
                (word, start, has_digit) = (BASIS, end + 1, false);
            }
        }
        Self(all)
    }
}

/// The kind of the sentence seen last, by rule: most findings of a rule have the same sentence.
#[derive(Debug, Default)]
pub struct RecentKinds(HashMap<&'static str, (String, ReasonKind)>);

impl RecentKinds {
    /// [`ReasonKind::of`] a sentence of a rule.
    pub(crate) fn of(&mut self, rule: &'static str, sentence: &str) -> ReasonKind {
        if let Some((known, kind)) = self.0.get(rule)
            && known == sentence
        {
            return *kind;
        }
        let kind = ReasonKind::of(sentence);
        self.0.insert(rule, (sentence.to_owned(), kind));
        kind
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
        let kind = ReasonKind::of;
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
        assert_ne!(kind("likely it is full"), kind("it is full"));
    }
}
