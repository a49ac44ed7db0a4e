//! Shows the progress of reading a long file on a terminal.

use std::{
    io::{self, Read, Seek, SeekFrom},
    time::{Duration, Instant},
};

use crate::util::stdio;

/// Progress is shown only if reading takes longer than this.
const PATIENCE: Duration = Duration::from_millis(700);
/// Time between two updates of the bar.
const EVERY: Duration = Duration::from_millis(100);

/// A reader that shows on stderr how much of the file has been read.
pub(super) struct Progress<R> {
    input: R,
    /// Position and size in bytes.
    at: u64,
    size: u64,
    /// Time of the next update; `None` for no updates at all.
    next: Option<Instant>,
    said: bool,
}

impl<R> Progress<R> {
    pub(super) fn new(input: R, size: u64, show: bool) -> Self {
        let next = show.then(|| Instant::now() + PATIENCE);
        Self { input, at: 0, size, next, said: false }
    }

    fn say(&mut self) {
        let now = Instant::now();
        if self.next.is_some_and(|next| now >= next) {
            self.next = Some(now + EVERY);
            self.said = true;
            stdio::say(&format!("\r{}", bar(self.at, self.size)));
        }
    }
}

/// A bar of 20 characters, and the percentage.
fn bar(at: u64, size: u64) -> String {
    const PLACES: usize = 20;
    let percent = (u128::from(at) * 100 / u128::from(size.max(1))).min(100) as usize;
    let full = percent * PLACES / 100;
    format!("dio-trace: reading [{}{}] {percent:>3} %", "#".repeat(full), " ".repeat(PLACES - full))
}

impl<R: Read> Read for Progress<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(bytes)?;
        self.at += n as u64;
        self.say();
        Ok(n)
    }
}

impl<R: Seek> Seek for Progress<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.input.seek(to)?;
        Ok(self.at)
    }
}

impl<R> Drop for Progress<R> {
    /// Clears the line, so that the report can follow.
    fn drop(&mut self) {
        if self.said {
            stdio::say("\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_match_their_percentage() {
        assert_eq!(bar(0, 0), "dio-trace: reading [                    ]   0 %");
        assert_eq!(bar(50, 100), "dio-trace: reading [##########          ]  50 %");
        assert_eq!(bar(u64::MAX, 100), "dio-trace: reading [####################] 100 %");
    }
}
