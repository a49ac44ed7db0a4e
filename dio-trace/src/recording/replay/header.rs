//! What a header says, made safe to show.

use crate::{
    flow::summary,
    recording::format::{Header, Scope},
    system::processes,
    util::{clock::Zone, escape::escape},
};

/// Names in a header come from outside, too.
pub(super) fn clean(mut header: Header) -> Header {
    let safe = |text: &mut String| *text = escape(text.as_bytes());
    let Header { tool, host, kernel, boot, attach, .. } = &mut header;
    [tool, host, kernel, boot, attach].into_iter().for_each(safe);
    header.attached.iter_mut().for_each(safe);
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

/// Whose requests were recorded, as the summary has it.
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
