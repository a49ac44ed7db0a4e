//! Writes a gate's result in the formats that CI systems read.

use std::{ffi::OsStr, fmt::Write as _, path::Path};

use crate::gate::{Offender, Outcome, Verdict};

/// The format of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    Markdown,
    /// JUnit XML, with a test case for each rule and one for completeness.
    Xml,
}

impl Form {
    /// The format for a file name's extension; `None` if the extension is unknown.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension().and_then(OsStr::to_str)? {
            "json" => Some(Self::Json),
            "md" => Some(Self::Markdown),
            "xml" => Some(Self::Xml),
            _ => None,
        }
    }

    /// The report's text.
    #[must_use]
    pub fn text(self, outcome: &Outcome) -> String {
        match self {
            Self::Json => serde_json::to_string_pretty(outcome).unwrap_or_default() + "\n",
            Self::Markdown => markdown(outcome),
            Self::Xml => junit(outcome),
        }
    }
}

fn markdown(outcome: &Outcome) -> String {
    let word = if outcome.passed { "passed" } else { "failed" };
    let mut out = format!("## dio-trace: {word}\n\n");
    let command = cell(&outcome.command);
    let end = outcome
        .exit_code
        .map_or_else(|| "had not ended".to_owned(), |code| format!("ended with {code}"));
    let _ = writeln!(out, "`{command}` {end} at {}; {}.\n", outcome.ended, outcome.headline());
    if let Some(lost) = &outcome.incomplete {
        let _ = writeln!(out, "**Not everything was seen**: {lost}.\n");
    }
    out += "| rule | from | counted | |\n|---|---:|---:|---|\n";
    for rule in &outcome.rules {
        let word = if rule.failed { "failed" } else { "ok" };
        let _ = writeln!(out, "| {} | {} | {} | {word} |", rule.what, rule.min, rule.count);
    }
    if !outcome.offenders.is_empty() {
        out +=
            "\n| what | count | op | file | cause | why | fix |\n|---|---:|---|---|---|---|---|\n";
        for o in &outcome.offenders {
            let text = |text: &Option<String>| cell(text.as_deref().unwrap_or(""));
            let _ = writeln!(
                out,
                "| {} | {} | {} | `{}` | {} | {} | {} |",
                o.what,
                o.count,
                o.op,
                cell(&o.path),
                text(&o.cause),
                text(&o.why),
                text(&o.fix)
            );
        }
    }
    out
}

/// Escapes text for a table cell: `|` would end the cell, a backtick the code in it.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('`', "'")
}

fn junit(outcome: &Outcome) -> String {
    let lost = usize::from(outcome.incomplete.is_some());
    let failures = outcome.rules.iter().filter(|rule| rule.failed).count() + lost;
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <testsuite name=\"dio-trace\" tests=\"{}\" failures=\"{failures}\" errors=\"0\" \
         skipped=\"0\" timestamp=\"{}\">\n",
        outcome.rules.len() + 1,
        xml(&outcome.ended)
    );
    for rule in &outcome.rules {
        let offenders = outcome.offenders.iter().filter(|o| o.what == rule.what);
        let text: String = offenders.map(line).collect();
        case(&mut out, &rule.what_is_wrong(), &format!("no {}", rule.what), &text);
    }
    let lost = outcome.incomplete.as_ref();
    case(&mut out, &lost.cloned(), "everything was seen", "");
    let _ = writeln!(out, "  <system-out>{}</system-out>", xml(&outcome.headline()));
    out + "</testsuite>\n"
}

impl Verdict {
    fn what_is_wrong(&self) -> Option<String> {
        self.failed.then(|| format!("{} {}, allowed are {}", self.count, self.what, self.min - 1))
    }
}

fn case(out: &mut String, wrong: &Option<String>, name: &str, details: &str) {
    let name = xml(name);
    let _ = match wrong {
        None => writeln!(out, "  <testcase classname=\"dio-trace\" name=\"{name}\"/>"),
        Some(wrong) => writeln!(
            out,
            "  <testcase classname=\"dio-trace\" name=\"{name}\">\n    <failure message=\"{}\">{}\
             </failure>\n  </testcase>",
            xml(wrong),
            xml(details)
        ),
    };
}

fn line(o: &Offender) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    format!(
        "{} {} {} {} ({}): {}; fix: {}\n",
        o.count,
        o.what,
        o.op,
        o.path,
        text(&o.cause),
        text(&o.why),
        text(&o.fix)
    )
}

/// Escapes the five special characters of XML. Control characters were escaped before (escape.rs).
fn xml(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&apos;")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn failed() -> Outcome {
        let offender = Offender {
            what: "fallback",
            count: 3,
            comm: "fio".into(),
            op: "read",
            path: "/a|b<&\"'`".into(),
            cause: Some("data-journal".to_owned()),
            why: Some("why".to_owned()),
            fix: Some("fix".to_owned()),
        };
        Outcome {
            v: 1,
            kind: "gate",
            command: "fio job".to_owned(),
            exit_code: Some(0),
            passed: false,
            rules: vec![
                Verdict { what: "fallback", min: 2, count: 3, failed: true },
                Verdict { what: "mixed", min: 1, count: 0, failed: false },
            ],
            incomplete: None,
            requests: 9,
            verdicts: BTreeMap::from([("direct", 5), ("fallback", 3), ("eof", 1), ("dax", 0)]),
            ended: "2026-01-02T03:04:05+01:00".to_owned(),
            offenders: vec![offender],
        }
    }

    #[test]
    fn each_format_reports_failures_and_is_well_formed() {
        assert_eq!(Form::of(Path::new("a/report.xml")), Some(Form::Xml));
        assert_eq!(Form::of(Path::new("report")), None);
        let xml = Form::Xml.text(&failed());
        assert!(xml.contains("tests=\"3\" failures=\"1\""), "{xml}");
        assert!(xml.contains("/a|b&lt;&amp;&quot;&apos;`"), "{xml}");
        assert!(xml.contains("3 fallback, allowed are 1"), "{xml}");
        let markdown = Form::Markdown.text(&failed());
        assert!(markdown.contains("| fallback | 2 | 3 | failed |"), "{markdown}");
        assert!(markdown.contains("`/a\\|b<&\"''`"), "{markdown}");
        let headline = "9 O_DIRECT requests: 5 direct, 3 fallback, 1 eof";
        let ended = "ended with 0 at 2026-01-02T03:04:05+01:00; ";
        assert!(markdown.contains(&format!("`fio job` {ended}{headline}.")), "{markdown}");
        assert!(xml.contains(headline), "{xml}");
        assert!(xml.contains("timestamp=\"2026-01-02T03:04:05+01:00\""), "{xml}");
        let json: serde_json::Value = serde_json::from_str(&Form::Json.text(&failed())).unwrap();
        assert_eq!(json["offenders"][0]["cause"], "data-journal");
    }
}
