//! The text that `check` prints for a path.

use dio_trace_common::verdict::Verdict;

use crate::{
    check::{Answer, Overall, Report, What},
    output::text::{columns::wrap, kernels::kernel_changes},
    system::{file_attrs::AtomicLimits, file_users::OpenUser},
};

/// The page of one path: a headline with the overall answer, then the details.
#[must_use]
pub fn check_page(report: &Report, width: usize) -> String {
    let mut out = String::new();
    let mut say = |label: &str, text: &str| {
        out += &wrap(&format!("  {label:<11}"), text, width);
        out.push('\n');
    };
    say("is:", &what(report));
    say("limits:", &limits(report));
    if let Some(why) = &report.limits_why {
        say("", why);
    }
    if let Some(AtomicLimits { min, max, .. }) = report.atomic {
        say("atomic:", &format!("writes of {min} to {max} bytes with RWF_ATOMIC"));
    }
    if report.io_poll == Some(true) {
        say("polling:", "the device's queue can be polled (IORING_SETUP_IOPOLL)");
    }
    if !report.open_by.is_empty() {
        say("open:", &open_by(&report.open_by));
    }
    for (label, answer) in accesses(report) {
        let Some(answer) = answer else { continue };
        say(label, &verdict(answer));
    }
    for (label, text) in reasons(report) {
        say(label, &text);
    }
    let kernels = report.kernel_changes.as_ref().map(kernel_changes).unwrap_or_default();
    for (i, line) in kernels.iter().enumerate() {
        say(if i == 0 { "kernel:" } else { "" }, line);
    }
    wrap("", &format!("{}: {}", report.path, headline(report)), width) + "\n" + &out
}

/// Who has the file open, those without O_DIRECT first, because their requests are not direct.
fn open_by(users: &[OpenUser]) -> String {
    const SHOWN: usize = 6;
    let user = |user: &OpenUser| match user.fd {
        Some(fd) => format!("{}/{} fd {fd} {}", user.comm, user.pid, user.flags),
        None => format!("{}/{} by a mapping", user.comm, user.pid),
    };
    let plain = users.iter().filter(|user| !user.direct).count();
    let shown: Vec<String> = users.iter().take(SHOWN).map(user).collect();
    let more = match users.len().saturating_sub(SHOWN) {
        0 => String::new(),
        n => format!(" and {n} more (--json)"),
    };
    format!("{} times, {plain} without O_DIRECT: {}{more}", users.len(), shown.join(", "))
}

/// The overall answer, and whether it is proven.
fn headline(report: &Report) -> String {
    let answers =
        || accesses(report).into_iter().filter_map(|(label, answer)| Some((label, answer?)));
    let seen = if answers().any(|(_, answer)| answer.sibling.is_some()) {
        "proven of a file like it"
    } else {
        "proven"
    };
    match (report.overall, report.expected) {
        (Overall::Direct, _) => format!("direct, {seen}"),
        (Overall::Not, _) if report.proven => format!("not direct, {seen}"),
        (Overall::Not, _) => "not direct (a forecast, not proven)".to_owned(),
        (Overall::Unknown, Overall::Direct) => {
            let unproven = answers().filter(|(_, answer)| answer.proof.is_none());
            let unproven: Vec<&str> =
                unproven.map(|(label, _)| label.trim_end_matches(':')).collect();
            format!("likely direct, but not proven ({})", unproven.join(", "))
        }
        (Overall::Unknown, _) => "cannot tell".to_owned(),
    }
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
        Some(device) => format!(" on /dev/{device}"),
        None if !report.source.is_empty() => format!(" from {}", report.source),
        None => String::new(),
    };
    let fs = match report.what {
        What::Device => String::new(),
        What::File | What::Directory => format!(", {}{on}", report.fs),
    };
    let options =
        if report.options.is_empty() { String::new() } else { format!(" ({})", report.options) };
    format!("{}{fs}{options}", report.what.as_str())
}

fn limits(report: &Report) -> String {
    let (Some(memory), Some(offset)) = (report.memory_align, report.offset_align) else {
        return "not known".to_owned();
    };
    if offset == 0 {
        return format!("none: no direct I/O ({})", report.limits.unwrap_or_default());
    }
    let read = report.read_offset_align.map_or_else(String::new, |n| format!(" (reads: {n})"));
    let source = report.limits.unwrap_or_default();
    format!("offset and length in multiples of {offset}{read}, buffer of {memory} ({source})")
}

fn verdict(answer: &Answer) -> String {
    let word = answer.verdict;
    let Some(proof) = &answer.proof else {
        let forecast =
            if word == Verdict::Unknown { word.to_string() } else { format!("{word} (forecast)") };
        let why = answer.unproven.as_deref().unwrap_or_default();
        return format!("{forecast}; not proven: {why}");
    };
    let of = answer
        .sibling
        .as_ref()
        .map_or_else(String::new, |path| format!(" of {path}, which is alike"));
    if answer.forecast != word && answer.forecast != Verdict::Unknown {
        return format!("{word}; proven{of}: {proof}; the rules expected {}", answer.forecast);
    }
    format!("{word}; proven{of}: {proof}")
}

/// The reasons and remedies, one per cause.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Checker;

    #[test]
    fn the_headline_distinguishes_proof_from_forecast() {
        use Overall::{Direct, Not, Unknown};
        let mut report = Checker::new(false).check(&std::env::temp_dir()).unwrap();
        let mut headline_of = |overall, expected, proven| {
            (report.overall, report.expected, report.proven) = (overall, expected, proven);
            headline(&report)
        };
        assert_eq!(headline_of(Direct, Direct, true), "direct, proven");
        assert!(headline_of(Unknown, Direct, false).contains("but not proven (read, "));
        assert_eq!(headline_of(Unknown, Unknown, false), "cannot tell");
        assert_eq!(headline_of(Not, Not, true), "not direct, proven");
        assert_eq!(headline_of(Not, Not, false), "not direct (a forecast, not proven)");
        report.read.sibling = Some("/a".to_owned());
        (report.overall, report.proven) = (Direct, true);
        assert_eq!(headline(&report), "direct, proven of a file like it");
    }
}
