//! Will O_DIRECT be direct here? Forecast from what the file says and from the rule table, then
//! proven by small requests and by what the page cache holds afterwards. Needs no eBPF, no root.
//!
//! - [`subject`]: what is asked about
//! - [`forecast`]: what its facts let expect
//! - [`probe`]: the requests
//! - [`cache`]: what the page cache shows

mod cache;
mod forecast;
mod probe;
mod subject;

use std::path::Path;

use anyhow::Result;
use dio_trace_common::verdict::Verdict;
use serde::Serialize;

use probe::Told;
use subject::Subject;

use crate::{
    cause::{Explanation, explain_refusal},
    record::SCHEMA,
};

/// What may be asked of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    /// A write to blocks that the file has.
    Overwrite,
    /// A write past the end of the file.
    Extend,
}

/// The answer for one kind of access (docs/json.md).
#[derive(Clone, Debug, Serialize)]
pub struct Answer {
    /// As of a request; `unknown` where nobody can tell.
    pub verdict: &'static str,
    /// What the rules expect.
    pub forecast: &'static str,
    /// What was done and seen; `None` if nothing was, or it told nothing.
    pub proof: Option<String>,
    pub cause: Option<&'static str>,
    pub why: Option<String>,
    pub fix: Option<String>,
    /// Why it was not proven.
    pub unproven: Option<String>,
}

/// Direct or not, over all kinds of access; the worse is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Overall {
    Direct,
    Unknown,
    Not,
}

/// All answers about one path (docs/json.md).
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub v: u32,
    pub kind: &'static str,
    pub path: String,
    /// `file`, `directory` or `device`
    pub what: &'static str,
    pub fs: String,
    /// What it is mounted from.
    pub source: String,
    pub options: String,
    /// What a buffer's address must be a multiple of, in bytes.
    pub memory_align: Option<u32>,
    /// What offset and length must be multiples of, in bytes.
    pub offset_align: Option<u32>,
    /// The same of reads, where it is less.
    pub read_offset_align: Option<u32>,
    /// Who said so.
    pub limits: Option<&'static str>,
    /// Devices below, as in /dev.
    pub devices: Vec<String>,
    pub overall: Overall,
    pub read: Answer,
    /// `None` where nothing can be written.
    pub overwrite: Option<Answer>,
    pub extend: Option<Answer>,
}

/// Asks about a path; `prove` makes small requests.
///
/// # Errors
/// If it cannot be looked at, or is neither a file, a directory nor a block device.
pub fn check(path: &Path, prove: bool) -> Result<Report> {
    let subject = Subject::open(path)?;
    let seen = if prove { probe::run(&subject) } else { probe::Seen::refrained() };
    let limits = subject.limits(Access::Overwrite);
    let read_limits = subject.limits(Access::Read);
    let writes = subject.writable();
    let read = answer(&subject, Access::Read, seen.read);
    let overwrite = writes.then(|| answer(&subject, Access::Overwrite, seen.overwrite));
    let extend =
        (writes && !subject.is_device()).then(|| answer(&subject, Access::Extend, seen.extend));
    let answers = [Some(&read), overwrite.as_ref(), extend.as_ref()];
    Ok(Report {
        v: SCHEMA,
        kind: "check",
        path: subject.file.path.clone(),
        what: subject.what.as_str(),
        fs: subject.file.fs.clone(),
        source: subject.source.clone(),
        options: subject.file.options.clone(),
        memory_align: limits.as_ref().map(|limits| limits.memory),
        offset_align: limits.as_ref().map(|limits| limits.offset),
        read_offset_align: read_limits
            .map(|read| read.offset)
            .filter(|offset| limits.as_ref().is_some_and(|limits| limits.offset != *offset)),
        limits: limits.map(|limits| limits.source),
        devices: subject.facts().device.layers.iter().map(|layer| layer.name.clone()).collect(),
        overall: overall(answers.into_iter().flatten()),
        read,
        overwrite,
        extend,
    })
}

fn overall<'a>(answers: impl Iterator<Item = &'a Answer>) -> Overall {
    answers
        .map(|answer| match answer.verdict {
            "direct" | "client" | "dax" => Overall::Direct,
            "unknown" => Overall::Unknown,
            _ => Overall::Not,
        })
        .max()
        .unwrap_or(Overall::Unknown)
}

/// Forecast and proof together: the proof wins.
fn answer(subject: &Subject, access: Access, told: Told) -> Answer {
    let (expected, reason) = forecast::forecast(subject, access);
    let (verdict, proof, unproven, reason) = match told {
        Told::Nothing { why } => (expected, None, Some(why), reason),
        Told::Proven { verdict, how, errno, at_open } => {
            let reason = if at_open {
                Some(explain_refusal(subject.file.deciding().0, true))
            } else if verdict == expected {
                reason
            } else {
                forecast::explain(subject, access, verdict, errno)
            };
            (verdict, Some(how), None, reason)
        }
    };
    let Explanation { id, why, fix } =
        reason.unwrap_or(Explanation { id: "", why: String::new(), fix: String::new() });
    let explained = !id.is_empty();
    Answer {
        verdict: verdict.as_str(),
        forecast: expected.as_str(),
        proof,
        cause: explained.then_some(id),
        why: explained.then_some(why),
        fix: explained.then_some(fix),
        unproven,
    }
}

/// Whether a verdict means that the page cache was not the way.
const fn is_past_cache(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Direct | Verdict::Client | Verdict::Dax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_on_a_disk_or_in_memory_gives_the_same_answers_by_asking_and_by_trying() {
        let folder = std::env::temp_dir();
        let tried = check(&folder, true).unwrap();
        let asked = check(&folder, false).unwrap();
        assert_eq!((tried.what, asked.what), ("directory", "directory"));
        assert!(asked.read.proof.is_none() && asked.read.unproven.is_some());
        assert_eq!(tried.read.forecast, asked.read.forecast);
        let left = std::fs::read_dir(&folder).unwrap().flatten();
        let mut left = left.map(|entry| entry.file_name().to_string_lossy().into_owned());
        assert!(!left.any(|name| name.starts_with(".dio-trace-check")));
    }

    #[test]
    fn what_has_no_direct_io_is_refused_and_says_why() {
        let report = check(Path::new("/proc/version"), true).unwrap();
        assert_eq!((report.read.verdict, report.read.cause), ("refused", Some("open-refused")));
        assert_eq!(report.overall, Overall::Not);
    }

    #[test]
    fn what_cannot_be_asked_is_an_error() {
        assert!(check(Path::new("/nowhere"), true).is_err());
        assert!(check(Path::new("/dev/null"), true).is_err());
    }

    #[test]
    fn the_worst_answer_counts() {
        let answer = |verdict| Answer {
            verdict,
            forecast: verdict,
            proof: None,
            cause: None,
            why: None,
            fix: None,
            unproven: None,
        };
        let of = |words: &[&'static str]| {
            let answers: Vec<Answer> = words.iter().map(|word| answer(*word)).collect();
            overall(answers.iter())
        };
        assert_eq!(of(&["direct", "client"]), Overall::Direct);
        assert_eq!(of(&["direct", "unknown"]), Overall::Unknown);
        assert_eq!(of(&["unknown", "memory", "direct"]), Overall::Not);
    }
}
