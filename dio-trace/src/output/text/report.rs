//! The parts of a report that live tracing does not have: the recording, and its timeline.

use crate::{
    flow::{
        group::{By, groups},
        timeline::sparkline,
    },
    output::text::{columns::wrap, groups::latency},
    recording::{format::Scope, replay::Replay},
    util::{
        clock::Shown,
        figures::{about, count, duration},
    },
};

/// Maximum number of damaged places that are listed.
const MAX_PLACES: usize = 5;

/// Describes the recording: where and when it was made, and what is missing or damaged.
#[must_use]
pub fn recording(name: &str, replayed: &Replay, shown: &Shown, width: usize) -> String {
    let header = &replayed.header;
    let what = match (header.all, header.sample) {
        (true, _) => "every request".to_owned(),
        (false, 0) => "findings".to_owned(),
        (false, n) => format!("findings and 1 in {n} of the rest"),
    };
    let scope = match &header.scope {
        Scope::System => "the whole system".to_owned(),
        Scope::Processes(pids) => {
            format!("process {}", pids.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))
        }
        Scope::Command(words) => words.first().cloned().unwrap_or_default(),
    };
    let text = format!(
        "{name}: host {}, {} of {scope}; {what}, {} requests in {} bytes",
        header.host,
        replayed.span.text(&shown.zone),
        count(replayed.recorded),
        about(replayed.bytes),
    );
    let mut out = line("file:   ", &text, width);
    out += &line("times:  ", &shown.text(), width);
    for text in broken(replayed) {
        out += &line("cut:    ", &text, width);
    }
    if let Some(text) = replayed.left_out.text() {
        out += &line("left:   ", &text, width);
    }
    if let Some(only) = &replayed.only {
        out += &line("only:   ", only, width);
    }
    if replayed.by_requests {
        let without = match (header.all, header.sample) {
            (true, _) => String::new(),
            (false, 0) => "; those without a finding are not among them".to_owned(),
            (false, n) => format!("; of those without a finding 1 in {n} is among them"),
        };
        let text = format!("the {} requests recorded one by one{without}", count(replayed.shown));
        out += &line("counts: ", &text, width);
    }
    if replayed.dropped != 0 {
        let text = format!(
            "{} requests counted but not recorded: the disk was too slow",
            count(replayed.dropped)
        );
        out += &line("dropped: ", &text, width);
    }
    out
}

/// What is damaged or missing at the end of the recording, one text per line.
fn broken(replayed: &Replay) -> Vec<String> {
    let cut = &replayed.integrity;
    let mut out: Vec<String> = cut
        .damage
        .iter()
        .take(MAX_PLACES)
        .map(|damage| {
            let (bytes, offset) = (count(damage.bytes), damage.offset);
            format!("{bytes} bytes at offset {offset} left out: {}", damage.what)
        })
        .collect();
    if cut.damage.len() > MAX_PLACES {
        let bytes = count(cut.damaged_bytes);
        out.push(format!("{} places in all, {bytes} bytes", count(cut.damage.len() as u64)));
    }
    match &cut.end {
        None => out.push(
            "the recording has no end: it was killed, or copied while it ran; up to its last \
             second may be missing"
                .to_owned(),
        ),
        Some(end) => out.extend(end.stopped_by().map(|why| format!("it ended because {why}"))),
    }
    out
}

/// The findings over time, and the latencies by verdict.
#[must_use]
pub fn times(replayed: &Replay, width: usize) -> String {
    let mut out = String::new();
    let (slice, slices) = replayed.timeline.slices(width.saturating_sub(20).min(60));
    let findings: Vec<u64> = slices.iter().map(|slice| slice.findings).collect();
    if findings.iter().any(|n| *n != 0) {
        out += &format!("when:   {}| {} a slice\n", sparkline(&findings), duration(slice));
        let most = findings.iter().max().copied().unwrap_or(0);
        out += &format!("        findings; at most {} in one slice\n", count(most));
    }
    // Grouping by verdict looks up no names, so an empty enricher will do.
    let mut empty = crate::enrich::Enricher::recorded();
    let rows = groups(&replayed.counters, By::Verdict, &mut empty);
    if !rows.is_empty() {
        out +=
            &format!("{:<8}{:>12} {:>8} {:>8}  VERDICT\n", "latency", "REQUESTS", "P50<", "P99<");
    }
    for row in rows {
        let (p50, p99) = (latency(row.latency_p50_ns), latency(row.latency_p99_ns));
        out += &format!("        {:>12} {p50:>8} {p99:>8}  {}\n", count(row.requests), row.name);
    }
    out
}

/// Lines of text below one another, the first of them with a label.
#[must_use]
pub fn labelled(label: &str, lines: &[String], width: usize) -> String {
    let blank = " ".repeat(label.chars().count());
    let label_of = |i| if i == 0 { label } else { blank.as_str() };
    lines.iter().enumerate().map(|(i, text)| line(label_of(i), text, width)).collect()
}

fn line(label: &str, text: &str, width: usize) -> String {
    wrap(label, text, width) + "\n"
}
