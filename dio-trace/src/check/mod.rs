//! Answers whether O_DIRECT will be direct on a path. A forecast applies the rule table to the
//! file's attributes. A trial then proves it: small direct requests are made, and the file's cached
//! pages are counted during and after them. Needs neither eBPF nor root.
//!
//! - [`subject`]: the checked path and its attributes
//! - [`forecast`]: the forecast
//! - [`proofs`]: the trials, made once for each kind of file
//! - [`read`], [`new_file`]: reads of the file itself; writes to a temporary file in its directory
//! - [`watch`], [`cache`]: observation of the page cache
//! - [`trial`]: the result of a trial

mod buffer;
mod cache;
mod forecast;
mod new_file;
mod proofs;
mod read;
mod subject;
mod temporary;
mod trial;
mod watch;

use std::path::Path;

use anyhow::{Error, Result};
use dio_trace_common::{abi::Op, verdict::Verdict};
use serde::Serialize;

use proofs::{Proofs, Seen};
use subject::Subject;
pub use subject::What;
use trial::{Proof, Trial, Whose};

use crate::{
    cause::{
        Explanation, explain_rejected_open,
        history::{Comparison, Difference, Kernels},
    },
    enrich::PathInspector,
    flow::explained::SCHEMA,
    system::{
        file_attrs::AtomicLimits,
        file_users::{OpenFiles, OpenUser},
    },
    util::escape,
};

/// A kind of access to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    /// A write to blocks that are already allocated.
    Overwrite,
    /// A write past the end of the file.
    Extend,
}

/// The answer for one kind of access (docs/json.md).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Answer {
    /// A verdict as of a request; `unknown` if neither the rules nor a trial can decide it.
    pub verdict: Verdict,
    /// The verdict that the rules expect.
    pub forecast: Verdict,
    /// What was done and seen; `None` if nothing was tried or proven. The verdict is then the
    /// forecast.
    pub proof: Option<String>,
    /// The file on which the trial was made: `itself`, `new file` (a temporary file in its
    /// directory) or `sibling`.
    pub proof_of: Option<&'static str>,
    /// The path of the earlier trial whose result also holds for this path.
    pub sibling: Option<String>,
    pub cause: Option<&'static str>,
    pub why: Option<String>,
    pub fix: Option<String>,
    /// Why it was not proven.
    pub unproven: Option<String>,
}

/// The overall answer for a path, over all kinds of access. Worse answers compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Overall {
    Direct,
    Unknown,
    Not,
}

impl Overall {
    const fn of(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Unknown => Self::Unknown,
            past if is_past_cache(past) => Self::Direct,
            _ => Self::Not,
        }
    }
}

/// The combined answers of all kinds of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sum {
    overall: Overall,
    expected: Overall,
    proven: bool,
}

impl Sum {
    /// `Not` stands even if it is only a forecast, because it rests on a rule that is certain.
    /// `Direct` becomes `Unknown` unless every kind of access was proven.
    fn of<'a>(answers: impl Iterator<Item = &'a Answer>) -> Self {
        let answers: Vec<(Overall, bool)> =
            answers.map(|answer| (Overall::of(answer.verdict), answer.proof.is_some())).collect();
        let expected = answers.iter().map(|(each, _)| *each).max().unwrap_or(Overall::Unknown);
        let mut worst = answers.iter().filter(|(each, _)| *each == expected).map(|(_, seen)| *seen);
        let proven = match expected {
            Overall::Direct => worst.all(|seen| seen),
            Overall::Not => worst.any(|seen| seen),
            Overall::Unknown => false,
        };
        let overall =
            if expected == Overall::Direct && !proven { Overall::Unknown } else { expected };
        Self { overall, expected, proven }
    }
}

