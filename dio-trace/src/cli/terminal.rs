//! The terminal while a live screen has it, and giving it back whatever happens.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Stdout, Write as _},
    panic,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result, bail};
use ratatui::{
    Frame,
    backend::CrosstermBackend,
    crossterm::{
        cursor::{Hide, Show},
        event::{self, Event},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
};
use tokio::sync::mpsc::{Receiver, channel};

/// Keys that may wait.
const KEYS: usize = 64;

/// True while the terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Says why a live screen cannot be shown here, if so.
pub(super) fn check() -> Result<()> {
    if !io::stdout().is_terminal() {
        bail!("top needs a terminal, and stdout is none: use `dio-trace audit`, or --json with it");
    }
    if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        bail!("top needs a terminal that can place its cursor, and TERM is dumb: use `audit`");
    }
    if !io::stdin().is_terminal() && File::open("/dev/tty").is_err() {
        bail!("top needs a keyboard: stdin is no terminal, and there is no /dev/tty");
    }
    Ok(())
}

/// The terminal, taken; dropping it gives it back.
pub(super) struct Terminal {
    screen: ratatui::Terminal<CrosstermBackend<Stdout>>,
}

impl Terminal {
    /// Takes it: raw keys and the alternate screen.
    pub(super) fn take() -> Result<Self> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
        let screen =
            take().and_then(|()| ratatui::Terminal::new(CrosstermBackend::new(io::stdout())));
        // There is no Terminal yet to be dropped.
        let screen = screen.inspect_err(|_| give_back()).context("cannot take the terminal")?;
        Ok(Self { screen })
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.screen.draw(draw).map(drop)
    }

    /// The next drawing draws everything.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.screen.clear()
    }

    /// Stops until the shell continues us, as Ctrl-Z does.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        // SAFETY: raises a signal for this process.
        unsafe { libc::raise(libc::SIGTSTP) };
        take()?;
        self.clear()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    execute!(io::stdout(), EnterAlternateScreen, Hide)
}

/// Nobody is left who could be told of an error.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
        let _ = io::stdout().flush();
    }
}

/// Keys and changes of size, read by a thread of its own: a read cannot be waited for otherwise
/// without a loop. It ends with the process.
pub(super) fn keyboard() -> Result<Receiver<Event>> {
    let (to, keys) = channel(KEYS);
    thread::Builder::new()
        .name("dio-trace-keys".to_owned())
        .spawn(move || {
            while let Ok(event) = event::read() {
                if to.blocking_send(event).is_err() {
                    break;
                }
            }
        })
        .context("cannot start a thread for the keyboard")?;
    Ok(keys)
}
