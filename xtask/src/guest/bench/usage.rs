//! A process's resource usage: CPU time, context switches, memory.
use std::{
    fs, io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, Result};

/// CPU time of a process and its threads, in clock ticks (proc_pid_stat(5): utime, stime).
pub(super) fn cpu_ticks(pid: u32) -> Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("no name in /proc/PID/stat")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let field = |n: usize| fields.get(n).and_then(|word| word.parse::<u64>().ok());
    Ok(field(11).context("no utime")? + field(12).context("no stime")?)
}

/// CPU time of a process and its threads in seconds, including threads that have exited.
pub(super) fn cpu_seconds(pid: u32) -> Result<f64> {
    // SAFETY: no preconditions.
    let hz = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    Ok(cpu_ticks(pid)? as f64 / hz as f64)
}

/// CPU time of a process's existing threads, exact rather than in ticks (kernel/sched:
/// `sum_exec_runtime`, the first number of /proc/PID/task/TID/schedstat).
pub(super) fn exact_cpu(pid: u32) -> Result<Duration> {
    let mut sum = 0;
    for task in tasks(pid)? {
        let text = fs::read_to_string(task.join("schedstat"))?;
        let first = text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
        sum += first.context("no time in schedstat")?;
    }
    Ok(Duration::from_nanos(sum))
}

/// How often a process's threads started to wait (proc_pid_status(5): `voluntary_ctxt_switches`).
pub(super) fn waits(pid: u32) -> Result<u64> {
    tasks(pid)?.iter().map(|task| status(task, "voluntary_ctxt_switches:")).sum()
}

/// A process's resident memory, in KiB (proc_pid_status(5): `VmRSS`).
pub(super) fn resident(pid: u32) -> Result<u64> {
    status(&Path::new("/proc").join(pid.to_string()), "VmRSS:")
}

fn tasks(pid: u32) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
    Ok(entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<_>>()?)
}

fn status(of: &Path, name: &str) -> Result<u64> {
    let text = fs::read_to_string(of.join("status"))?;
    let number = text
        .lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("no {name} in {}", of.display()))
}

/// Waits for a child; returns its exit status and resource usage.
pub(super) fn wait(pid: u32) -> Result<(ExitStatus, libc::rusage)> {
    let mut status = 0;
    // SAFETY: rusage is made of plain numbers, for which all zeroes are valid.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: our own child, and two of our own variables to write to.
    let pid = unsafe { libc::wait4(pid as libc::pid_t, &raw mut status, 0, &raw mut usage) };
    if pid < 0 {
        return Err(io::Error::last_os_error()).context("cannot wait for dio-trace");
    }
    Ok((ExitStatus::from_raw(status), usage))
}

/// User and system CPU time together, in seconds.
pub(super) fn seconds(usage: &libc::rusage) -> f64 {
    let of = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    of(usage.ru_utime) + of(usage.ru_stime)
}
