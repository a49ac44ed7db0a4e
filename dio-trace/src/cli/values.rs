//! Parsers for the values of command-line options, and the headings of their groups.

use std::{
    ffi::OsStr, fmt, marker::PhantomData, ops::RangeInclusive, path::PathBuf, str::FromStr,
    time::Duration,
};

use clap::{
    ValueEnum,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use dio_trace_common::verdict::Verdict;

use crate::{gate::Form, model::AttachMode};

/// Headings in the help.
pub(super) const SHOW: &str = "What to show";
pub(super) const TO: &str = "Where to";

/// A report file, and the format that its extension selects.
#[derive(Clone, Debug)]
pub(super) struct ReportFile {
    pub(super) path: PathBuf,
    pub(super) form: Form,
}

/// Parses the path of a report.
pub(super) fn report_file(text: &str) -> Result<ReportFile, String> {
    let path = PathBuf::from(text);
    let form = Form::of(&path).ok_or("its name must end in .json, .md or .xml")?;
    Ok(ReportFile { path, form })
}

/// When text is coloured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Mode {
    /// fentry where the kernel supports it, else kprobe
    Auto,
    Fentry,
    Kprobe,
}

impl Mode {
    /// The requested mode; `None` for automatic selection.
    pub(super) const fn wish(self) -> Option<AttachMode> {
        match self {
            Self::Auto => None,
            Self::Fentry => Some(AttachMode::Fentry),
            Self::Kprobe => Some(AttachMode::Kprobe),
        }
    }
}

/// Parses "10", "10s", "500ms", "200us", "2m", "1h", "7d".
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(format!("unknown unit `{unit}`: use us, ms, s, m, h or d")),
    };
    let value: f64 = number.parse().map_err(|_| format!("`{number}` is not a number"))?;
    Duration::try_from_secs_f64(value * scale)
        .ok()
        .filter(|d| !d.is_zero())
        .ok_or_else(|| "must be more than 0 and not absurdly long".to_owned())
}

/// Parses a verdict: help and completions list all of them.
pub(super) fn verdict() -> impl TypedValueParser<Value = Verdict> {
    PossibleValuesParser::new(Verdict::ALL.iter().map(|verdict| verdict.as_str())).try_map(|text| {
        Verdict::ALL.iter().find(|verdict| verdict.as_str() == text).copied().ok_or("not known")
    })
}

/// A value of `--only`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Only {
    Verdict(Verdict),
    /// A short count, whatever the verdict.
    Short,
}

impl Only {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Verdict(verdict) => verdict.as_str(),
            Self::Short => "short",
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        Verdict::ALL.iter().copied().map(Self::Verdict).chain([Self::Short])
    }
}

/// Parses a value of `--only`: help and completions list all of them.
pub(super) fn only() -> impl TypedValueParser<Value = Only> {
    PossibleValuesParser::new(Only::all().map(Only::as_str))
        .try_map(|text| Only::all().find(|only| only.as_str() == text).ok_or("not known"))
}

/// Parses by `FromStr`, and gives help and completions words to list that need not be all values.
#[derive(Clone)]
pub(super) struct Suggested<T> {
    words: Vec<&'static str>,
    of: PhantomData<T>,
}

impl<T> Suggested<T> {
    pub(super) fn new(words: impl IntoIterator<Item = &'static str>) -> Self {
        Self { words: words.into_iter().collect(), of: PhantomData }
    }
}

impl<T> TypedValueParser for Suggested<T>
where
    T: FromStr<Err: fmt::Display> + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let parser = |text: &str| text.parse::<T>().map_err(|error| error.to_string());
        parser.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(self.words.iter().map(PossibleValue::new)))
    }
}

/// Parses "500K", "100M" or "2G" to bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.trim_end_matches(['B', 'i']).as_bytes().last() {
        Some(b'K' | b'k') => (text.trim_end_matches(|c: char| c.is_ascii_alphabetic()), 10),
        Some(b'M' | b'm') => (text.trim_end_matches(|c: char| c.is_ascii_alphabetic()), 20),
        Some(b'G' | b'g') => (text.trim_end_matches(|c: char| c.is_ascii_alphabetic()), 30),
        _ => (text, 0),
    };
    let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift));
    bytes.filter(|n| *n > 0).ok_or_else(|| format!("`{text}` is not a size: 500K, 100M, 2G"))
}

/// Parses the size of the ring buffer.
pub(super) fn ring(text: &str) -> Result<u32, String> {
    // The probes wake the reader when 64 KiB are waiting.
    const FITS: RangeInclusive<u64> = 256 << 10..=1 << 30;
    let bytes = Some(size(text)?).filter(|bytes| FITS.contains(bytes));
    let fits = bytes.and_then(|bytes| u32::try_from(bytes).ok());
    fits.ok_or_else(|| "a ring buffer has from 256K to 1G".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_parsed() {
        assert_eq!((size("500K"), size("2GiB"), size("7")), (Ok(500 << 10), Ok(2 << 30), Ok(7)));
        assert!(["", "K", "0", "1T", "99999999999G"].iter().all(|bad| size(bad).is_err()));
        assert_eq!((ring("256K"), ring("1G")), (Ok(256 << 10), Ok(1 << 30)));
        assert!(["255K", "2G", "9G"].iter().all(|bad| ring(bad).is_err()));
    }

    #[test]
    fn durations_are_parsed() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(7 * 24 * 3600)));
        for bad in ["", "x", "-1", "0", "5w", "1e300d", "NaN"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
