//! What a person at a terminal expects of any program.

use std::io::{self, IsTerminal as _};

use crate::util::stdio::{note, say};

/// A line that nothing but a person reads: there is one if stderr is a terminal.
pub(super) fn say_to_person(text: &str) {
    if io::stderr().is_terminal() {
        note!("{text}");
    }
}

/// Attaches, which takes seconds on a slow machine, and shows a person how far it is.
pub(super) fn with_progress<T>(attach: impl FnOnce(&mut dyn FnMut(usize, usize)) -> T) -> T {
    let moves = io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
    if !moves {
        say_to_person("attaching…");
        return attach(&mut |_, _| ());
    }
    say("dio-trace: attaching…");
    let mut step = |done, all| say(&format!("\rdio-trace: attaching… {done} of {all} probes"));
    let result = attach(&mut step);
    say("\r\x1b[K");
    result
}

/// From here on the next Ctrl-C or SIGTERM ends the program at once; the kernel detaches what is
/// attached. Before, signals ask for an end in good order.
pub(super) fn quit_at_next_signal() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let handler = quit as extern "C" fn(libc::c_int);
        // SAFETY: the handler calls nothing but _exit(2), which a handler may.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// As a shell has it: 128 + signal.
extern "C" fn quit(signal: libc::c_int) {
    // SAFETY: ends the process.
    unsafe { libc::_exit(128 + signal) };
}
