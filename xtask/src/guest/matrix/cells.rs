//! Reads the scenario files, which say what the kernel does with each request, measured without
//! eBPF.
//!
//! There is one file per fixture in `xtask/scenarios/`, with one line per cell: a case (see
//! `cases`), the API that makes the request, offset, length, the buffer's offset from a page
//! boundary, and then one column per kernel series:
//!
//! ```text
//! VERDICT [short:WHY=BYTES] [TAG…]       a request with this verdict
//! VERDICT:ERRNO [TAG…]                   a request that fails with this errno
//! none | none:ERRNO                      no direct request, though the call returns data or fails
//! open:ERRNO | fcntl:ERRNO               refused before there can be a request
//! A|B                                    either, because the kernel itself races
//! ?                                      not measured
//! ```
//!
//! Tags: `+flush`: dirty pages are written back first; `+drop`: a write drops pages from the page
//! cache.
use anyhow::{Context, Result, bail};

/// The kernel series, in the order of their columns.
const SERIES: &[&str] = &["5.10", "6.1", "6.12", "6.18", "7.3"];

macro_rules! scenarios {
    ($($name:literal),+ $(,)?) => {
        /// The text of a scenario file.
        fn text(name: &str) -> Option<&'static str> {
            match name {
                $($name => Some(include_str!(concat!("../../../scenarios/", $name, ".tsv"))),)+
                _ => None,
            }
        }
    };
}
scenarios!(
    "9p-loose",
    "9p-none",
    "bdev-4kn",
    "bdev-512",
    "bdev-512e",
    "btrfs",
    "btrfs-nocow",
    "btrfs-zstd",
    "dm-crypt",
    "dm-error-bdev",
    "dm-linear",
    "dm-linear-tail",
    "erofs-lz4",
    "erofs-plain",
    "err-btrfs",
    "err-ext4",
    "err-ext4-noextent",
    "err-f2fs",
    "err-vfat",
    "err-xfs",
    "exfat",
    "ext4-4kn",
    "ext4-512",
    "ext4-crypt",
    "ext4-dax",
    "ext4-encrypt",
    "ext4-inline",
    "ext4-jattr",
    "ext4-journal",
    "ext4-noextent",
    "ext4-nojournal",
    "ext4-verity",
    "f2fs",
    "f2fs-checkpoint",
    "f2fs-verity",
    "f2fs-zoned",
    "fuse-bindfs",
    "fuse-directio",
    "fuse-passthrough",
    "fuse-plain",
    "fuse-short",
    "fuse-short-directio",
    "fuse-writeback",
    "gfs2",
    "iso9660",
    "jfs",
    "loop-buffered",
    "loop-dio",
    "loop-odd",
    "minix",
    "nfs",
    "nilfs2",
    "ntfs3",
    "nvme",
    "ocfs2",
    "overlay-btrfs",
    "overlay-ext4",
    "overlay-fuse",
    "overlay-journal",
    "overlay-lower",
    "overlay-squashfs",
    "overlay-tmpfs",
    "ramfs",
    "reiserfs",
    "scsi-medium",
    "scsi-sector_size=4096",
    "scsi-sector_size=512",
    "squashfs",
    "tmpfs",
    "udf",
    "vfat",
    "xfs-16k",
    "xfs-4kn",
    "xfs-512",
    "xfs-dax",
    "xfs-realtime",
    "xfs-reflink",
    "zram",
);

/// One request to make, and its expected results.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) setup: &'static str,
    pub(crate) case: &'static str,
    pub(crate) api: &'static str,
    pub(crate) offset: i64,
    pub(crate) len: usize,
    /// The buffer's offset from a page boundary, in bytes.
    pub(crate) off_by: usize,
    /// Whether another cell of the file has the same case and API.
    twin: bool,
    /// The expectations, any one of which must be met.
    pub(crate) expect: Vec<Expect>,
}

impl Cell {
    /// The name of the cell and of its file: `case.api`, with offset and length if ambiguous.
    pub(crate) fn name(&self) -> String {
        let Self { case, api, offset, len, .. } = self;
        if self.twin { format!("{case}.{api}.{offset}+{len}") } else { format!("{case}.{api}") }
    }

    /// Whether dirty pages are written back before the request.
    pub(crate) fn flushes(&self) -> bool {
        self.expect.iter().any(|expect| matches!(expect, Expect::Request { flush: true, .. }))
    }

    pub(crate) fn writes(&self) -> bool {
        self.case.starts_with('w') || self.api.contains("write")
    }
}

