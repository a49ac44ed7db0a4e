//! Behaviour at an interactive terminal: status lines, progress while attaching, and exit at a
//! second Ctrl-C.

use std::io::{self, IsTerminal as _};

use crate::util::stdio::{note, say};

/// Prints a status line if stderr is a terminal. Programs that read stderr do not see it.
pub(super) fn say_to_person(text: &str) {
    if io::stderr().is_terminal() {
        note!("{text}");
    }
}

/// Calls `attach`, which may take seconds on a slow machine, and shows its progress on a terminal.
pub(super) fn with_progress<T>(attach: impl FnOnce(&mut dyn FnMut(usize, usize)) -> T) -> T {
    let redraws =
        io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
    if !redraws {
        say_to_person("attaching…");
        return attach(&mut |_, _| ());
    }
    say("dio-trace: attaching…");
    let mut step = |done, all| say(&format!("\rdio-trace: attaching… {done} of {all} probes"));
    let result = attach(&mut step);
    say("\r\x1b[K");
    result
}

/// Makes the next SIGINT or SIGTERM end the program at once; the kernel then detaches the probes.
/// Before this call, these signals start an orderly shutdown.
pub(super) fn quit_at_next_signal() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let handler = quit as extern "C" fn(libc::c_int);
        // SAFETY: the handler only calls _exit(2), which is async-signal-safe.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// Exits with 128 + signal, as a shell reports it.
extern "C" fn quit(signal: libc::c_int) {
    // SAFETY: no preconditions.
    unsafe { libc::_exit(128 + signal) };
}
