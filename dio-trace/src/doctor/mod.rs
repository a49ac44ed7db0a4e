//! What this kernel and this user can do, each with its remedy.

use serde::Serialize;

use crate::{
    flow::explained::SCHEMA,
    kernel::{
        line,
        preempt::preemptible,
        preflight::{NEEDS, NO_KPROBES, cap, has_cap, has_kprobes},
        release,
    },
    model::{AttachMode, RequestFilter},
    tracer::{Options, Scope, Tracer},
};

/// How good an answer is; the worse is the greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// Tracing works, with less to show.
    Less,
    /// Tracing does not work.
    Bad,
}

/// One answer.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub what: &'static str,
    pub state: State,
    /// What there is; if that is not enough, why it matters and what to do.
    pub text: String,
}

/// A probe, by the kernel's name for it.
#[derive(Clone, Debug, Serialize)]
pub struct ProbeLine {
    pub probe: String,
    /// What is lost without it; `None` if it is attached.
    pub missing: Option<String>,
}

/// All answers (docs/json.md).
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub v: u32,
    pub kind: &'static str,
    /// Tracing works here.
    pub works: bool,
    pub kernel: String,
    pub lines: Vec<Line>,
    /// Each probe as it was attached for a moment; empty if it could not be tried.
    pub probes: Vec<ProbeLine>,
}

/// Looks at everything; where that is allowed the probes are attached for a moment. Must run inside
/// a tokio runtime.
#[must_use]
pub fn examine(attach: Option<AttachMode>) -> Report {
    let mut lines: Vec<Line> = NEEDS.iter().map(|(what, lacks)| need(what, lacks())).collect();
    lines.push(need("capabilities of others' paths", lacks_paths()).at_worst(State::Less));
    lines.push(need("kprobes", lacks_kprobes()).at_worst(State::Less));
    lines.push(Line { what: "preemption", state: State::Ok, text: preemption().to_owned() });
    lines.push(need("io_uring", lacks_io_uring()).at_worst(State::Less));
    let able = lines.iter().all(|line| line.state != State::Bad);
    let mut probes = Vec::new();
    if able {
        let wanted = RequestFilter::default();
        let options =
            Options { scope: Scope::System, attach, all: false, stacks: false, log: false, wanted };
        match Tracer::start(&options, &mut |_, _| ()) {
            Ok(tracer) => lines.push(attached(&tracer, &mut probes)),
            Err(error) => {
                let text = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
                lines.push(Line { what: "probes", state: State::Bad, text });
            }
        }
    }
    let works = able && lines.iter().all(|line| line.state != State::Bad);
    Report { v: SCHEMA, kind: "doctor", works, kernel: release(), lines, probes }
}

impl Line {
    fn at_worst(self, state: State) -> Self {
        Self { state: self.state.min(state), ..self }
    }
}

fn need(what: &'static str, lack: Option<String>) -> Line {
    match lack {
        None => Line { what, state: State::Ok, text: "as needed".to_owned() },
        Some(text) => Line { what, state: State::Bad, text },
    }
}

/// What the probes say once they are attached.
fn attached(tracer: &Tracer, probes: &mut Vec<ProbeLine>) -> Line {
    let (names, missing) = tracer.coverage();
    probes.extend(names.iter().map(|name| ProbeLine { probe: name.clone(), missing: None }));
    for gap in missing.iter().chain(tracer.dark()) {
        probes.push(ProbeLine { probe: gap.probe.clone(), missing: Some(gap.why.clone()) });
    }
    let gaps = missing.len() + tracer.dark().len();
    let text = format!("{} attached by {}, {gaps} missing", names.len(), tracer.attach().as_str());
    let state = if gaps == 0 { State::Ok } else { State::Less };
    Line { what: "probes", state, text }
}

fn lacks_paths() -> Option<String> {
    let missing: Vec<&str> =
        [(cap::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"), (cap::SYS_PTRACE, "CAP_SYS_PTRACE")]
            .iter()
            .filter(|(cap, _)| !has_cap(*cap))
            .map(|(_, name)| *name)
            .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "{} missing: mounts and files of other users' processes cannot be asked, so that paths \
             and causes of theirs may be incomplete; add it to the setcap line of the README",
            missing.join(" and ")
        )
    })
}

fn lacks_kprobes() -> Option<String> {
    (!has_kprobes()).then(|| format!("{NO_KPROBES}: only fentry can be used"))
}

fn lacks_io_uring() -> Option<String> {
    // kernel.io_uring_disabled (6.6): 2 is for everybody.
    (line("/proc/sys/kernel/io_uring_disabled") == "2").then(|| {
        "kernel.io_uring_disabled is 2: nobody uses io_uring here, and its probes cannot be tested"
            .to_owned()
    })
}

fn preemption() -> &'static str {
    if preemptible() {
        "the kernel may preempt a probe: those of read, write and open are attached three times"
    } else {
        "none inside probes"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worse_state_is_the_greater() {
        let lack = || Some("no".to_owned());
        assert_eq!(need("x", lack()).state, State::Bad);
        assert_eq!(need("x", lack()).at_worst(State::Less).state, State::Less);
        assert_eq!(need("x", None).at_worst(State::Less).state, State::Ok);
    }
}
