//! The text output of tracing and `report`: a line per finding with its cause and remedy, then the
//! closing summary.

use std::io::{self, Write};

use ahash::HashSet;
use anyhow::Result;
use dio_trace_common::{
    abi::{Op, Stat},
    verdict::{Outcome, Verdict},
};

use crate::{
    flow::{
        alignment_probe::AlignmentProbeRow,
        explained::ExplainedRequest,
        group::Groups,
        lost::LostRow,
        nowait::NowaitRow,
        side_events::{MixedAccess, MixedRow, RejectedOpenRow},
        sink::Sink,
        summary::{FileRow, Summary},
        unasked::UnaskedRow,
    },
    output::text::{
        cause_blocks::cause_blocks,
        columns::{bytes, head, left, right, with_path, wrap},
        groups::{CLOSING_ROWS, MAX_ROWS, groups, per_second},
        said::{Bounds, End, Said, Why},
    },
    system::stack::Stack,
    util::{
        clock::{Shown, Zone},
        figures::{about, count, counted, duration},
    },
};

/// How text is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    pub width: usize,
    pub colour: bool,
    /// Truncate paths and stack frames to the width; off if stdout is not a terminal.
    pub cut: bool,
    /// Print every request, not only findings.
    pub all: bool,
    /// Leave out no findings of a cause, and no rows.
    pub verbose: bool,
}

/// Maximum number of names that are remembered; at the limit all are forgotten.
const MAX_NAMED: usize = 65_536;
/// Maximum number of notes, and of mixed files.
const MAX_NOTES: usize = 20;

/// Writes findings and the summary as text.
pub struct Screen<W> {
    out: W,
    style: Style,
    said: Said,
    /// Processes and names that were already printed in a `by:` line.
    named: HashSet<(u32, String)>,
    /// Causes whose reason was shown, in the order shown.
    causes: Vec<&'static str>,
    headed: bool,
    /// The zone of all times.
    shown: Shown,
    /// The day of the lines, once its date was printed.
    day: Option<i64>,
}

impl<W: Write> Screen<W> {
    pub fn new(out: W, style: Style, shown: Shown) -> Self {
        Self {
            out,
            style,
            said: Said::default(),
            named: HashSet::default(),
            causes: Vec::new(),
            headed: false,
            shown,
            day: None,
        }
    }

    /// Call this if the zone and the date of `time` are already printed.
    pub fn begin(&mut self, time: u64) {
        self.day = Some(self.shown.zone.day(time));
    }

    /// The writer.
    pub const fn get_ref(&self) -> &W {
        &self.out
    }

    /// Writes the line of a side event.
    fn side_event(
        &mut self,
        time: u64,
        (comm, pid): (&str, u32),
        op: &str,
        word: &str,
        decided: (Verdict, Option<Outcome>),
        path: &str,
    ) -> io::Result<()> {
        self.heading(time)?;
        let fixed = no_request(&self.shown.zone, time, (comm, pid), op);
        self.verdict_and_path(fixed, decided, word, path)
    }

    /// Writes the heading before the first line, and the date when it changes: lines have only the
    /// time of day.
    fn heading(&mut self, time: u64) -> io::Result<()> {
        let day = self.shown.zone.day(time);
        if self.headed && self.day == Some(day) {
            return Ok(());
        }
        let is_first = self.day.is_none();
        let is_new = self.day != Some(day);
        let date = self.shown.zone.date(time);
        if is_first {
            let text = format!("{date}, {}", self.shown.text());
            writeln!(self.out, "{}", wrap("times:  ", &text, self.style.width))?;
        }
        if !self.headed {
            self.headed = true;
            let line = heading();
            let (fixed, last) = line.split_at(line.len() - "FILE".len());
            self.with_path(fixed.to_owned(), fixed.len(), last)?;
        }
        if is_new && !is_first {
            writeln!(self.out, "date:   {date}")?;
        }
        self.day = Some(day);
        Ok(())
    }

    fn line(&mut self, r: &ExplainedRequest) -> io::Result<()> {
        let fixed = request(&self.shown.zone, r);
        self.verdict_and_path(fixed, (r.verdict, r.outcome), verdict_word(r), &r.path)
    }

    /// Writes the end of a line: the word of the verdict, and the path.
    fn verdict_and_path(
        &mut self,
        mut line: String,
        decided: (Verdict, Option<Outcome>),
        word: &str,
        path: &str,
    ) -> io::Result<()> {
        let used = line.chars().count() + word.len().max(8) + 1;
        self.paint(&mut line, decided, word);
        line.push(' ');
        self.with_path(line, used, path)
    }

