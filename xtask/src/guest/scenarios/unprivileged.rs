//! dio-trace for an unprivileged user with two capabilities, which it must drop once it traces.
use std::{
    fs, io,
    io::Write as _,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, bail};

use crate::{
    guest::{
        direct_io::files::{drop_pages, fill},
        fixtures::Place,
        harness::{Traces, Tried, end, not_ended_with, wait_until_tracing},
        scenarios::filters::compare,
    },
    host::cmd::text,
};

/// The number of runs of dio-trace.
pub(crate) const RUNS: u64 = 2;
/// The user and group id of nobody.
const USER: u32 = 65534;
/// Capability numbers (capabilities(7)).
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
const CAP_SYS_RESOURCE: u32 = 24;
/// Limit for dropping capabilities, once dio-trace traces.
const PATIENCE: Duration = Duration::from_secs(30);
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";
const SIZE: usize = 16 << 10;

pub(crate) const SETUPS: &[&str] = &["ext4-512"];

/// Runs dio-trace as an unprivileged user; returns the mismatches. The first folder's file system
/// must have extended attributes.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let Tried { tool, attach, series } = tried;
    let home = places[0].path.join("nobody");
    fs::create_dir_all(&home)?;
    let own = home.join("dio-trace");
    fs::copy(tool, &own).context("cannot copy dio-trace")?;
    fs::set_permissions(&own, fs::Permissions::from_mode(0o755))?;
    let data = home.join("data");
    fill(&data, SIZE)?;
    for path in [&home, &data] {
        chown(path, Some(USER), Some(USER))?;
    }
    let mut wrong = Vec::new();
    wrong.extend(checked(&own, &home)?);

    wrong.extend(refused(&own, &[], &["CAP_BPF and CAP_PERFMON missing", "setcap"])?);

    grant(&own, 1 << CAP_PERFMON | 1 << CAP_BPF)?;
    if series == "5.10" {
        // Before 5.11 BPF maps count as locked memory.
        wrong.extend(refused(&own, &[], &["cap_sys_resource"])?);
        grant(&own, 1 << CAP_PERFMON | 1 << CAP_BPF | 1 << CAP_SYS_RESOURCE)?;
    }
    let paranoid = fs::read_to_string(PARANOID)?;
    // Debian's kernels: at 3, perf_event_open(2), which kprobes need, is refused. On 5.10 fentry
    // cannot attach to every function, so dio-trace uses kprobes there too.
    if (attach == "kprobe" || series == "5.10") && paranoid.trim() == "3" {
        wrong.extend(refused(&own, &["--attach", attach], &["perf_event_paranoid=2"])?);
        fs::write(PARANOID, "2")?;
    }
    let result = traced(&own, attach, series, &home, out);
    fs::write(PARANOID, paranoid)?;
    wrong.extend(result?);
    Ok(wrong)
}

/// Runs `check` on a file of root that the user may read and write, but only with an update of its
/// access time. Returns a mismatch if `check` updates it, or does not say that it did not read.
fn checked(own: &Path, home: &Path) -> Result<Vec<String>> {
    let data = home.join("roots");
    fill(&data, SIZE)?;
    fs::set_permissions(&data, fs::Permissions::from_mode(0o666))?;
    let file = fs::File::options().write(true).open(&data)?;
    drop_pages(&file)?;
    let long_ago = SystemTime::now() - Duration::from_hours(48);
    file.set_times(fs::FileTimes::new().set_accessed(long_ago))?;
    let before = fs::metadata(&data)?.accessed()?;
    let output = by_nobody(own).args(["check", "--json"]).arg(&data).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut wrong = Vec::new();
    if fs::metadata(&data)?.accessed()? != before {
        wrong.push("check renews the access time of another user's file".to_owned());
    }
    if !text.contains("access time") {
        wrong.push(format!("check does not say that it did not read: {text}"));
    }
    Ok(wrong)
}