/// The answers about one path (docs/json.md).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Check"))]
pub struct Report {
    pub v: u32,
    pub kind: &'static str,
    pub path: String,
    pub what: What,
    pub fs: String,
    /// The source of the mount, as in /proc/PID/mountinfo.
    pub source: String,
    pub options: String,
    /// Required alignment of a buffer's address, in bytes.
    pub memory_align: Option<u32>,
    /// Required alignment of a request's offset and length, in bytes.
    pub offset_align: Option<u32>,
    /// Required alignment of a read's offset and length, in bytes, if it is smaller.
    pub read_offset_align: Option<u32>,
    /// The source of the alignment limits.
    pub limits: Option<&'static str>,
    /// Why the file needs more than its device, if that is known.
    pub limits_why: Option<String>,
    /// Limits of atomic writes (RWF_ATOMIC); `None` if the file takes none.
    pub atomic: Option<AtomicLimits>,
    /// Whether the device's queue can be polled (IORING_SETUP_IOPOLL); `None` if it is unknown.
    pub io_poll: Option<bool>,
    /// Names in /dev of the underlying devices.
    pub devices: Vec<String>,
    pub overall: Overall,
    /// The worst of the answers, including those that are forecasts.
    pub expected: Overall,
    /// True if `overall` was proven; otherwise it is a forecast, or unknown.
    pub proven: bool,
    pub read: Answer,
    /// `None` if the path cannot be written.
    pub overwrite: Option<Answer>,
    /// `None` if the path cannot be written, or is a device.
    pub extend: Option<Answer>,
    /// The processes that have the file or device open or mapped, with and without O_DIRECT.
    pub open_by: Vec<OpenUser>,
    /// Always `None`: a path that could not be checked has a [`Failure`] instead.
    pub error: Option<String>,
    /// What would differ on another kernel; `None` if none was named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_changes: Option<Comparison>,
}

/// A path that could not be checked (docs/json.md).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "CheckFailure"))]
pub struct Failure {
    pub v: u32,
    pub kind: &'static str,
    pub path: String,
    pub overall: Overall,
    pub proven: bool,
    pub error: String,
}

impl Failure {
    #[must_use]
    pub fn new(path: &Path, error: &Error) -> Self {
        Self {
            v: SCHEMA,
            kind: KIND,
            path: escape::path(path),
            overall: Overall::Unknown,
            proven: false,
            error: format!("{error:#}"),
        }
    }
}

const KIND: &str = "check";

/// Checks paths. The result of a trial on one path is reused for similar paths: see [`proofs`].
pub struct Checker {
    /// `None` if no trials are to be made.
    proofs: Option<Proofs>,
    looker: PathInspector,
    /// This kernel, and the one to compare it with.
    kernels: Option<Kernels>,
    /// What processes have open; looked up at the first file.
    open: Option<OpenFiles>,
}

impl Checker {
    /// Makes a checker, which makes trials only if `prove` is true.
    #[must_use]
    pub fn new(prove: bool) -> Self {
        let proofs = prove.then(Proofs::default);
        Self { proofs, looker: PathInspector::new(), kernels: None, open: None }
    }

    /// Also says what would differ on another kernel.
    #[must_use]
    pub fn comparing(self, kernels: Option<Kernels>) -> Self {
        Self { kernels, ..self }
    }

    /// Checks a path.
    ///
    /// # Errors
    /// If the path cannot be opened or is neither a file, a directory nor a block device.
    pub fn check(&mut self, path: &Path) -> Result<Report> {
        let subject = Subject::open(path, &mut self.looker)?;
        let seen =
            self.proofs.as_mut().map_or_else(Seen::refrained, |proofs| proofs.seen(&subject));
        let mut report = report(&subject, seen);
        if subject.what != What::Directory {
            report.open_by = open_by(path, self.open.get_or_insert_with(OpenFiles::now));
        }
        report.kernel_changes =
            self.kernels.as_ref().map(|kernels| compare(kernels, &subject, &report));
        Ok(report)
    }
}