    /// Remembers a cause for the last line, which names `dio-trace explain`.
    fn remember(&mut self, cause: &'static str) {
        if !self.causes.contains(&cause) {
            self.causes.push(cause);
        }
    }

    /// True if no line is left out.
    pub const fn has_every_line(&self) -> bool {
        self.style.all
    }

    /// Which lines are left out.
    const fn bounds(&self) -> Bounds {
        match self.style {
            Style { all: true, .. } => Bounds::None,
            Style { verbose: true, .. } => Bounds::Kinds,
            _ => Bounds::Few,
        }
    }

    /// Writes the reason and the remedy, as far as they were not written before.
    fn why(&mut self, how: Why, cause: &'static str, (why, fix): (&str, &str)) -> io::Result<()> {
        let width = self.style.width;
        match how {
            Why::Silent => Ok(()),
            Why::AsAbove => writeln!(self.out, "  why: as above: {cause}"),
            Why::New { fix: is_new } => {
                self.remember(cause);
                writeln!(self.out, "{}", wrap("  why: ", why, width))?;
                if is_new { writeln!(self.out, "{}", wrap("  fix: ", fix, width)) } else { Ok(()) }
            }
        }
    }

    /// Writes the line that ends the lines of a kind or of a cause.
    fn end(&mut self, end: Option<End>, cause: Option<&str>) -> io::Result<()> {
        match (end, cause) {
            (None, _) => Ok(()),
            (Some(End::Cause), Some(cause)) => {
                let text = format!("further lines about {cause} are left out (--verbose has them)");
                writeln!(self.out, "{}", wrap("  ", &text, self.style.width))
            }
            (Some(_), _) => writeln!(self.out, "  more like this are only counted"),
        }
    }

    /// Writes the title and thread of the process, if they say more than the name in the line; once
    /// per process and text.
    fn by(&mut self, record: &ExplainedRequest) -> io::Result<()> {
        let thread = record.thread.as_ref().map(|thread| format!("thread {thread}"));
        let names: Vec<&str> =
            record.cmdline.as_deref().into_iter().chain(thread.as_deref()).collect();
        let text = names.join(", ");
        if self.named.len() >= MAX_NAMED {
            self.named.clear();
        }
        if text.is_empty() || !self.named.insert((record.pid, text.clone())) {
            return Ok(());
        }
        writeln!(self.out, "{}", wrap("  by:  ", &text, self.style.width))
    }

    /// Writes the program's stack, the innermost function first.
    fn stack(&mut self, stack: &Stack) -> io::Result<()> {
        let mut label = "  at:  ";
        for frame in &stack.frames {
            let text = frame.text();
            let room = self.style.width.saturating_sub(label.len());
            let text = if self.style.cut { head(&text, room) } else { text };
            writeln!(self.out, "{label}{text}")?;
            label = "       ";
        }
        Ok(())
    }

    /// Writes the columns of a line and its path. The first `used` characters of the line are taken;
    /// `fixed` has colours as well.
    fn with_path(&mut self, fixed: String, used: usize, path: &str) -> io::Result<()> {
        let width = if self.style.cut { self.style.width } else { usize::MAX };
        let mut line = with_path(fixed, used, path, width);
        line.push('\n');
        self.out.write_all(line.as_bytes())
    }

    /// Appends the padded word, coloured by severity.
    fn paint(&self, line: &mut String, decided: (Verdict, Option<Outcome>), word: &str) {
        let (verdict, outcome) = decided;
        let colour = match verdict {
            _ if !self.style.colour => return left(line, word, 8),
            Verdict::Fallback | Verdict::Partial | Verdict::Failed => "\x1b[31m",
            Verdict::Refused | Verdict::Unknown => "\x1b[33m",
            _ if outcome.is_some_and(Outcome::is_short) => "\x1b[36m",
            _ => "\x1b[32m",
        };
        line.push_str(colour);
        left(line, word, 8);
        line.push_str("\x1b[0m");
    }

    /// Writes the end of a run whose rows were already shown (`top`).
    ///
    /// # Errors
    /// Errors of the writer.
    pub fn closing(&mut self, summary: &Summary) -> io::Result<()> {
        self.counts(summary)?;
        self.coverage(summary)?;
        self.answer(summary)
    }

