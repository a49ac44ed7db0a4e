//! The running processes, from /proc: their names and their descendants.
//!
//! A *descendant* of a process was forked by the process itself or by one of its descendants. Most
//! are found by their parent's id. If the parent has exited, the session id may show the relation:
//! a process is a member of a session because a member forked it or because it created the session
//! (setsid(2)).

use std::{
    collections::HashSet,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// One process, from /proc/PID/stat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    pub parent: u32,
    /// Process id of the session leader; 0 if it has none.
    pub session: u32,
    /// Start time in clock ticks since boot; distinguishes it from a later process with the same
    /// pid.
    pub started: u64,
    /// The process has exited and waits to be reaped by its parent.
    pub ended: bool,
    /// Name of the main thread, at most 15 bytes.
    pub comm: String,
}

/// All visible processes. A process that starts or exits during the call may or may not be
/// included.
#[must_use]
pub fn all() -> Vec<Process> {
    ids().filter_map(one).collect()
}

/// The ids of all visible processes.
pub fn ids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The process with this id, if it exists.
#[must_use]
pub fn one(pid: u32) -> Option<Process> {
    parse(&String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/stat")).ok()?))
}

/// True if `process` is still running: its pid exists and has the same start time.
#[must_use]
pub fn still_runs(process: &Process) -> bool {
    one(process.pid).is_some_and(|now| now.started == process.started && !now.ended)
}

/// Parses "PID (COMM) STATE PPID PGRP SESSION …". COMM may contain any byte, including parentheses
/// (Documentation/filesystems/proc.rst).
fn parse(stat: &str) -> Option<Process> {
    /// Index among the fields that follow COMM.
    const STARTTIME: usize = 19;
    let (pid, rest) = stat.split_once(" (")?;
    let (comm, rest) = rest.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
    Some(Process {
        pid: pid.parse().ok()?,
        parent: number(1)? as u32,
        // -1 and 0 are not ids of a process.
        session: fields.get(3)?.parse().unwrap_or(0),
        started: number(STARTTIME)?,
        ended: matches!(*fields.first()?, "Z" | "X"),
        comm: comm.to_owned(),
    })
}

/// The descendants of the processes in `of` among `processes`, without those in `of` themselves.
#[must_use]
pub fn descendants<'a>(processes: &'a [Process], of: &HashSet<u32>) -> Vec<&'a Process> {
    let mut family = of.clone();
    let mut found = Vec::new();
    loop {
        let before = found.len();
        for process in processes {
            let started = family.contains(&process.parent) || family.contains(&process.session);
            if started && family.insert(process.pid) {
                found.push(process);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// The running processes with this name. It may be the name of the main thread, of the executable
/// file, or the first word of the command line (without its directory).
#[must_use]
pub fn named(name: &str) -> Vec<Process> {
    all().into_iter().filter(|process| !process.ended && is_named(process, name)).collect()
}

fn is_named(process: &Process, name: &str) -> bool {
    process.comm == name || program_is(process.pid, name)
}

fn program_is(pid: u32, name: &str) -> bool {
    let is = |path: &Path| path.file_name().is_some_and(|file| file.as_bytes() == name.as_bytes());
    let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let word = line.split(|byte| *byte == 0).next().unwrap_or_default();
    let word = PathBuf::from(std::ffi::OsStr::from_bytes(word));
    is(&exe) || is(&word)
}

/// "process 3920 and 7 descendants".
#[must_use]
pub fn in_words(pids: &[u32], descendants: usize) -> String {
    /// Ids that are listed; further ones are only counted.
    const NAMED: usize = 5;
    let mut text = match pids {
        [one] => format!("process {one}"),
        _ => {
            let shown: Vec<String> = pids.iter().take(NAMED).map(u32::to_string).collect();
            let more = pids.len().saturating_sub(NAMED);
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            format!("processes {}{more}", shown.join(", "))
        }
    };
    match descendants {
        0 => {}
        1 => text.push_str(" and 1 descendant"),
        n => text.push_str(&format!(" and {n} descendants")),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, session: u32) -> Process {
        Process { pid, parent, session, started: 0, ended: false, comm: String::new() }
    }

    #[test]
    fn processes_are_named_and_counted() {
        assert_eq!(in_words(&[3920], 7), "process 3920 and 7 descendants");
        assert_eq!(in_words(&[3920], 0), "process 3920");
        assert_eq!(in_words(&[1, 2], 1), "processes 1, 2 and 1 descendant");
        assert_eq!(in_words(&[1, 2, 3, 4, 5, 6, 7], 0), "processes 1, 2, 3, 4, 5 and 2 more");
    }

    #[test]
    fn a_line_is_read_whatever_the_name() {
        let stat = "42 (a) b (c) S 7 42 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 987 0 0\n";
        let read = parse(stat).unwrap();
        assert_eq!((read.pid, read.parent, read.session, read.started), (42, 7, 41, 987));
        assert_eq!((read.comm.as_str(), read.ended), ("a) b (c", false));
        for bad in ["", "42", "42 (x", "42 (x) ", "x (y) S 1 2 3"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn this_process_runs_under_its_name() {
        let own = one(std::process::id()).unwrap();
        assert!(still_runs(&own));
        assert!(!still_runs(&Process { started: own.started + 1, ..own.clone() }));
        assert!(named(&own.comm).contains(&own));
        let exe = std::env::current_exe().unwrap();
        assert!(named(exe.file_name().unwrap().to_str().unwrap()).contains(&own));
        assert!(named("no such program").is_empty());
    }

    #[test]
    fn descendants_are_found_at_any_depth_and_in_any_order() {
        let all = [
            process(5, 4, 1), // a grandchild, listed before its parent
            process(4, 2, 1),
            process(2, 1, 1),
            process(3, 1, 1),
            process(7, 1, 7), // forked by 6, which has ended, and adopted by init
        ];
        let pids = |of: &[u32]| -> Vec<u32> {
            let mut pids: Vec<u32> = descendants(&all, &of.iter().copied().collect())
                .iter()
                .map(|process| process.pid)
                .collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!(pids(&[2]), [4, 5]);
        assert!(pids(&[3]).is_empty());
        assert_eq!(pids(&[2, 4]), [5]);
    }

    #[test]
    fn members_of_a_leaders_session_are_its_descendants() {
        let all = [process(10, 1, 10), process(12, 1, 10), process(13, 12, 13), process(14, 1, 1)];
        let found = descendants(&all, &HashSet::from([10]));
        assert_eq!(found.iter().map(|process| process.pid).collect::<Vec<_>>(), [12, 13]);
    }

    #[test]
    fn a_real_child_is_a_descendant() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let all = all();
        let found = descendants(&all, &HashSet::from([std::process::id()]));
        assert!(found.iter().any(|process| process.pid == child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