fn report(subject: &Subject, seen: Seen) -> Report {
    let limits = subject.limits(Access::Overwrite);
    let read_limits = subject.limits(Access::Read);
    let writes = subject.writable();
    let read = answer(subject, Access::Read, seen.read);
    let overwrite = writes.then(|| answer(subject, Access::Overwrite, seen.overwrite));
    let extend =
        (writes && !subject.is_device()).then(|| answer(subject, Access::Extend, seen.extend));
    let answers = [Some(&read), overwrite.as_ref(), extend.as_ref()];
    let Sum { overall, expected, proven } = Sum::of(answers.into_iter().flatten());
    Report {
        v: SCHEMA,
        kind: KIND,
        path: subject.file.path.to_string(),
        what: subject.what,
        fs: subject.file.fs.to_string(),
        source: subject.source.clone(),
        options: subject.file.options.clone(),
        memory_align: limits.as_ref().map(|limits| limits.memory),
        offset_align: limits.as_ref().map(|limits| limits.offset),
        read_offset_align: read_limits
            .map(|read| read.offset)
            .filter(|offset| limits.as_ref().is_some_and(|limits| limits.offset != *offset)),
        limits_why: limits.as_ref().and_then(|limits| subject.limits_why(limits)),
        limits: limits.map(|limits| limits.source),
        atomic: subject.attrs().atomic,
        io_poll: subject.attrs().device.io_poll,
        devices: subject.attrs().device.layers.iter().map(|layer| layer.name.clone()).collect(),
        overall,
        expected,
        proven,
        read,
        overwrite,
        extend,
        open_by: Vec::new(),
        error: None,
        kernel_changes: None,
    }
}

/// The processes that have the path open or mapped, but for this one.
fn open_by(path: &Path, open: &OpenFiles) -> Vec<OpenUser> {
    let looked = path.canonicalize().and_then(|path| Ok((path.metadata()?, path)));
    looked.map_or_else(|_| Vec::new(), |(of, path)| open.users(&path, &of))
}

/// What differs on another kernel for the causes of the answers, and what begins there for such
/// requests on the subject's file system.
fn compare(kernels: &Kernels, subject: &Subject, report: &Report) -> Comparison {
    let answers = [Some(&report.read), report.overwrite.as_ref(), report.extend.as_ref()];
    let causes: Vec<&str> =
        answers.into_iter().flatten().filter_map(|answer| answer.cause).collect();
    let fs = subject.file.deciding().0;
    let ops: &[Op] = if subject.writable() { &[Op::Read, Op::Write] } else { &[Op::Read] };
    kernels.compare(|difference: &Difference| {
        causes.iter().any(|cause| difference.concerns(cause, fs))
            || ops.iter().any(|op| difference.begins(fs, *op))
    })
}

/// Combines the forecast with the result of a trial; a proof takes precedence.
fn answer(subject: &Subject, access: Access, result: Trial) -> Answer {
    let (expected, reason) = forecast::forecast(subject, access);
    let (verdict, reason) = match result.proof() {
        None => (expected, reason),
        Some(proof) if proof.at_open => {
            (proof.verdict, Some(explain_rejected_open(subject.file.deciding().0, true)))
        }
        Some(proof) if proof.verdict == expected => (expected, reason),
        Some(&Proof { verdict, errno, .. }) => {
            (verdict, forecast::explain(subject, access, verdict, errno))
        }
    };
    let (proof, unproven) = match result {
        Trial::Proven(proof) => (Some(proof), None),
        Trial::Nothing { why } => (None, Some(why)),
    };
    let (how, of) = proof.map(|proof| (proof.how, proof.of)).unzip();
    let cause = reason.as_ref().map(|reason| reason.id);
    let (why, fix) = reason.map(|Explanation { why, fix, .. }| (why, fix)).unzip();
    Answer {
        verdict,
        forecast: expected,
        proof: how,
        proof_of: of.as_ref().map(Whose::as_str),
        sibling: of.and_then(Whose::sibling),
        cause,
        why,
        fix,
        unproven,
    }
}

