//! Vectored writes whose segments have whatever address and length the allocator gave: they are
//! refused for the address, or for the lengths. Both reasons have the same cause and file, and the
//! screen shows each of them once.
use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;

use super::Trial;
use crate::{
    guest::{
        direct_io::{files::fill, memory::Buffer},
        harness::Traces,
    },
    host::{cmd::text, paths},
};

const PAGE: usize = 4096;
/// Pages of the buffer.
const PAGES: usize = 256;
/// What the program prints for each reason that the kernel had: a word, and the words of the reason.
const REASONS: [(&str, &str); 2] = [
    ("address", "bytes past a multiple of"),
    ("length", "a segment's length is not a multiple of"),
];

#[derive(Args, Clone, Debug)]
pub(crate) struct ReportsSegmentsArgs {
    file: PathBuf,
}

/// The vectors: what is odd about each, and its segments by offset in the buffer and length.
fn vectors() -> Vec<(&'static str, Vec<(usize, usize)>)> {
    let address = vec![(0, PAGE), (2 * PAGE + 16, PAGE)];
    let pair = |a: usize, b: usize| vec![(0, a), (PAGE, b)];
    let many = (0..100).map(|n| (n * PAGE, 128)).collect();
    vec![
        ("nothing", pair(PAGE, PAGE)),
        ("address", address.clone()),
        ("length", pair(1000, 3096)),
        ("length", pair(100, 412)),
        ("length", many),
        ("address", address),
    ]
}

/// The program: prints what is odd about each vector that is refused with EINVAL.
pub(crate) fn program(args: &ReportsSegmentsArgs) -> Result<()> {
    let file = File::options().write(true).custom_flags(libc::O_DIRECT).open(&args.file);
    let file = file.with_context(|| format!("cannot open {}", args.file.display()))?;
    let mut buffer = Buffer::new(PAGES * PAGE)?;
    for (odd, segments) in vectors() {
        let iovec = |(at, len): &(usize, usize)| libc::iovec {
            iov_base: buffer.at(*at).cast(),
            iov_len: *len,
        };
        let iovecs: Vec<libc::iovec> = segments.iter().map(iovec).collect();
        let count = iovecs.len() as libc::c_int;
        // SAFETY: iovecs of our own buffer, which is longer than their ends.
        let wrote = unsafe { libc::pwritev(file.as_raw_fd(), iovecs.as_ptr(), count, 0) };
        if wrote < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL) {
            println!("{odd}");
        }
    }
    Ok(())
}

pub(super) fn check(trial: &Trial<'_>, folder: &Path) -> Result<Vec<String>> {
    let file = folder.join("segments");
    fill(&file, 16 * PAGE)?;
    let traces = Traces::new(trial.out, "reports");
    let me = paths::own_program()?;
    let mut tool = trial.plain_tool("run", &traces)?;
    tool.args(["--", text(&me)?, "guest", "reports-segments", text(&file)?]);
    let output = tool.output().context("cannot start dio-trace")?;
    let refused = String::from_utf8_lossy(&output.stdout).into_owned();
    let screen = fs::read_to_string(&traces.json).context("dio-trace wrote no screen")?;
    // The end of the run names the causes again. Lines are broken to fit the screen.
    let live = screen.split("\n REQUESTS").next().unwrap_or_default();
    let shown = live.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut wrong = Vec::new();
    if !refused.lines().any(|odd| odd == "address") {
        wrong.push(format!("the scenario shows nothing: refused were only {refused:?}"));
    }
    if refused.lines().any(|odd| odd == "nothing") {
        wrong.push("an aligned vector was refused".to_owned());
    }
    for (odd, reason) in REASONS {
        let wanted = usize::from(refused.lines().any(|line| line == odd));
        let times = shown.matches(reason).count();
        if times != wanted {
            wrong.push(format!("\"{reason}\" is shown {times} times, not {wanted}: {screen}"));
        }
    }
    Ok(wrong)
}