/// What the kernel does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expect {
    /// A direct request reaches the kernel.
    Request { verdict: &'static str, result: Ending, flush: bool, drop: bool },
    /// No direct request is made; `errno` is that of the system call `at`, if it fails.
    NoRequest { at: Stage, errno: Option<&'static str> },
}

/// The result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// All bytes were read or written.
    Full,
    /// Fewer bytes: the outcome and the count. The verdict `eof` has 0 bytes and no outcome.
    Count(Option<&'static str>, i64),
    Errno(&'static str),
}

/// The system call that fails or makes no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Open,
    Fcntl,
    Call,
}

/// Loads the cells of the scenario file `rows` that were measured on a kernel series, for the
/// fixture `setup`.
pub(crate) fn load(setup: &'static str, rows: &str, series: &str) -> Result<Vec<Cell>> {
    let text = text(rows).with_context(|| format!("there is no scenario file {rows}.tsv"))?;
    let column = SERIES.iter().position(|name| *name == series).with_context(|| {
        format!("no scenario says what {series} does; the series are {}", SERIES.join(", "))
    })?;
    let mut cells: Vec<Cell> = text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.starts_with('#') && !line.is_empty())
        .map(|(number, line)| {
            parse(setup, line, column)
                .with_context(|| format!("scenarios/{rows}.tsv:{}", number + 1))
        })
        .collect::<Result<_>>()?;
    let pairs: Vec<_> = cells.iter().map(|cell| (cell.case, cell.api)).collect();
    for cell in &mut cells {
        cell.twin = pairs.iter().filter(|pair| **pair == (cell.case, cell.api)).count() > 1;
    }
    cells.retain(|cell| !cell.expect.is_empty());
    Ok(cells)
}

fn parse(setup: &'static str, line: &'static str, column: usize) -> Result<Cell> {
    let fields: Vec<&'static str> = line.split('\t').collect();
    let [case, api, offset, len, off_by, ref series @ ..] = fields[..] else {
        bail!("a line has 5 fields and one per series");
    };
    if series.len() != SERIES.len() {
        bail!("{} series, not {}", series.len(), SERIES.len());
    }
    Ok(Cell {
        setup,
        case,
        api,
        offset: offset.parse().context("offset")?,
        len: len.parse().context("length")?,
        off_by: off_by.parse().context("off_by")?,
        twin: false,
        expect: expectations(series[column])?,
    })
}

fn expectations(text: &'static str) -> Result<Vec<Expect>> {
    if text == "?" {
        return Ok(Vec::new());
    }
    text.split('|').map(expectation).collect()
}

fn expectation(text: &'static str) -> Result<Expect> {
    let mut words = text.split_whitespace();
    let (head, errno) = split(words.next().context("empty")?, ':');
    let stage = match head {
        "none" => Some(Stage::Call),
        "open" => Some(Stage::Open),
        "fcntl" => Some(Stage::Fcntl),
        _ => None,
    };
    if let Some(at) = stage {
        return Ok(Expect::NoRequest { at, errno });
    }
    let mut result = match (head, errno) {
        ("refused" | "failed", Some(errno)) => Ending::Errno(errno),
        ("refused" | "failed", None) => bail!("`{text}` needs an errno"),
        ("eof", None) => Ending::Count(None, 0),
        (_, None) => Ending::Full,
        (_, Some(_)) => bail!("`{text}` has an errno, but `{head}` is not an error"),
    };
    let (mut flush, mut drop) = (false, false);
    for word in words {
        match split(word, '=') {
            ("+flush", None) => flush = true,
            ("+drop", None) => drop = true,
            (outcome, Some(bytes)) if outcome.starts_with("short:") => {
                result = Ending::Count(Some(outcome), bytes.parse().context("bytes")?);
            }
            _ => bail!("`{word}` in `{text}` is not known"),
        }
    }
    Ok(Expect::Request { verdict: head, result, flush, drop })
}

fn split(text: &'static str, at: char) -> (&'static str, Option<&'static str>) {
    text.split_once(at).map_or((text, None), |(head, tail)| (head, Some(tail)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{fixtures, matrix::cases};

    #[test]
    fn every_scenario_can_be_read_and_made() {
        for setup in fixtures::ALL {
            let all = |series: &&str| load(setup.name, setup.rows, series).unwrap();
            assert!(SERIES.iter().any(|series| !all(series).is_empty()), "{}", setup.name);
            for series in SERIES {
                let cells = all(series);
                for cell in &cells {
                    assert!(cases::find(cell.case).is_ok(), "{}: {}", setup.name, cell.case);
                }
                let mut names: Vec<String> = cells.iter().map(Cell::name).collect();
                names.sort_unstable();
                names.dedup();
                assert_eq!(names.len(), cells.len(), "{}: two cells share a file", setup.name);
            }
        }
    }

    #[test]
    fn expectations_are_understood() {
        let full =
            |verdict| Expect::Request { verdict, result: Ending::Full, flush: false, drop: false };
        assert_eq!(expectations("direct").unwrap(), [full("direct")]);
        assert_eq!(expectations("direct|fallback").unwrap(), [full("direct"), full("fallback")]);
        assert_eq!(
            expectations("fallback short:eof=100 +flush").unwrap(),
            [Expect::Request {
                verdict: "fallback",
                result: Ending::Count(Some("short:eof"), 100),
                flush: true,
                drop: false,
            }]
        );
        assert_eq!(
            expectations("open:EINVAL").unwrap(),
            [Expect::NoRequest { at: Stage::Open, errno: Some("EINVAL") }]
        );
        assert!(expectations("?").unwrap().is_empty());
        for bad in ["refused", "direct:EIO", "direct short=1", "direct +what", ""] {
            assert!(expectations(bad).is_err(), "{bad}");
        }
    }
}