/// Whether a verdict means that the request did not use the page cache.
const fn is_past_cache(verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Direct | Verdict::Client | Verdict::Dax)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use super::*;

    fn check(path: &Path, prove: bool) -> Result<Report> {
        Checker::new(prove).check(path)
    }

    #[test]
    fn a_directory_has_the_same_forecast_with_and_without_trials() {
        let folder = tempfile::tempdir().unwrap();
        let tried = check(folder.path(), true).unwrap();
        let asked = check(folder.path(), false).unwrap();
        assert_eq!((tried.what, asked.what), (What::Directory, What::Directory));
        assert!(asked.read.proof.is_none() && asked.read.unproven.is_some());
        assert_eq!(tried.read.forecast, asked.read.forecast);
        assert_ne!(asked.overall, Overall::Direct);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn a_file_without_direct_io_is_refused_with_a_cause() {
        let report = check(Path::new("/proc/version"), true).unwrap();
        assert_eq!(report.read.verdict, Verdict::Refused);
        assert_eq!(report.read.cause, Some("open-refused"));
        assert_eq!(report.overall, Overall::Not);
    }

    #[test]
    fn a_path_that_cannot_be_checked_is_an_error() {
        assert!(check(Path::new("/nowhere"), true).is_err());
        assert!(check(Path::new("/dev/null"), true).is_err());
    }

    #[test]
    fn files_of_one_kind_share_trials_and_leave_no_descriptors() {
        const FILES: usize = 50;
        let folder = tempfile::tempdir().unwrap();
        let mut checker = Checker::new(true);
        let mut reports = Vec::new();
        let open = || fs::read_dir("/proc/self/fd").unwrap().count();
        let before = open();
        for n in 0..FILES {
            let path = folder.path().join(n.to_string());
            let mut file = fs::File::create_new(&path).unwrap();
            file.write_all(&vec![1; 64 << 10]).unwrap();
            cache::drop_pages(&file).unwrap();
            drop(file);
            reports.push(checker.check(&path).unwrap());
        }
        // Other tests of this process have open files too, but fewer than `FILES`.
        assert!(open() < before + FILES, "{before} descriptors, then {}", open());
        let (reads, new) = checker.proofs.unwrap().made;
        let first = reports[0].path.as_str();
        let last = &reports[FILES - 1];
        // A busy disk may leave one of the two unproven. The next file is then tried as well.
        let proven = |of: &Option<Answer>| of.as_ref().unwrap().proof.is_some();
        if proven(&reports[0].overwrite) && proven(&reports[0].extend) {
            assert_eq!(new, 1);
            let overwrite = last.overwrite.as_ref().unwrap();
            assert_eq!(overwrite.proof_of, Some("sibling"));
            assert_eq!(overwrite.sibling.as_deref(), Some(first));
        }
        if reports[0].read.proof_of == Some("itself") {
            assert_eq!(reads, 1);
            assert_eq!(last.read.sibling.as_deref(), Some(first));
        }
        assert!(new <= 3, "{new} new files");
    }

    fn summed(answers: &[(Verdict, bool)]) -> Sum {
        let answers: Vec<Answer> = answers
            .iter()
            .map(|(verdict, proven)| Answer {
                verdict: *verdict,
                forecast: *verdict,
                proof: proven.then(String::new),
                proof_of: None,
                sibling: None,
                cause: None,
                why: None,
                fix: None,
                unproven: None,
            })
            .collect();
        Sum::of(answers.iter())
    }

    #[test]
    fn the_worst_answer_counts_and_direct_must_be_proven() {
        use Overall::{Direct, Not, Unknown};
        use Verdict as V;
        let sum = |overall, expected, proven| Sum { overall, expected, proven };
        assert_eq!(summed(&[(V::Direct, true), (V::Client, true)]), sum(Direct, Direct, true));
        assert_eq!(summed(&[(V::Direct, true), (V::Client, false)]), sum(Unknown, Direct, false));
        assert_eq!(summed(&[(V::Direct, true), (V::Unknown, false)]), sum(Unknown, Unknown, false));
        let mixed = summed(&[(V::Unknown, false), (V::Memory, true), (V::Direct, true)]);
        assert_eq!(mixed, sum(Not, Not, true));
        assert_eq!(summed(&[(V::Fallback, false), (V::Direct, true)]), sum(Not, Not, false));
    }
}