    /// Writes the end of a run without its answer: rows, what the tool did and did not see, and the
    /// causes.
    ///
    /// # Errors
    /// Errors of the writer.
    pub fn body(&mut self, summary: &Summary) -> io::Result<()> {
        if self.headed {
            writeln!(self.out)?;
        }
        self.table(summary)?;
        self.notes(&summary.files)?;
        for row in summary.mixed.iter().take(MAX_NOTES) {
            self.mixed(row)?;
        }
        self.unasked(&summary.unasked)?;
        for row in summary.nowait.iter().take(MAX_NOTES) {
            self.nowait(row)?;
        }
        for row in summary.alignment_probes.iter().take(MAX_NOTES) {
            self.alignment_probe(row)?;
        }
        if !self.causes.is_empty() {
            let text = format!("dio-trace explain {}", self.causes.join(" "));
            writeln!(self.out, "{}", wrap("more:   ", &text, self.style.width))?;
        }
        self.moved(summary)?;
        self.coverage(summary)?;
        write!(self.out, "{}", cause_blocks(&summary.causes, self.style))?;
        self.counts(summary)
    }

    /// Writes the notes on direct requests, each once.
    fn notes(&mut self, rows: &[FileRow]) -> io::Result<()> {
        let mut said: Vec<&str> = Vec::new();
        for row in rows {
            let (Some(cause), Some(why)) = (row.cause, &row.why) else { continue };
            if said.len() < MAX_NOTES && !said.contains(&why.as_str()) {
                said.push(why);
                writeln!(self.out, "{}", wrap("note:   ", why, self.style.width))?;
                self.remember(cause);
            }
        }
        Ok(())
    }

    /// Writes how many requests there are by verdict, if the answer does not say that.
    fn counts(&mut self, s: &Summary) -> io::Result<()> {
        if s.findings == 0 {
            return Ok(());
        }
        writeln!(self.out, "{}", wrap("", &s.headline(), self.style.width))
    }

    /// Writes the run in one sentence.
    ///
    /// # Errors
    /// Errors of the writer.
    pub fn answer(&mut self, s: &Summary) -> io::Result<()> {
        write!(self.out, "{}", answer(s, self.style.width))?;
        self.out.flush()
    }

    /// Writes the closing table.
    fn table(&mut self, s: &Summary) -> io::Result<()> {
        let Some(Groups { by, asked, rows }) = &s.groups else { return Ok(()) };
        let most = if *asked { MAX_ROWS } else { CLOSING_ROWS };
        if rows.is_empty() && !asked {
            return Ok(());
        }
        write!(self.out, "{}", groups(rows, *by, self.style, most, s.lasted_ns))
    }

    /// Writes how many bytes were moved, and how fast.
    fn moved(&mut self, s: &Summary) -> io::Result<()> {
        let Some(ns) = s.lasted_ns.filter(|_| s.bytes.total != 0) else { return Ok(()) };
        let (total, rate) = (about(s.bytes.total), about(per_second(s.bytes.total, ns)));
        let (share, time) = (s.bytes.direct_text(), duration(ns));
        let text = format!("{total} bytes in {time}, {rate}/s; {share} past the page cache");
        writeln!(self.out, "{}", wrap("moved:  ", &text, self.style.width))
    }

    /// Writes a mixed file: the users of both sides, and the side effects.
    fn mixed(&mut self, row: &MixedRow) -> io::Result<()> {
        let direct: Vec<String> = if row.is_by_itself() {
            vec!["the same process".to_owned()]
        } else {
            row.direct.iter().map(|u| format!("{}/{}", u.comm, u.pid)).collect()
        };
        let cached: Vec<String> = row
            .cached
            .iter()
            .map(|u| {
                let (cached, dirtied) = (count(u.pages_cached), count(u.pages_dirtied));
                format!("{}/{} (pages cached {cached}, dirtied {dirtied})", u.comm, u.pid)
            })
            .collect();
        let text = format!(
            "{}: through the page cache by {}; directly by {}; cost direct requests {} pages \
             flushed, {} dropped",
            row.path,
            cached.join(", "),
            direct.join(", "),
            count(row.flushed_pages),
            count(row.invalidated_pages),
        );
        writeln!(self.out, "{}", wrap("mixed:  ", &text, self.style.width))
    }

