//! Examines whether tracing works with this kernel and this user, and says how to fix what does
//! not.

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
    tracer::{Options, Purpose, Scope, Tracer},
};

/// The state of one requirement. Worse states compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// Tracing works, but shows less.
    Less,
    /// Tracing does not work.
    Bad,
}

/// The answer for one requirement.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Line {
    pub what: &'static str,
    pub state: State,
    /// What is present; if that is not enough, why it matters and what to do.
    pub text: String,
}

/// A probe, named by the kernel function that it is attached to.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProbeLine {
    pub probe: String,
    /// What is lost without the probe; `None` if it is attached.
    pub missing: Option<String>,
}

/// The report of `dio-trace doctor` (docs/json.md).
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Doctor"))]
pub struct Report {
    pub v: u32,
    pub kind: &'static str,
    /// True if tracing works here.
    pub works: bool,
    pub kernel: String,
    pub lines: Vec<Line>,
    /// The probes, which are attached briefly for this report; empty if that was not possible.
    pub probes: Vec<ProbeLine>,
}

/// Examines every requirement. If none is missing, the probes are attached briefly. Must run inside
/// a tokio runtime.
#[must_use]
pub fn examine(attach: Option<AttachMode>) -> Report {
    let mut lines: Vec<Line> = NEEDS.iter().map(|(what, missing)| need(what, missing())).collect();
    lines.push(need("capabilities of others' paths", missing_path_caps()).at_worst(State::Less));
    lines.push(need("kprobes", missing_kprobes()).at_worst(State::Less));
    lines.push(Line { what: "preemption", state: State::Ok, text: preemption().to_owned() });
    lines.push(need("io_uring", missing_io_uring()).at_worst(State::Less));
    let able = lines.iter().all(|line| line.state != State::Bad);
    let mut probes = Vec::new();
    if able {
        let wanted = RequestFilter::default();
        let options = Options {
            purpose: Purpose::DirectIo,
            scope: Scope::System,
            attach,
            all: false,
            cached: false,
            why_eagain: false,
            expect_direct: false,
            verify_stable: false,
            stacks: false,
            ring: None,
            log: false,
            wanted,
        };
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

fn need(what: &'static str, missing: Option<String>) -> Line {
    match missing {
        None => Line { what, state: State::Ok, text: "as needed".to_owned() },
        Some(text) => Line { what, state: State::Bad, text },
    }
}

/// The line about the attached probes; adds each probe to `probes`.
fn attached(tracer: &Tracer, probes: &mut Vec<ProbeLine>) -> Line {
    let (names, missing) = tracer.coverage();
    probes.extend(names.iter().map(|name| ProbeLine { probe: name.clone(), missing: None }));
    for gap in missing.iter().chain(tracer.dark()) {
        probes.push(ProbeLine { probe: gap.probe.clone(), missing: Some(gap.why.clone()) });
    }
    let gaps = missing.len() + tracer.dark().len();
    let mut text =
        format!("{} attached by {}, {gaps} missing", names.len(), tracer.attach().as_str());
    let blind: Vec<&str> = tracer.blind().collect();
    let state = match (blind.is_empty(), gaps) {
        (false, _) => State::Bad,
        (true, 0) => State::Ok,
        (true, _) => State::Less,
    };
    if state == State::Bad {
        text += &format!("; they see no test request by {}", blind.join(", "));
    }
    Line { what: "probes", state, text }
}

fn missing_path_caps() -> Option<String> {
    let missing: Vec<&str> =
        [(cap::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH"), (cap::SYS_PTRACE, "CAP_SYS_PTRACE")]
            .iter()
            .filter(|(cap, _)| !has_cap(*cap))
            .map(|(_, name)| *name)
            .collect();
    (!missing.is_empty()).then(|| {
        format!(
            "{} missing: mounts and files of other users' processes cannot be read, so their paths \
             and causes may be incomplete; add it to the setcap line of the README",
            missing.join(" and ")
        )
    })
}

fn missing_kprobes() -> Option<String> {
    (!has_kprobes()).then(|| format!("{NO_KPROBES}: only fentry can be used"))
}

fn missing_io_uring() -> Option<String> {
    // kernel.io_uring_disabled (6.6): 2 disables io_uring for all processes.
    (line("/proc/sys/kernel/io_uring_disabled") == "2").then(|| {
        "kernel.io_uring_disabled is 2: no process can use io_uring, so its probes are not tested"
            .to_owned()
    })
}

fn preemption() -> &'static str {
    if preemptible() {
        "the kernel may preempt a probe: those of read, write and open are attached three times"
    } else {
        "the kernel does not preempt probes"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_requirement_is_at_worst_what_it_may_be() {
        let missing = || Some("no".to_owned());
        assert_eq!(need("x", missing()).state, State::Bad);
        assert_eq!(need("x", missing()).at_worst(State::Less).state, State::Less);
        assert_eq!(need("x", None).at_worst(State::Less).state, State::Ok);
    }
}
