//! The subject of a trace: resolves the command line to process ids, a cgroup or the whole system.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::error::ErrorKind;

use crate::{cli::trace::Trace, system::processes, tracer, util::escape::escape};

/// What a verb traces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    System,
    /// The cgroup of a systemd unit, of a container, or given by path. The filters contain its id.
    Cgroup {
        text: String,
        folder: PathBuf,
    },
    Processes {
        pids: Vec<u32>,
        children: bool,
    },
    Command,
}

impl Subject {
    /// The subject that the verb's options select.
    ///
    /// # Errors
    /// If there is no such process, or if `attach` names nothing to attach to.
    pub(super) fn of(verb: &Trace) -> Result<Self> {
        match verb {
            Trace::Run { .. } => Ok(Self::Command),
            Trace::Audit { processes, .. } if processes.pid.is_empty() => Ok(Self::System),
            Trace::Audit { processes, .. } => by_id(&processes.pid, !processes.no_children),
            Trace::Attach { subject, common } => {
                let mut pids = subject.processes.pid.clone();
                let mut names = subject.names.clone();
                let nothing = pids.is_empty() && names.is_empty();
                if let Some((text, folder)) = common.filters.cgroup()?.filter(|_| nothing) {
                    return Ok(Self::Cgroup { text, folder });
                }
                if nothing {
                    names.extend(common.filters.comms().iter().cloned());
                }
                for name in &names {
                    pids.extend(of_name(name)?);
                }
                if pids.is_empty() {
                    return Err(clap::Error::raw(
                        ErrorKind::MissingRequiredArgument,
                        "name what to attach to: --pid PID, the NAME of a program, --unit UNIT, \
                     --container ID or --cgroup PATH; `dio-trace audit` traces the whole \
                     system",
                    )
                    .into());
                }
                by_id(&pids, !subject.processes.no_children)
            }
        }
    }

    /// The scope by which the tracer filters processes.
    pub(super) fn scope(&self) -> tracer::Scope {
        match self {
            Self::System | Self::Cgroup { .. } => tracer::Scope::System,
            Self::Processes { pids, children } => {
                tracer::Scope::Processes { pids: pids.clone(), children: *children }
            }
            Self::Command => tracer::Scope::Processes { pids: Vec::new(), children: true },
        }
    }
}

/// The processes with these ids, checked and without duplicates.
fn by_id(pids: &[u32], children: bool) -> Result<Subject> {
    let mut once: Vec<u32> = Vec::new();
    for pid in pids {
        check(*pid)?;
        if !once.contains(pid) {
            once.push(*pid);
        }
    }
    Ok(Subject::Processes { pids: once, children })
}

fn of_name(name: &str) -> Result<Vec<u32>> {
    if let Ok(pid) = name.parse() {
        return Ok(vec![pid]);
    }
    let own = std::process::id();
    let found: Vec<u32> = processes::named(name)
        .iter()
        .map(|process| process.pid)
        .filter(|pid| *pid != own)
        .collect();
    if found.is_empty() {
        let name = escape(name.as_bytes());
        bail!(
            "there is no process called {name}: `pgrep -fa {name}` searches command lines; \
             `dio-trace audit --comm {name}` also traces processes that start later"
        );
    }
    Ok(found)
}

fn check(pid: u32) -> Result<()> {
    let Some(process) = processes::one(pid) else {
        bail!("there is no process {pid}: `pgrep -a NAME` finds it");
    };
    if process.ended {
        bail!("process {pid} has already ended and is a zombie");
    }
    // /proc/TID exists for every thread, although a listing of /proc does not show it.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tgid = status.lines().find_map(|line| line.strip_prefix("Tgid:")).map(str::trim);
    if let Some(tgid) = tgid.filter(|tgid| *tgid != pid.to_string()) {
        bail!("{pid} is a thread of process {tgid}: use -p {tgid}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_process_is_an_error() {
        for (pids, word) in [(u32::MAX, "there is no process"), (0, "there is no process")] {
            assert!(check(pids).unwrap_err().to_string().contains(word));
        }
        assert!(of_name("no such program").unwrap_err().to_string().contains("audit --comm"));
        assert_eq!(of_name("1").unwrap(), [1]);
        let own = std::process::id();
        let subject = by_id(&[own, own], true).unwrap();
        assert_eq!(subject, Subject::Processes { pids: vec![own], children: true });
    }

    #[test]
    fn a_thread_is_not_a_process() {
        let thread = std::thread::spawn(|| {
            // SAFETY: no preconditions.
            let tid = unsafe { libc::gettid() } as u32;
            check(tid).unwrap_err().to_string()
        });
        assert!(thread.join().unwrap().contains("is a thread of process"));
    }
}