    /// Writes the files that were used without O_DIRECT, and are expected to be used directly.
    fn unasked(&mut self, rows: &[UnaskedRow]) -> io::Result<()> {
        let Some(first) = rows.first() else { return Ok(()) };
        for row in rows.iter().take(MAX_NOTES) {
            let text = wrap("not asked: ", &unasked(row), self.style.width);
            writeln!(self.out, "{text}")?;
        }
        if rows.len() > MAX_NOTES {
            let more =
                format!("{} more (--json lists all)", count((rows.len() - MAX_NOTES) as u64));
            writeln!(self.out, "{}", wrap("not asked: ", &more, self.style.width))?;
        }
        writeln!(self.out, "{}", wrap("  fix:  ", &first.fix, self.style.width))?;
        self.remember(first.cause);
        Ok(())
    }

    /// Writes a file on which RWF_NOWAIT gains nothing.
    fn nowait(&mut self, row: &NowaitRow) -> io::Result<()> {
        let text = format!("{}: of {}/{}, {}", row.user.path, row.user.comm, row.user.pid, row.why);
        writeln!(self.out, "{}", wrap("nowait: ", &text, self.style.width))?;
        writeln!(self.out, "{}", wrap("  fix:  ", &row.fix, self.style.width))?;
        self.remember(row.cause);
        Ok(())
    }

    /// Writes the note on a process's alignment probes of a file.
    fn alignment_probe(&mut self, row: &AlignmentProbeRow) -> io::Result<()> {
        let text = format!("{}: of {}/{}, {}", row.user.path, row.user.comm, row.user.pid, row.why);
        writeln!(self.out, "{}", wrap("note:   ", &text, self.style.width))?;
        self.remember(row.cause);
        Ok(())
    }

    fn coverage(&mut self, s: &Summary) -> io::Result<()> {
        let lost: Vec<String> = s
            .lost
            .iter()
            .filter(|(_, n)| **n != 0)
            .map(|(reason, n)| format!("{} ({reason})", count(*n)))
            .collect();
        let skipped: u64 = s.skipped_runs.values().sum();
        let mut seen = format!(
            "{} ended, {} in flight, {} unmatched; lost {}; cannot tell {}",
            count(s.ended()),
            count(s.in_flight),
            count(s.unmatched),
            if lost.is_empty() { "none".to_owned() } else { lost.join(", ") },
            count(s.requests.get("unknown").copied().unwrap_or(0)),
        );
        if skipped != 0 {
            seen.push_str(&format!("; probe runs skipped by the kernel {}", count(skipped)));
        }
        if s.buffers_compared != 0 {
            seen.push_str(&format!("; buffers compared {}", count(s.buffers_compared)));
        }
        writeln!(self.out, "{}", wrap("seen:   ", &seen, self.style.width))?;
        if s.lost.get(Stat::LostEvent.as_str()).is_some_and(|n| *n != 0) {
            let text = "--ring SIZE holds longer bursts of events, filters make fewer of them \
                        (--op, --min-latency, --container); the sums have every request";
            writeln!(self.out, "{}", wrap("lost:   ", text, self.style.width))?;
        }
        let probes =
            format!("{} attached by {}, kernel {}", s.probes.attached.len(), s.attach, s.kernel);
        writeln!(self.out, "{}", wrap("probes: ", &probes, self.style.width))?;
        for missing in &s.probes.missing {
            let text = format!("{}: {}", missing.probe, missing.why);
            writeln!(self.out, "{}", wrap("missing: ", &text, self.style.width))?;
        }
        Ok(())
    }
}

impl<W: Write> Sink for Screen<W> {
    /// Writes a request: with each reason of a cause once, and with the remedy where it is not the
    /// one that was shown last.
    fn request(&mut self, record: &ExplainedRequest) -> Result<()> {
        if !record.finding && !self.style.all {
            return Ok(());
        }
        let Some(lines) = self.said.request(record, self.bounds()) else { return Ok(()) };
        self.heading(record.time)?;
        self.line(record)?;
        self.by(record)?;
        if let (Some(cause), Some(why), Some(fix)) = (record.cause, &record.why, &record.fix) {
            self.why(lines.why, cause, (why, fix))?;
        }
        if let (true, Some(stack)) = (lines.is_first, &record.stack) {
            self.stack(stack)?;
        }
        Ok(self.end(lines.end, record.cause)?)
    }

