//! The text that `doctor` prints.

use crate::{
    doctor::{Report, State},
    output::text::columns::wrap,
};

/// One line per answer, then one per probe: all probes if `every`, else only missing ones.
#[must_use]
pub fn doctor_page(report: &Report, every: bool, width: usize) -> String {
    let word = if report.works { "dio-trace works here" } else { "dio-trace does not work here" };
    let mut out = format!("{word}: Linux {}\n", report.kernel);
    for line in &report.lines {
        let mark = match line.state {
            State::Ok => "ok  ",
            State::Less => "less",
            State::Bad => "BAD ",
        };
        let text = format!("{}: {}", line.what, line.text);
        out += &(wrap(&format!("  {mark} "), &text, width) + "\n");
    }
    for probe in &report.probes {
        let text = match &probe.missing {
            Some(why) => format!("{}: {why}", probe.probe),
            None if every => probe.probe.clone(),
            None => continue,
        };
        let mark = if probe.missing.is_some() { "    less " } else { "    ok   " };
        out += &(wrap(mark, &text, width) + "\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::{Line, ProbeLine};

    #[test]
    fn what_is_missing_stands_out() {
        let line = Line { what: "probes", state: State::Less, text: "2 attached".to_owned() };
        let probe = |name: &str, missing: Option<&str>| ProbeLine {
            probe: name.to_owned(),
            missing: missing.map(str::to_owned),
        };
        let report = Report {
            v: 1,
            kind: "doctor",
            works: true,
            kernel: "6.12".to_owned(),
            lines: vec![line],
            probes: vec![probe("vfs_read", None), probe("aio_read", Some("not there"))],
        };
        let page = doctor_page(&report, false, 80);
        assert!(page.contains("less probes: 2 attached") && !page.contains("vfs_read"), "{page}");
        assert!(page.contains("    less aio_read: not there\n"), "{page}");
        assert!(doctor_page(&report, true, 80).contains("    ok   vfs_read\n"));
    }
}
