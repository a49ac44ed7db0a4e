//! Opens the recordings that the command line names: files, FIFOs, and `-` for stdin.

use std::{
    fs::{self, File, FileType, OpenOptions},
    io::{self, BufReader, IsTerminal as _, Read, Seek, Write as _},
    os::{
        fd::AsFd as _,
        unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    cli::{progress::Progress, selection::SelectionArgs},
    flow::sink::Sink,
    recording::{
        format::{Reader, begins_as_one},
        replay::{Recording, Replay},
    },
    util::{
        escape,
        private_file::{blocking, is_dash},
    },
};

/// Number of bytes at the start of a file that identify a recording.
const START: u64 = 16;

/// An open recording, which can be read more than once.
pub(super) struct Input {
    /// The path, escaped; `stdin` for stdin.
    pub(super) name: String,
    /// The path as it was given; `stdin` for stdin.
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Size of the file.
    pub(super) bytes: u64,
}

impl Input {
    /// Opens a recording. A pipe can be read only once and is therefore copied to a temporary file.
    ///
    /// # Errors
    /// If the path cannot be opened, or is neither a regular file nor a pipe with a writer.
    pub(super) fn open(path: &Path) -> Result<Self> {
        if is_dash(path) {
            let file = File::from(io::stdin().as_fd().try_clone_to_owned()?);
            ensure!(!file.is_terminal(), "stdin is a terminal: pipe a recording into it");
            return Self::of(file, "stdin".to_owned(), Path::new("stdin"));
        }
        let name = escape::path(path);
        let opening = || format!("cannot open {name}");
        let kind = fs::metadata(path).with_context(opening)?.file_type();
        // Checked before the open, because opening a device may have side effects.
        ensure_readable(kind, &name)?;
        let flags = if kind.is_fifo() { libc::O_NONBLOCK } else { 0 };
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        let file = file.with_context(opening)?;
        blocking(&file).with_context(opening)?;
        Self::of(file, name, path)
    }

    fn of(mut file: File, name: String, path: &Path) -> Result<Self> {
        let kind = file.metadata()?.file_type();
        ensure_readable(kind, &name)?;
        if !kind.is_file() || file.stream_position()? != 0 {
            file = copy(file, &name)?;
        }
        let bytes = file.metadata()?.len();
        Ok(Self { name, path: path.to_owned(), file, bytes })
    }

    /// Checks the file's header, so that nothing is created for a file that is not a recording.
    ///
    /// # Errors
    /// If the file is not a recording.
    pub(super) fn ensure_recording(&self) -> Result<()> {
        self.reader().map(drop)
    }

    pub(super) fn reader(&self) -> Result<Reader<BufReader<&File>>> {
        let file = BufReader::with_capacity(1 << 18, self.rewound()?);
        Reader::open(file).with_context(|| self.name.clone())
    }

    /// Opens the recording for replay. Reading a long one shows its progress on stderr if
    /// `show_progress` is true and stderr is a terminal.
    pub(super) fn recording(&self, show_progress: bool) -> Result<Recording<impl Read + Seek>> {
        let show_progress = show_progress && io::stderr().is_terminal();
        let file = Progress::new(self.rewound()?, self.bytes, show_progress);
        self.named(Recording::open(BufReader::with_capacity(1 << 18, file)))
    }

    /// Replays the selected part of the recording into a sink. Times of the clock are in UTC if the
    /// second part of the selection is true.
    pub(super) fn replay(
        &self,
        show_progress: bool,
        (selection, utc): (&SelectionArgs, bool),
        sink: &mut dyn Sink,
    ) -> Result<Replay> {
        let recording = self.recording(show_progress)?;
        let selection = selection.selection(recording.header(), utc);
        self.named(recording.replay(selection, sink))
    }

    /// Adds the recording's name to an error.
    pub(super) fn named<T>(&self, result: Result<T>) -> Result<T> {
        result.with_context(|| self.name.clone())
    }

    fn rewound(&self) -> io::Result<&File> {
        (&self.file).rewind()?;
        Ok(&self.file)
    }
}

/// Accepts regular files, FIFOs and sockets: under ssh and some supervisors, stdin is a socket.
fn ensure_readable(kind: FileType, name: &str) -> Result<()> {
    let what = if kind.is_dir() { "a directory" } else { "a device" };
    let readable = kind.is_file() || kind.is_fifo() || kind.is_socket();
    ensure!(readable, "{name} is {what}, not a recording: name a file, or - for stdin");
    Ok(())
}

/// Copies a stream to a file without a name.
fn copy(mut from: File, name: &str) -> Result<File> {
    let mut start = Vec::new();
    (&from).take(START).read_to_end(&mut start).with_context(|| name.to_owned())?;
    ensure!(!start.is_empty(), "{name} is empty: nobody writes to it, or its writer failed");
    let folder = std::env::temp_dir();
    let keeping =
        || format!("cannot copy {name} to {} (set TMPDIR to another)", escape::path(&folder));
    let mut file = tempfile::tempfile_in(&folder).with_context(keeping)?;
    file.write_all(&start).with_context(keeping)?;
    // The start is enough to reject other input, which may be endless.
    if begins_as_one(&start) {
        io::copy(&mut from, &mut file).with_context(keeping)?;
    }
    Ok(file)
}
