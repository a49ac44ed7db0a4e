//! `dio-trace top` in a terminal (tmux): what it shows, how it reacts to keys, and whether it
//! restores the terminal.
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    guest::{demo, fixtures::Place, harness::Tried},
    host::cmd::{self, quote, text},
};

/// The number of runs of dio-trace.
pub(crate) const RUNS: u64 = 3;
/// Limit for a text to appear on a slow machine. This includes attaching, which takes 40 s on 6.1
/// even when nothing else runs.
const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) const SETUPS: &[&str] = &["ext4-512", "ext4-journal"];

/// Runs dio-trace three times: one run quits by its key, one by SIGTERM, one by a second Ctrl-C
/// while it detaches. Returns the mismatches. On the second folder's file system, O_DIRECT reads go
/// through the page cache.
pub(crate) fn check(tried: &Tried, places: &[Place], out: &Path) -> Result<Vec<String>> {
    let attach = &tried.attach;
    let folders = [0, 1].map(|n: usize| places[n].path.clone());
    folders.iter().try_for_each(|folder| demo::fill(folder))?;
    let _reader = Reader(demo::start_reader(&folders)?);
    let file = folders[1].join("table.db");
    let tool = std::path::absolute(&tried.tool)?;
    let tool = text(&tool)?;
    let mut wrong = Vec::new();

    let pane = Pane::start("keys", &format!("{tool} top --attach {attach} -i 500ms"), out)?;
    keys(&pane, text(&file)?)?;
    pane.keys(&["q"])?;
    wrong.extend(pane.restored(0)?);

    let pane = Pane::start("signal", &format!("{tool} top --attach {attach} --by cause"), out)?;
    pane.shows("data-journal")?;
    pane.terminate()?;
    wrong.extend(pane.restored(0)?);

    let pane = Pane::start("twice", &format!("{tool} audit --attach {attach}"), out)?;
    pane.shows("tracing the whole system")?;
    pane.keys(&["C-c"])?;
    pane.shows("detaching")?;
    pane.keys(&["C-c"])?;
    // The probes may be gone before the second key arrives, as on 5.10: then it exits cleanly.
    let summed_up = pane.ended()? == 0 && pane.screen()?.contains("probes:");
    wrong.extend(pane.restored(if summed_up { 0 } else { 130 })?);
    Ok(wrong)
}

/// Presses the keys of a user who looks for the process, its file, and the cause.
fn keys(pane: &Pane, path: &str) -> Result<()> {
    pane.shows("dbreader/")?;
    pane.shows("data-journal")?;
    pane.keep("rows.txt")?;
    // Group by file, filter by name, open the first file's findings.
    pane.keys(&["2", "/"])?;
    pane.keys(&["j", "o", "u", "r", "n", "a", "l"])?;
    pane.shows("filter: journal_")?;
    pane.shows(path)?;
    pane.keys(&["Enter"])?;
    pane.shows("filter: journal ")?;
    pane.keys(&["Enter"])?;
    pane.shows("cause:  data-journal")?;
    pane.shows("fix:")?;
    pane.keep("findings.txt")?;
    // Go back, pause, and resize the window to small and to large.
    pane.keys(&["Escape"])?;
    pane.shows("REQ/S")?;
    pane.keys(&["p"])?;
    pane.shows("PAUSED")?;
    pane.size(40, 10)?;
    pane.shows_not("HISTORY")?;
    pane.shows("PAUSED")?;
    pane.size(20, 5)?;
    pane.shows("too small")?;
    pane.size(160, 40)?;
    pane.shows("HISTORY")?;
    pane.keys(&["?"])?;
    pane.shows("Ctrl-C")
}

/// A program that reads both folders' files with O_DIRECT; killed on drop.
struct Reader(Child);

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A terminal of 80x24 with one program in it. Its shell writes the terminal settings before and
/// after, the process id and the exit code to files of `folder`.
struct Pane {
    name: String,
    folder: PathBuf,
}