    /// Writes a number of requests whose lines were lost. Called only if [`Self::has_every_line`].
    fn lost_requests(&mut self, row: &LostRow) -> Result<()> {
        let user = &row.user;
        let op = format!("{}  {} lost", letter(row.op), counted(row.requests, "line"));
        let decided = (row.verdict, row.outcome);
        let by = (&user.comm[..], user.pid);
        let word = word_of(row.verdict, row.outcome);
        Ok(self.side_event(row.time, by, &op, word, decided, &user.path)?)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }

    /// Writes a rejected open, with the reason.
    fn rejected_open(&mut self, row: &RejectedOpenRow) -> Result<()> {
        let text = (&row.why[..], &row.fix[..]);
        let Some(lines) = self.said.side_event(row.cause, text, self.bounds()) else {
            return Ok(());
        };
        let decided = (Verdict::Refused, None);
        self.side_event(
            row.time,
            (&row.user.comm, row.user.pid),
            row.call,
            row.errno,
            decided,
            &row.user.path,
        )?;
        self.why(lines.why, row.cause, text)?;
        Ok(self.end(lines.end, Some(row.cause))?)
    }

    /// Writes that a process uses a file through the page cache which is also used directly.
    fn mixed_access(&mut self, m: &MixedAccess) -> Result<()> {
        let text = (&m.why[..], &m.fix[..]);
        let Some(lines) = self.said.side_event(m.cause, text, self.bounds()) else {
            return Ok(());
        };
        let decided = (Verdict::Partial, None);
        let op = if m.writes { "W" } else { "R" };
        self.side_event(m.time, (&m.comm, m.pid), op, m.word, decided, &m.path)?;
        self.why(lines.why, m.cause, text)?;
        Ok(self.end(lines.end, Some(m.cause))?)
    }

    /// Writes the end of a run; its last lines are the answer.
    fn summary(&mut self, summary: &Summary) -> Result<()> {
        self.body(summary)?;
        Ok(self.answer(summary)?)
    }
}

/// What a process did with a file without O_DIRECT.
fn unasked(row: &UnaskedRow) -> String {
    let did = |calls: u64, what: &str, bytes: u64| {
        (calls != 0).then(|| format!("{} ({} bytes)", counted(calls, what), about(bytes)))
    };
    let reads = did(row.reads, "read", row.read_bytes);
    let writes = did(row.writes, "write", row.write_bytes);
    let mappings = did(row.mappings, "mapping", row.mapped_bytes);
    let calls: Vec<String> = [reads, writes, mappings].into_iter().flatten().collect();
    let user = &row.user;
    format!("{}: {} by {}/{}; {}", user.path, calls.join(", "), user.comm, user.pid, row.why)
}

/// The run in one sentence.
#[must_use]
pub fn answer(summary: &Summary, width: usize) -> String {
    wrap("answer: ", &summary.answer, width) + "\n"
}

/// The heading over lines of requests.
pub(crate) fn heading() -> String {
    format!(
        "{:<8} {:<15} {:<2} {:>8} {:>5} {:>6} {:<8} FILE",
        "TIME", "PROCESS/PID", "OP", "OFFSET", "LEN", "GOT", "VERDICT"
    )
}

pub(crate) const fn letter(op: Op) -> &'static str {
    match op {
        Op::Read => "R",
        Op::Write => "W",
    }
}

/// The columns of a request's line before its verdict.
pub(crate) fn request(zone: &Zone, r: &ExplainedRequest) -> String {
    let mut line = begun(zone, r.time, &r.comm, r.pid);
    left(&mut line, letter(r.op), 2);
    let got = r.errno.as_ref().map_or_else(|| bytes(r.ret.unsigned_abs()), String::clone);
    let offset = bytes(r.offset.max(0).unsigned_abs());
    for (text, width) in [(offset, 8), (bytes(r.len), 5), (got, 6)] {
        line.push(' ');
        right(&mut line, &text, width);
    }
    line.push(' ');
    line
}

/// The columns of a side event's line before its word.
pub(crate) fn no_request(zone: &Zone, time: u64, (comm, pid): (&str, u32), op: &str) -> String {
    let mut line = begun(zone, time, comm, pid);
    left(&mut line, op, 24);
    line.push(' ');
    line
}

