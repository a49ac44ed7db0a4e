//! stdout and stderr. `println!` and `eprintln!` panic where the other side is full or gone, so
//! everything is written through here, and a lint of this crate forbids them.
//!
//! - stdout carries the result. An error is returned to the caller and names stdout; a pipe that
//!   nobody reads any more ends the process, quietly, as it ends any filter.
//! - stderr carries messages. An error there cannot be reported anywhere and changes nothing.
//!
//! A descriptor that was closed by the caller is /dev/null: Rust's runtime opens it before `main`,
//! so that no file of ours gets the number 0, 1 or 2.

use std::{
    fmt,
    io::{self, Write},
};

use crate::util::private_file::Named;

/// stdout.
pub struct Stdout(Named<io::Stdout>);

impl Stdout {
    pub fn new() -> Self {
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

/// Writes a whole text to stdout.
///
/// # Errors
/// Those of stdout.
pub fn print(text: &str) -> io::Result<()> {
    let mut out = Stdout::new();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Ends the process if nobody reads the pipe any more. Rust has SIGPIPE ignored, and it stays so: a
/// message on a broken stderr must not end a recording.
pub fn or_end(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::BrokenPipe {
        // SAFETY: SIG_DFL is a valid disposition, and the signal goes to this thread.
        unsafe {
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
            libc::raise(libc::SIGPIPE);
        }
    }
    error
}

/// Writes to stderr, in one piece.
pub fn say(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// See [`note!`].
pub fn line(text: fmt::Arguments<'_>) {
    say(&format!("dio-trace: {text}\n"));
}

/// A line on stderr, behind the program's name.
macro_rules! note {
    ($($part:tt)*) => { $crate::util::stdio::line(format_args!($($part)*)) };
}
pub(crate) use note;
