//! Buffers that direct I/O cannot pin: a device's memory, a guard page, nothing mapped, a read-only
//! mapping. The fix for device memory is a bounce buffer.
use std::{
    fs::File,
    io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
    ptr, thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{Trial, on};
use crate::{
    guest::direct_io::{
        files::fill,
        memory::{Buffer, page_size},
    },
    host::cmd::text,
};

/// How long the program stays, so that dio-trace can look up its mappings.
const LINGER: Duration = Duration::from_secs(5);
/// The BIOS area, which /dev/mem maps also where the kernel has CONFIG_STRICT_DEVMEM.
const BIOS: libc::off_t = 0xf_0000;

#[derive(Args, Clone, Debug)]
pub(crate) struct ReportsUserArgs {
    file: PathBuf,
}

/// What is done with each buffer, in this order: the operation, and the cause's words, or none for a
/// direct request.
fn wanted() -> [(&'static str, Option<String>); 6] {
    let (page, two) = (page_size(), 2 * page_size());
    let guard = format!("byte {page} of the buffer's {two} is in a mapping without access");
    let hole = format!("nothing is mapped at byte {page} of the buffer's {two}");
    let device = || Some("memory of a device (/dev/mem".to_owned());
    [
        ("write", device()),
        ("read", device()),
        ("read", Some(guard)),
        ("read", Some(hole)),
        ("read", Some("does not permit to write".to_owned())),
        ("read", None),
    ]
}

/// The program: makes the requests.
pub(crate) fn program(args: &ReportsUserArgs) -> Result<()> {
    let mut options = File::options();
    let file = options.read(true).write(true).custom_flags(libc::O_DIRECT).open(&args.file);
    let file = file.with_context(|| format!("cannot open {}", args.file.display()))?;
    let page = page_size();
    let devices = File::options().read(true).write(true).open("/dev/mem").context("/dev/mem")?;
    // Mapped first: a later one would fill the hole that is made below.
    let read_only = map(page, libc::PROT_READ, None)?;
    let mut bounce = Buffer::new(page)?;
    let device = map(page, libc::PROT_READ | libc::PROT_WRITE, Some((&devices, BIOS)))?;
    pwrite(&file, device, page);
    pread(&file, device, page);
    for guarded in [true, false] {
        let pair = map(2 * page, libc::PROT_READ | libc::PROT_WRITE, None)?;
        let second = pair.wrapping_byte_add(page);
        // SAFETY: the second page of our own mapping, to which there is no reference.
        let failed = unsafe {
            if guarded {
                libc::mprotect(second, page, libc::PROT_NONE)
            } else {
                libc::munmap(second, page)
            }
        } != 0;
        if failed {
            bail!("cannot take the second page away: {}", io::Error::last_os_error());
        }
        pread(&file, pair, 2 * page);
    }
    pread(&file, read_only, page);
    // The fix: ordinary memory, from where the data is copied.
    pread(&file, bounce.at(0).cast(), page);
    thread::sleep(LINGER);
    Ok(())
}

fn map(
    len: usize,
    access: libc::c_int,
    file: Option<(&File, libc::off_t)>,
) -> Result<*mut libc::c_void> {
    let (fd, offset) = file.map_or((-1, 0), |(file, offset)| (file.as_raw_fd(), offset));
    let kind = match file {
        Some(_) => libc::MAP_SHARED,
        None => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
    };
    // SAFETY: a new mapping, at an address that the kernel chooses.
    let start = unsafe { libc::mmap(ptr::null_mut(), len, access, kind, fd, offset) };
    if start == libc::MAP_FAILED {
        bail!("cannot map {len} bytes: {}", io::Error::last_os_error());
    }
    Ok(start)
}

/// Reads from the file's start; the result is dio-trace's to tell.
fn pread(file: &File, buffer: *mut libc::c_void, len: usize) {
    // SAFETY: the kernel checks the buffer; to the pages that it may write there is no reference.
    unsafe { libc::pread(file.as_raw_fd(), buffer, len, 0) };
}

fn pwrite(file: &File, buffer: *const libc::c_void, len: usize) {
    // SAFETY: the kernel checks the buffer, and only reads it.
    unsafe { libc::pwrite(file.as_raw_fd(), buffer, len, 0) };
}

pub(super) fn check(trial: &Trial<'_>, folder: &Path) -> Result<Vec<String>> {
    let file = folder.join("pinned");
    fill(&file, 4 * page_size())?;
    let (_, seen, _) = trial.run_guest(&[], &["reports-user", text(&file)?])?;
    let seen = match on(&seen, &file, wanted().len()) {
        Ok(seen) => seen,
        Err(wrong) => return Ok(vec![wrong]),
    };
    let mismatch = |(seen, (op, why)): (&&super::Seen, (&str, Option<String>))| {
        if seen.op != op {
            return Some(format!("not a {op}: {seen:?}"));
        }
        match why {
            Some(why) => {
                let fix = if why.contains("device") { "bounce buffer" } else { "/proc/PID/maps" };
                seen.explained("efault", &why, fix)
            }
            None => (seen.verdict != "direct").then(|| format!("the fix failed: {seen:?}")),
        }
    };
    Ok(seen.iter().zip(wanted()).filter_map(mismatch).collect())
}
