//! Takes the terminal for a live screen, and restores it at the end, also after an error or a
//! panic.

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

/// Capacity of the queue of terminal events.
const KEYS: usize = 64;

/// True while the live screen has the terminal.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Checks that a live screen can be shown here.
///
/// # Errors
/// If stdout is not a capable terminal, or there is no keyboard.
pub(super) fn check() -> Result<()> {
    if !io::stdout().is_terminal() {
        bail!(
            "top needs a terminal, and stdout is not one: use `dio-trace top --once`, or `dio-trace audit`"
        );
    }
    if std::env::var_os("TERM").is_some_and(|term| term == "dumb") {
        bail!("top needs a terminal that can place its cursor, and TERM is dumb: use `top --once`");
    }
    if !io::stdin().is_terminal() && File::open("/dev/tty").is_err() {
        bail!("top needs a keyboard: stdin is not a terminal, and there is no /dev/tty");
    }
    Ok(())
}

/// The terminal in raw mode with the alternate screen; dropping it restores the terminal.
pub(super) struct Terminal {
    screen: ratatui::Terminal<CrosstermBackend<Stdout>>,
}

impl Terminal {
    /// Takes the terminal: enters raw mode and the alternate screen.
    ///
    /// # Errors
    /// If the terminal's mode cannot be set.
    pub(super) fn take() -> Result<Self> {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
        let screen =
            take().and_then(|()| ratatui::Terminal::new(CrosstermBackend::new(io::stdout())));
        // On an error there is no Terminal whose drop would restore the mode.
        let screen = screen.inspect_err(|_| give_back()).context("cannot take the terminal")?;
        Ok(Self { screen })
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.screen.draw(draw).map(drop)
    }

    /// Clears the screen; the next `draw` draws everything again.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.screen.clear()
    }

    /// Stops this process until the shell continues it, as Ctrl-Z does.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        give_back();
        // SAFETY: no preconditions.
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

/// Restores the terminal, if it is taken. Errors are ignored, because they could not be shown.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
        let _ = io::stdout().flush();
    }
}

/// Starts a thread that reads keys and resize events, because reading them blocks. The thread ends
/// with the process.
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
