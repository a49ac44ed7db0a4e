//! Mixed access: one process reads and writes a file directly, another one uses it through the page
//! cache, and dio-trace must report both.
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Write},
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::guest::{
    contract::json::{MixedFile, Report},
    direct_io::{
        files::drop_pages,
        memory::{Buffer, Map, page_size},
    },
};

/// The length of the file, in pages.
const PAGES: u64 = 16;

fn page() -> u64 {
    page_size() as u64
}

#[derive(Args, Clone, Debug)]
pub(crate) struct DirectUserArgs {
    #[arg(long)]
    path: PathBuf,
}

/// The process that uses the file directly: reads commands from stdin, `r PAGE` or `w PAGE`, and
/// answers each with the byte count.
pub(crate) fn direct_user(args: &DirectUserArgs) -> Result<()> {
    let mut options = File::options();
    let file = options.read(true).write(true).custom_flags(libc::O_DIRECT).open(&args.path)?;
    let mut buffer = Buffer::new(page() as usize)?;
    say("ready")?;
    for line in io::stdin().lock().lines() {
        let line = line?;
        let (what, number) = line.split_once(' ').context("`r PAGE` or `w PAGE`")?;
        let offset = number.parse::<u64>()? * page();
        let bytes = buffer.bytes();
        let done = match what {
            "r" => file.read_at(bytes, offset)?,
            "w" => file.write_at(bytes, offset)?,
            _ => bail!("`{what}` is neither r nor w"),
        };
        say(&done.to_string())?;
    }
    Ok(())
}

fn say(word: &str) -> Result<()> {
    println!("{word}");
    io::stdout().flush()?;
    Ok(())
}

/// The controlling side of the process that uses the file directly.
pub(crate) struct DirectUser {
    child: Child,
    stdin: ChildStdin,
    talk: BufReader<ChildStdout>,
    path: PathBuf,
    file: File,
}

impl DirectUser {
    /// Makes the file, drops its pages from the page cache, and starts the process.
    pub(crate) fn start(folder: &Path) -> Result<Self> {
        let path = folder.join("mixed");
        std::fs::write(&path, vec![1; (PAGES * page()) as usize])?;
        let file = File::options().read(true).write(true).open(&path)?;
        drop_pages(&file)?;
        // SAFETY: no memory is involved.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
        let me = std::env::current_exe().context("xtask cannot find itself")?;
        let mut child = Command::new(me)
            .args(["guest", "direct-user", "--path"])
            .arg(&path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the direct user")?;
        let stdin = child.stdin.take().context("no stdin")?;
        let talk = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut user = Self { child, stdin, talk, path, file };
        user.answer("ready")?;
        Ok(user)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn answer(&mut self, wanted: &str) -> Result<()> {
        let mut line = String::new();
        self.talk.read_line(&mut line)?;
        if line.trim() != wanted {
            bail!("the direct user said {line:?}, not {wanted}");
        }
        Ok(())
    }

    fn ask(&mut self, what: &str) -> Result<()> {
        writeln!(self.stdin, "{what}")?;
        self.stdin.flush()?;
        self.answer(&page().to_string())
    }

    /// Makes direct and buffered requests and lets the process exit; returns what dio-trace must
    /// report.
    pub(crate) fn mix(mut self) -> Result<MixedFile> {
        let map = Map::new(&self.file, PAGES * page())?;
        let all = (PAGES * page()) as usize;
        self.ask("r 0")?; // from here on the file is used directly
        let mut bytes = vec![2; 3 * page() as usize];
        self.file.write_all_at(&bytes[..2 * page() as usize], 4 * page())?;
        self.file.read_exact_at(&mut bytes, 8 * page())?;
        map.touch((12 * page()) as usize, 1);
        let cached = map.resident(0, all)?;
        self.ask("r 4")?; // page 4 is written back first
        self.ask("r 5")?;
        self.ask("w 8")?; // and page 8 dropped
        let dropped = cached - map.resident(0, all)?;
        let pid = self.pid();
        drop(self.stdin);
        if !self.child.wait()?.success() {
            bail!("the direct user failed");
        }
        Ok(MixedFile {
            path: self.path.to_string_lossy().into_owned(),
            direct: vec![(pid, 3, 1)],
            cached: vec![(std::process::id(), cached, 2)],
            flushed_pages: 2,
            invalidated_pages: dropped,
        })
    }
}

/// The mismatches of the reported mixed access.
pub(crate) fn judge(report: &Report, wanted: &MixedFile) -> Vec<String> {
    let mut said = report.mixed();
    // The kernel skips the probe that counts cached pages while a preempted task is inside it, and
    // counts the skipped runs. That many pages may be missing.
    let hidden = report.skipped("tp_added_to_page_cache");
    for (reported, truth) in said.iter_mut().zip([wanted]) {
        for (user, (_, cached, _)) in reported.cached.iter_mut().zip(&truth.cached) {
            if user.1 < *cached && user.1 + hidden >= *cached {
                user.1 = *cached;
            }
        }
    }
    if said == std::slice::from_ref(wanted) {
        return Vec::new();
    }
    vec![format!("mixed access is {said:?}, not {wanted:?}")]
}
