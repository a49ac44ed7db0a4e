//! Escapes the texts of a recording's header, and describes its scope.

use crate::{
    flow::summary,
    recording::format::{Header, Scope},
    system::processes,
    util::{clock::Zone, escape::escape},
};

/// Escapes all texts of a header, which come from outside, and drops an invalid time zone.
pub(super) fn clean(mut header: Header) -> Header {
    let safe = |text: &mut String| *text = escape(text.as_bytes());
    let Header { tool, host, kernel, boot, attach, .. } = &mut header;
    [tool, host, kernel, boot, attach].into_iter().for_each(safe);
    header.attached.iter_mut().chain(&mut header.blind).for_each(safe);
    if let Scope::Command(words) = &mut header.scope {
        words.iter_mut().for_each(safe);
    }
    header.zone = header.zone.filter(Zone::is_sound);
    if let Some(name) = header.zone.as_mut().and_then(|zone| zone.name.as_mut()) {
        safe(name);
    }
    for (probe, why) in header.missing.iter_mut().chain(&mut header.dark) {
        safe(probe);
        safe(why);
    }
    header
}

/// The processes whose requests were recorded, in the form of the summary.
pub(super) fn scope(recorded: &Scope) -> summary::Scope {
    let text = match recorded {
        Scope::System => "the whole system".to_owned(),
        Scope::Processes(pids) => processes::in_words(pids, 0),
        Scope::Command(words) => {
            let command = words.first().map(String::as_str).unwrap_or_default();
            escape(command.as_bytes())
        }
    };
    summary::Scope { text, children_left_out: 0 }
}
