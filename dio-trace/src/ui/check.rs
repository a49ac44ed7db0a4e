//! The page of `check`.

use super::columns::wrap;
use crate::check::{Answer, Overall, Report};

/// What there is to say of a path, ending with the answer.
#[must_use]
pub fn check_page(report: &Report, width: usize) -> String {
    let mut out = String::new();
    let mut say = |label: &str, text: &str| {
        out += &wrap(&format!("  {label:<11}"), text, width);
        out.push('\n');
    };
    say("is:", &what(report));
    say("limits:", &limits(report));
    for (label, answer) in accesses(report) {
        let Some(answer) = answer else { continue };
        say(label, &verdict(answer));
    }
    for (label, text) in reasons(report) {
        say(label, &text);
    }
    let answer = match report.overall {
        Overall::Direct => "direct",
        Overall::Not => "not direct",
        Overall::Unknown => "cannot tell",
    };
    wrap("", &format!("{}: {answer}", report.path), width) + "\n" + &out
}

fn accesses(report: &Report) -> [(&'static str, Option<&Answer>); 3] {
    [
        ("read:", Some(&report.read)),
        ("overwrite:", report.overwrite.as_ref()),
        ("extend:", report.extend.as_ref()),
    ]
}

fn what(report: &Report) -> String {
    let on = match report.devices.first() {
        Some(device) if report.what != "device" => format!(" on /dev/{device}"),
        _ if report.what != "device" && !report.source.is_empty() => {
            format!(" from {}", report.source)
        }
        _ => String::new(),
    };
    let fs = if report.what == "device" { String::new() } else { format!(", {}{on}", report.fs) };
    let options =
        if report.options.is_empty() { String::new() } else { format!(" ({})", report.options) };
    format!("{}{fs}{options}", report.what)
}

fn limits(report: &Report) -> String {
    let (Some(memory), Some(offset)) = (report.memory_align, report.offset_align) else {
        return "nobody says any".to_owned();
    };
    if offset == 0 {
        return format!("none: no direct I/O ({})", report.limits.unwrap_or_default());
    }
    let read = report.read_offset_align.map_or_else(String::new, |n| format!(" (reads: {n})"));
    let source = report.limits.unwrap_or_default();
    format!("offset and length in multiples of {offset}{read}, buffer of {memory} ({source})")
}

fn verdict(answer: &Answer) -> String {
    let told = answer.proof.as_ref().or(answer.unproven.as_ref());
    let how = match (&answer.proof, told) {
        (Some(_), Some(text)) => format!("proven: {text}"),
        (None, Some(text)) => format!("not proven: {text}"),
        _ => String::new(),
    };
    let word = answer.verdict;
    if answer.proof.is_some() && answer.forecast != word && answer.forecast != "unknown" {
        return format!("{word}; {how}; the rules expected {}", answer.forecast);
    }
    format!("{word}; {how}")
}

/// Each reason once.
fn reasons(report: &Report) -> Vec<(&'static str, String)> {
    let mut said: Vec<&str> = Vec::new();
    let mut lines = Vec::new();
    for answer in accesses(report).into_iter().filter_map(|(_, answer)| answer) {
        let (Some(cause), Some(why), Some(fix)) = (answer.cause, &answer.why, &answer.fix) else {
            continue;
        };
        if !said.contains(&cause) {
            said.push(cause);
            lines.push(("why:", why.clone()));
            lines.push(("fix:", fix.clone()));
        }
    }
    if !said.is_empty() {
        lines.push(("more:", format!("dio-trace explain {}", said.join(" "))));
    }
    lines
}