impl Pane {
    fn start(name: &str, command: &str, out: &Path) -> Result<Self> {
        let folder = out.join(format!("live-{name}"));
        fs::create_dir_all(&folder)?;
        for old in ["before", "after", "code", "pid"] {
            let _ = fs::remove_file(folder.join(old));
        }
        let pane = Self { name: name.to_owned(), folder };
        let folder = quote(text(&pane.folder)?);
        // The shell, and with it the terminal, survives a Ctrl-C at any time.
        let script = format!(
            "trap : INT; cd {folder}; stty -g > before; sh -c 'echo $$ > pid; exec {command}'; \
             echo $? > code; trap '' INT; stty -g > after; exec sleep 1000"
        );
        pane.tmux(&["new-session", "-d", "-x", "80", "-y", "24", &script])?;
        Ok(pane)
    }

    /// Runs tmux with a separate server and without a user's settings.
    fn tmux(&self, words: &[&str]) -> Result<String> {
        let socket = format!("dio-trace-{}", self.name);
        let mut command = Command::new("tmux");
        command.args(["-u", "-f", "/dev/null", "-L", &socket]).args(words);
        command.env("LC_ALL", "C.UTF-8").env("TERM", "xterm-256color").env_remove("TMUX");
        cmd::output(&mut command)
    }

    fn keys(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    fn size(&self, width: u32, height: u32) -> Result<()> {
        let (width, height) = (width.to_string(), height.to_string());
        self.tmux(&["resize-window", "-x", &width, "-y", &height]).map(drop)
    }

    fn terminate(&self) -> Result<()> {
        let pid = fs::read_to_string(self.folder.join("pid"))?;
        let pid = pid.trim().parse().context("no process id")?;
        // SAFETY: a process that our shell waits for.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        Ok(())
    }

    /// The text on the terminal.
    fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Writes the text on the terminal to the result's folder.
    fn keep(&self, name: &str) -> Result<()> {
        Ok(fs::write(self.folder.join(name), self.screen()?)?)
    }

    /// Waits until the terminal shows the text.
    fn shows(&self, text: &str) -> Result<()> {
        self.waits(|screen| screen.contains(text), &format!("never showed `{text}`"))
    }

    fn shows_not(&self, text: &str) -> Result<()> {
        self.waits(|screen| !screen.contains(text), &format!("always showed `{text}`"))
    }

    fn waits(&self, until: impl Fn(&str) -> bool, what: &str) -> Result<()> {
        let start = Instant::now();
        loop {
            let screen = self.screen()?;
            if until(&screen) {
                return Ok(());
            }
            if start.elapsed() > PATIENCE || !self.read("code").is_empty() {
                bail!("terminal `{}` {what}:\n{screen}", self.name);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The content of one of the shell's files; empty if not written yet.
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    /// Waits until the program exits; returns its exit code.
    fn ended(&self) -> Result<i32> {
        let start = Instant::now();
        while self.read("after").is_empty() {
            if start.elapsed() > PATIENCE {
                bail!("terminal `{}`: the program did not end:\n{}", self.name, self.screen()?);
            }
            thread::sleep(Duration::from_millis(100));
        }
        self.read("code").trim().parse().context("the program left no exit code")
    }

    /// Closes the terminal; returns the mismatches of the exit code and of the terminal's state.
    fn restored(self, code: i32) -> Result<Vec<String>> {
        let ended = self.ended()?;
        let mut wrong = Vec::new();
        let (before, after) = (self.read("before"), self.read("after"));
        if before != after {
            wrong.push(format!("stty said {} before and says {}", before.trim(), after.trim()));
        }
        if ended != code {
            wrong.push(format!("ended with {ended}, not {code}:\n{}", self.screen()?));
        }
        let format = "#{alternate_on} #{cursor_flag}";
        let state = self.tmux(&["display-message", "-p", format])?;
        if state.trim() != "0 1" {
            wrong.push(format!("alternate screen and cursor are {}, not 0 1", state.trim()));
        }
        self.keep("closed.txt")?;
        let named = |text: String| format!("terminal `{}`: {text}", self.name);
        Ok(wrong.into_iter().map(named).collect())
    }
}

impl Drop for Pane {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}