/// The first columns of a line: the time, and `comm/pid`, the name truncated to fit.
fn begun(zone: &Zone, time: u64, comm: &str, pid: u32) -> String {
    // For the whole line, in most cases.
    let mut line = String::with_capacity(160);
    line.push_str(&zone.time_of_day(time));
    line.push(' ');
    let mut pid = pid.to_string();
    pid.insert(0, '/');
    let name = head(comm, 15_usize.saturating_sub(pid.len()));
    left(&mut line, &(name + &pid), 15);
    line.push(' ');
    line
}

/// The word in the verdict column: the verdict, or the outcome of a healthy request that was short.
pub(crate) fn verdict_word(record: &ExplainedRequest) -> &'static str {
    word_of(record.verdict, record.outcome)
}

fn word_of(verdict: Verdict, outcome: Option<Outcome>) -> &'static str {
    use Verdict::{Cached, Client, Dax, Direct, Memory, Uncached};
    let healthy = matches!(verdict, Direct | Client | Dax | Memory | Cached | Uncached);
    match outcome {
        Some(outcome) if healthy && outcome.is_short() => outcome.as_str(),
        _ => verdict.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cause::ReasonKind, output::text::said::REASONS, testing::golden::run};

    const STYLE: Style = Style { width: 80, colour: false, cut: true, all: true, verbose: false };

    /// The lines about zone and date, and the times of the other lines, for a request at each of
    /// `times`.
    fn said(began: Option<u64>, times: &[u64]) -> Vec<String> {
        let zone = Zone { offset: 3_600, name: Some("Europe/Berlin".to_owned()) };
        let mut screen = Screen::new(Vec::new(), STYLE, Shown::recorded(Some(&zone), false));
        if let Some(began) = began {
            screen.begin(began);
        }
        let mut record = run().0.swap_remove(0);
        for time in times {
            record.time = *time;
            screen.request(&record).unwrap();
        }
        let text = String::from_utf8(screen.get_ref().clone()).unwrap();
        let line = |line: &str| match line.split_once(' ') {
            Some(("times:" | "date:", _)) => line.to_owned(),
            _ => line[..8].to_owned(),
        };
        text.lines().map(line).collect()
    }

    #[test]
    fn the_zone_is_printed_once_and_the_date_when_it_changes() {
        const SECOND: u64 = 1_000_000_000;
        // 2026-01-02 22:59:59 UTC: a second before midnight in Berlin.
        let last = 1_767_394_799 * SECOND;
        let times = [last, last + SECOND, last + 2 * SECOND];
        let zone = "Europe/Berlin (+01:00), the recording host's zone";
        let heading = "TIME    ".to_owned();
        let lines = ["23:59:59", "date:   2026-01-03", "00:00:00", "00:00:01"].map(str::to_owned);
        let mut live = vec![format!("times:  2026-01-02, {zone}"), heading.clone()];
        live.extend(lines.clone());
        assert_eq!(said(None, &times), live);
        let mut reported = vec![heading];
        reported.extend(lines);
        assert_eq!(said(Some(last - SECOND), &times), reported);
    }

    /// The text for findings of one cause and file that have these reasons.
    fn said_for(reasons: &[String]) -> String {
        let style = Style { all: false, ..STYLE };
        let mut screen = Screen::new(Vec::new(), style, Shown::ASKED);
        let mut record = run().0.swap_remove(4);
        for reason in reasons {
            record.reason = Some(ReasonKind::of(reason));
            record.why = Some(reason.clone());
            screen.request(&record).unwrap();
        }
        String::from_utf8(screen.get_ref().clone()).unwrap()
    }

    #[test]
    fn each_reason_of_a_cause_is_shown_once_and_the_remedy_once_for_all() {
        let address = |n: u32| format!("the buffer is {n} bytes past a multiple of 512");
        let mut reasons: Vec<String> = (1..=5).map(address).collect();
        reasons.push("a segment's length is not a multiple of 512".to_owned());
        reasons.extend((6..=9).map(address));
        let text = said_for(&reasons);
        assert_eq!(text.matches("/data/odd.db").count(), 3 + 1, "{text}");
        assert_eq!(text.matches("  why: ").count(), 2, "{text}");
        assert_eq!(text.matches("  fix: ").count(), 1, "{text}");
    }

    #[test]
    fn the_reasons_of_a_cause_are_bounded() {
        let letters = || 'a'..='z';
        let names = letters().flat_map(|a| letters().map(move |b| format!("by {a}{b}")));
        let text = said_for(&names.collect::<Vec<_>>());
        assert_eq!(text.matches("  why: ").count(), REASONS, "{text}");
    }
}
