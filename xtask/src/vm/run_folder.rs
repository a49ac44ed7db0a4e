//! The run folder of a VM (`vms/NAME` in the cache), and the files by which host and guest talk.
//!
//! Its subfolder `control` is mounted in the guest. The host writes a job as `jobs/N.sh`; the guest
//! runs it, writes its output to `N.out` and `N.err`, and writes its exit code to `N.rc` last. The
//! guest makes the file `up` when it has booted. init.sh is the guest's side.
use std::{
    fs,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::host::{cmd::quote, paths};

/// The exit code of timeout(1) for a command that ran too long.
const TIMED_OUT: u8 = 124;

/// The path of the run folder of this name.
///
/// # Errors
///
/// If the name has other characters than letters, digits, `-`, `_` and `.`, or begins with `.`.
pub(crate) fn run_folder(name: &str) -> Result<PathBuf> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        bail!("`{name}` is not a valid name for a VM: use letters, digits, `-`, `_` and `.`");
    }
    Ok(paths::cache()?.join("vms").join(name))
}

/// The pid of the QEMU process of this run folder, if it runs. The pid may have been reused by
/// another program, so the process's command line must name the folder.
pub(crate) fn qemu_pid(run: &Path) -> Option<i32> {
    let pid: i32 = fs::read_to_string(run.join("pid")).ok()?.trim().parse().ok()?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let initrd = run.join("initrd.img");
    let initrd = initrd.as_os_str().as_encoded_bytes();
    line.split(|byte| *byte == 0).any(|word| word == initrd).then_some(pid)
}

/// The script that bash runs in the guest for a command: it changes to the checkout, limits the
/// time, and exits with the command's exit code. A command of one word is a line of shell.
pub(crate) fn script(command: &[String], timeout: Option<Duration>) -> Result<String> {
    let workspace = paths::workspace()?;
    let words: Vec<String> = match command {
        [line] => vec!["/bin/bash".to_owned(), "-c".to_owned(), quote(line)],
        words => words.iter().map(|word| quote(word)).collect(),
    };
    let limit = timeout.map(|t| format!("timeout -k 5 {} ", t.as_secs())).unwrap_or_default();
    let folder = quote(&workspace.display().to_string());
    let says = timeout.map_or(String::new(), |timeout| {
        format!(
            "[ $code = {TIMED_OUT} ] && echo 'xtask: timed out after {} s' >&2\n",
            timeout.as_secs()
        )
    });
    Ok(format!("cd {folder} || exit 125\n{limit}{}\ncode=$?\n{says}exit $code\n", words.join(" ")))
}

/// Writes a file atomically: a reader sees all of it or no file.
pub(crate) fn put(path: &Path, text: &str) -> Result<()> {
    let half = path.with_extension("half");
    fs::write(&half, text)
        .and_then(|()| fs::rename(&half, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Reads a growing file: each call returns what was added since the previous one.
pub(crate) struct Tail {
    path: PathBuf,
    file: Option<fs::File>,
    at: u64,
}

impl Tail {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, file: None, at: 0 }
    }

    pub(crate) fn read(&mut self, mut sink: impl FnMut(&[u8])) {
        if self.file.is_none() {
            self.file = fs::File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return };
        let mut bytes = Vec::new();
        // After an error the next call tries again.
        let read = file.seek(SeekFrom::Start(self.at)).and_then(|_| file.read_to_end(&mut bytes));
        if read.is_ok() && !bytes.is_empty() {
            self.at += bytes.len() as u64;
            sink(&bytes);
        }
    }
}
