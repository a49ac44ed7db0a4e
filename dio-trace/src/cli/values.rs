//! Parsers for the values of command-line options.

use std::{path::PathBuf, time::Duration};

use clap::ValueEnum;
use dio_trace_common::verdict::Verdict;

use crate::{gate::Form, model::AttachMode};

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

/// Parses "10", "10s", "500ms", "200us", "2m", "1h".
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let scale = match unit {
        "" | "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err(format!("unknown unit `{unit}`: use us, ms, s, m or h")),
    };
    let value: f64 = number.parse().map_err(|_| format!("`{number}` is not a number"))?;
    Duration::try_from_secs_f64(value * scale)
        .ok()
        .filter(|d| !d.is_zero())
        .ok_or_else(|| "must be more than 0 and not absurdly long".to_owned())
}

/// Parses a verdict from its name.
pub(super) fn verdict(text: &str) -> Result<Verdict, String> {
    Verdict::ALL.iter().find(|verdict| verdict.as_str() == text).copied().ok_or_else(|| {
        let known: Vec<&str> = Verdict::ALL.iter().map(|verdict| verdict.as_str()).collect();
        format!("the verdicts are {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed() {
        assert_eq!(duration("10"), Ok(Duration::from_secs(10)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5m"), Ok(Duration::from_secs(90)));
        for bad in ["", "x", "-1", "0", "5d", "1e300h", "NaN"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
