//! Writes to stdout and stderr. `println!` and `eprintln!` panic when the disk is full or the
//! reader is gone, so all output goes through this module; a lint of this crate forbids the macros.
//!
//! - stdout carries the result. An error is returned to the caller and names stdout. A pipe without
//!   a reader ends the process silently by SIGPIPE, as with any filter.
//! - stderr carries messages. Its errors are ignored: there is no place left to report them.
//!
//! If the parent process closed one of these descriptors, Rust's runtime opens /dev/null in its
//! place before `main`, so that no other file gets the number 0, 1 or 2.

use std::{
    fmt,
    io::{self, Write},
};

use crate::util::private_file::Named;

/// stdout, with errors that name it.
pub(crate) struct Stdout(Named<io::Stdout>);

impl Stdout {
    pub(crate) fn new() -> Self {
        Self(Named::new("stdout".to_owned(), io::stdout()))
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(or_end)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(or_end)
    }
}

/// Writes `text` to stdout and flushes it.
///
/// # Errors
/// Those of stdout.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut out = Stdout::new();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Ends the process by SIGPIPE if the pipe has no reader; otherwise returns the error. Rust's
/// runtime ignores SIGPIPE, and that remains the default here so that a message to a broken stderr
/// does not end a recording.
pub(crate) fn or_end(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        // SAFETY: SIG_DFL is a valid disposition, and the signal goes to this thread.
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::raise(libc::SIGPIPE);
        }
    }
    error
}

/// Writes `text` to stderr in one call.
pub(crate) fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Writes one line to stderr for [`note!`].
pub(crate) fn line(text: fmt::Arguments<'_>) {
    say(&format!("dio-trace: {text}\n"));
}

/// Writes a line to stderr, prefixed with the program's name.
macro_rules! note {
    ($($part:tt)*) => { $crate::util::stdio::line(format_args!($($part)*)) };
}
pub(crate) use note;
