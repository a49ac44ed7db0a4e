//! Parquet files partitioned by host and hour, in directories named by Hive's convention, for
//! programs that query many files.

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    flow::{explained::ExplainedRequest, sink::Sink},
    output::export::parquet::Parquet,
    recording::format::Header,
    util::{
        escape,
        private_file::{Ready, Whole},
    },
};

const HOUR: u64 = 3_600_000_000_000;
/// Maximum number of hours with an open file: requests come nearly in the order of their ends.
const OPEN: usize = 2;

/// Writes `FOLDER/host=…/hour=…/….parquet`. All files are renamed into place at the end, so that a
/// failure leaves no new file and does not change files of an earlier export.
pub struct Partition<'a> {
    folder: PathBuf,
    recording: &'a File,
    /// First part of each file's name, unique to the recording.
    name: String,
    open: BTreeMap<u64, Parquet<Whole>>,
    ready: Vec<Ready>,
    /// Number of files created for each hour.
    of_hour: BTreeMap<u64, u32>,
    force: bool,
}

impl<'a> Partition<'a> {
    /// A partition for the recording with this header, path and open file. The path is part of the
    /// file names, because two dumps of one flight recorder have the same header.
    #[must_use]
    pub fn new(
        folder: &Path,
        header: &Header,
        (of, recording): (&Path, &'a File),
        force: bool,
    ) -> Self {
        let folder = folder.join(format!("host={}", word(&header.host)));
        let boot: String = header.boot.chars().filter(char::is_ascii_hexdigit).take(8).collect();
        let of = of.file_name().map_or_else(String::new, |name| word(&name.to_string_lossy()));
        let name = format!("{boot}-{}-{of}", header.started);
        let (open, ready, of_hour) = (BTreeMap::new(), Vec::new(), BTreeMap::new());
        Self { folder, recording, name, open, ready, of_hour, force }
    }

    /// Completes all files, and returns their number.
    ///
    /// # Errors
    /// Errors of the output.
    pub fn finish(mut self) -> Result<usize> {
        while !self.open.is_empty() {
            self.close_oldest()?;
        }
        let files = self.ready.len();
        self.ready.into_iter().try_for_each(Ready::name)?;
        Ok(files)
    }

    fn close_oldest(&mut self) -> Result<()> {
        if let Some((_, table)) = self.open.pop_first() {
            self.ready.push(table.finish()?.close()?);
        }
        Ok(())
    }

    fn create(&mut self, hour: u64) -> Result<Whole> {
        let folder = self.folder.join(format!("hour={}", name_of(hour)));
        make(&folder)?;
        // Numbered per hour, so that an export of the same recording with other filters gets the
        // same names.
        let nth = self.of_hour.entry(hour).or_insert(0);
        let path = folder.join(format!("{}-{nth}.parquet", self.name));
        *nth += 1;
        Whole::private(&path, self.force, self.recording)
    }
}

/// Each request goes to the file of the hour in which it ended.
impl Sink for Partition<'_> {
    fn wants_all(&self) -> bool {
        true
    }

    fn request(&mut self, record: &ExplainedRequest) -> Result<()> {
        let hour = record.time / HOUR;
        if !self.open.contains_key(&hour) {
            if self.open.len() >= OPEN {
                self.close_oldest()?;
            }
            let file = self.create(hour)?;
            self.open.insert(hour, Parquet::new(file)?);
        }
        self.open.get_mut(&hour).map_or(Ok(()), |table| table.request(record))
    }
}

fn make(folder: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("cannot make {}", escape::path(folder)))
}

/// A name as one path component: characters other than ASCII letters, digits and `_-.` are written
/// as `%NN`.
fn word(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let out: String = name
        .bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    if out.is_empty() { "unknown".to_owned() } else { out }
}

/// Hours since the epoch as "YYYY-MM-DDTHH" in UTC.
fn name_of(hour: u64) -> String {
    let (mut year, mut day) = (1970, hour / 24);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    loop {
        let days = if leap(year) { 366 } else { 365 };
        if day < days {
            break;
        }
        day -= days;
        year += 1;
    }
    let february = if leap(year) { 29 } else { 28 };
    let mut month = 1;
    for days in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < days {
            break;
        }
        day -= days;
        month += 1;
    }
    format!("{year:04}-{month:02}-{:02}T{:02}", day + 1, hour % 24)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::golden;

    #[test]
    fn hours_have_their_names() {
        for (hour, name) in [
            (0, "1970-01-01T00"),
            (1_767_323_045 / 3600, "2026-01-02T03"),
            (951_782_400 / 3600, "2000-02-29T00"),
            (4_107_542_399 / 3600, "2100-02-28T23"),
            (4_107_542_400 / 3600, "2100-03-01T00"),
        ] {
            assert_eq!(name_of(hour), name);
        }
    }

    #[test]
    fn hosts_do_not_leave_their_folder() {
        assert_eq!((word("db-1.x"), word("../a/b")), ("db-1.x".into(), "..%2Fa%2Fb".into()));
        assert_eq!(word(""), "unknown");
    }

    #[test]
    fn each_hour_has_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let header =
            Header { host: "db 1".to_owned(), boot: "0a1b-2c3d4e".to_owned(), ..Header::default() };
        let mut record = golden::run().0.swap_remove(0);
        let recording = tempfile::tempfile().unwrap();
        let of = (Path::new("/tmp/r.dio.2"), &recording);
        let mut parts = Partition::new(folder.path(), &header, of, false);
        for hour in [5, 4, 5, 6, 7] {
            record.time = hour * HOUR;
            parts.request(&record).unwrap();
        }
        assert_eq!(parts.finish().unwrap(), 4);
        let host = folder.path().join("host=db%201");
        let mut hours: Vec<_> =
            fs::read_dir(&host).unwrap().flatten().map(|e| e.file_name()).collect();
        hours.sort();
        assert_eq!(
            hours,
            [
                "hour=1970-01-01T04",
                "hour=1970-01-01T05",
                "hour=1970-01-01T06",
                "hour=1970-01-01T07"
            ]
        );
        let file = host.join("hour=1970-01-01T05/0a1b2c3d-0-r.dio.2-0.parquet");
        assert!(fs::read(file).unwrap().ends_with(b"PAR1"));
    }
}
