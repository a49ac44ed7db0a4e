//! Runs a program under strace and counts its direct requests: those that strace shows, and those
//! that the kernel's tracepoint counts for io_uring.
use std::{
    collections::HashMap,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::guest::{
    apps::{
        ring::Ring,
        strace::{self, Traced},
        watch::{Part, Seen},
    },
    contract::apps::{Counted, Ops},
};

/// The file for the program's output.
pub(super) const TALK: &str = "/tmp/apps.talk-of-program";

/// A running program, and both counters.
pub(super) struct Running {
    traced: Traced,
    ring: Ring,
    /// Where counting starts: the byte position in strace's output, and the tracepoint's count.
    from: (usize, Ops),
}

/// The counted requests: by file from strace, and in sum from the tracepoint.
#[derive(Debug)]
pub(super) struct Reference {
    by_path: HashMap<String, Ops>,
    ring: Ops,
}

impl Running {
    pub(super) fn start(command: &[&str], user: Option<&str>) -> Result<Self> {
        let ring = Ring::start()?;
        let traced = Traced::start(command, user, Path::new(TALK))?;
        Ok(Self { traced, ring, from: (0, Ops::default()) })
    }

    /// Waits until the program makes no call for a while.
    pub(super) fn settle(&self) -> Result<()> {
        const QUIET: Duration = Duration::from_millis(1500);
        const PATIENCE: Duration = Duration::from_secs(60);
        let start = Instant::now();
        let mut before = 0;
        loop {
            let now = self.traced.so_far()?.len();
            if now == before {
                return Ok(());
            }
            ensure!(start.elapsed() < PATIENCE, "the program does not become idle");
            before = now;
            thread::sleep(QUIET);
        }
    }

    /// Makes counting start here. The program must be idle.
    pub(super) fn mark(&mut self) -> Result<()> {
        self.from = (self.traced.so_far()?.len(), self.ring.so_far()?);
        Ok(())
    }

    /// The requests counted so far. The program must be idle.
    pub(super) fn so_far(&self) -> Result<Reference> {
        self.reference(&self.traced.so_far()?)
    }

    fn reference(&self, text: &str) -> Result<Reference> {
        let by_path = strace::requests(text, self.from.0);
        Ok(Reference { by_path, ring: self.ring.so_far()? - self.from.1 })
    }

    pub(super) fn is_running(&mut self) -> Result<bool> {
        self.traced.is_running()
    }

    /// Waits until the program exits; returns the counts.
    pub(super) fn end(self) -> Result<Reference> {
        let Self { traced, ring, from } = self;
        let text = traced.end().with_context(said)?;
        let by_path = strace::requests(&text, from.0);
        Ok(Reference { by_path, ring: ring.so_far()? - from.1 })
    }
}

/// The last lines of the program's output.
pub(super) fn said() -> String {
    let talk = fs::read_to_string(TALK).unwrap_or_default();
    let lines: Vec<&str> = talk.lines().rev().take(5).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
}

/// Runs a command until it exits; returns the counts.
pub(super) fn run(command: &[&str]) -> Result<Reference> {
    Running::start(command, None)?.end()
}

/// Fills a row with both counts of the requests to a file, or to all files below a folder.
pub(super) fn compare(row: &mut Counted, reference: &Result<Reference>, seen: &Seen, at: &Path) {
    let part = seen.below(at);
    row.missing = seen.missing();
    row.seen = part.ops;
    row.verdicts.clone_from(&part.verdicts);
    "strace".clone_into(&mut row.reference);
    let counted = match reference {
        Ok(counted) => counted,
        Err(error) => return row.complaints.push(format!("{error:#}")),
    };
    row.wanted = counted.ring;
    for (path, ops) in &counted.by_path {
        if Path::new(path).starts_with(at) {
            row.wanted += *ops;
        } else {
            row.complaints
                .push(format!("it used {path} directly, which is not below {}", at.display()));
        }
    }
    if counted.ring != Ops::default() {
        row.reference.push_str(", io_uring_submit_req");
    } else if row.wanted != row.seen {
        row.complaints.extend(differences(counted, &part));
    }
}

/// The first few files whose counts differ.
fn differences(counted: &Reference, part: &Part) -> Vec<String> {
    const SHOWN: usize = 4;
    let mut paths: Vec<&String> = counted.by_path.keys().chain(part.by_path.keys()).collect();
    paths.sort();
    paths.dedup();
    let of = |ops: Option<&Ops>| ops.copied().unwrap_or_default();
    let both = |path: &&String| (of(part.by_path.get(*path)), of(counted.by_path.get(*path)));
    let differ = paths.into_iter().map(|path| (path, both(&path))).filter(|(_, (a, b))| a != b);
    differ
        .take(SHOWN)
        .map(|(path, (seen, wanted))| format!("{path}: {seen}, not {wanted}"))
        .collect()
}