/// The mismatches of a run that must fail and print all of `says`.
fn refused(own: &Path, more: &[&str], says: &[&str]) -> Result<Vec<String>> {
    let output = by_nobody(own).args(["audit", "-d", "1"]).args(more).output()?;
    let talk = String::from_utf8_lossy(&output.stderr);
    let unsaid = says.iter().filter(|words| !talk.contains(**words));
    let unsaid = unsaid.map(|words| format!("does not say `{words}`: {talk}"));
    Ok(not_ended_with(&output, 1).into_iter().chain(unsaid).collect())
}

/// Traces a program's reads as the program's own user; returns the mismatches.
fn traced(own: &Path, attach: &str, series: &str, home: &Path, out: &Path) -> Result<Vec<String>> {
    let data = home.join("data");
    let mut wrong = Vec::new();
    let read = format!("read go; dd if={} of=/dev/null iflag=direct bs=4096", text(&data)?);
    let mut program = by_nobody("sh".as_ref())
        .args(["-c", &read])
        .stdin(Stdio::piped())
        .spawn()
        .context("cannot start sh")?;
    let traces = Traces::new(out, "unprivileged");
    let mut tool = by_nobody(own)
        .args(["attach", "-p", &program.id().to_string(), "--json", "--all", "--attach", attach])
        .stdout(fs::File::create(&traces.json)?)
        .stderr(fs::File::create(&traces.talk)?)
        .current_dir(home)
        .spawn()
        .context("cannot start dio-trace")?;
    wait_until_tracing(&mut tool, &traces)?;
    // 5.10 requires CAP_BPF for every map lookup.
    let may_keep = if series == "5.10" { 1 << CAP_BPF } else { 0 };
    let start = Instant::now();
    let left = loop {
        let left = permitted(tool.id())?;
        if left == may_keep || start.elapsed() > PATIENCE {
            break left;
        }
        thread::sleep(Duration::from_millis(100));
    };
    program.stdin.take().context("sh has no stdin")?.write_all(b"go\n")?;
    program.wait()?;
    end(tool, &traces)?;
    if left != may_keep {
        wrong.push(format!("keeps capabilities {left:#x} while it traces, not {may_keep:#x}"));
    }
    let json = fs::read_to_string(&traces.json)?;
    // Four reads of a block, and one that finds the end.
    wrong.extend(compare(&json, 5, "with two capabilities"));
    if json.matches(&format!("\"path\":{}", serde_json::to_string(text(&data)?)?)).count() < 5 {
        wrong.push(format!("with two capabilities: not {}: {json}", data.display()));
    }
    Ok(wrong)
}

fn by_nobody(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.uid(USER).gid(USER);
    // SAFETY: between fork and exec only setrlimit is called, on a value of our own.
    unsafe { command.pre_exec(limit_locked_memory) };
    command
}

/// Gives the process the limit of locked memory that a user has: this process, whose limit it would
/// inherit, has raised its own in order to list eBPF programs (suite/verified.rs).
fn limit_locked_memory() -> io::Result<()> {
    const USUAL: libc::rlim_t = 64 << 10;
    let limit = libc::rlimit { rlim_cur: USUAL, rlim_max: USUAL };
    // SAFETY: a value of our own.
    match unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sets a file's permitted and effective capabilities (struct vfs_cap_data, revision 2).
fn grant(file: &Path, caps: u64) -> Result<()> {
    const EFFECTIVE: u32 = 1;
    const REVISION_2: u32 = 0x0200_0000;
    let words = [REVISION_2 | EFFECTIVE, caps as u32, 0, (caps >> 32) as u32, 0];
    let data: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let path = std::ffi::CString::new(file.as_os_str().as_bytes())?;
    // SAFETY: two C strings, and a buffer of the given length.
    let set = unsafe {
        libc::setxattr(
            path.as_ptr(),
            c"security.capability".as_ptr(),
            data.as_ptr().cast(),
            data.len(),
            0,
        )
    };
    if set != 0 {
        bail!("setcap {}: {}", file.display(), io::Error::last_os_error());
    }
    Ok(())
}

fn permitted(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let hex = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    Ok(u64::from_str_radix(hex.context("no CapPrm")?.trim(), 16)?)
}
