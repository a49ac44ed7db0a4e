//! Tests recordings that run out of space or reach a size limit: the reason is in the file, and the
//! counts match its contents. Each test runs a child process, because limits are per process.

use std::{
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    flow::sink::Discard,
    recording::{
        recorder::{
            tests::{feed, options, replay, settle, totals},
            *,
        },
        replay::Replay,
    },
};

const MODE: &str = "DIO_TRACE_TEST_MODE";
const FILE: &str = "DIO_TRACE_TEST_FILE";
/// Directory that the files are copied to, because a child's tmpfs disappears with the child.
const COPY: &str = "DIO_TRACE_TEST_COPY";

/// The limit that a child runs under.
#[derive(Clone, Copy)]
enum Limit {
    /// RLIMIT_FSIZE in bytes, from the start.
    File(u64),
    /// A tmpfs of this many bytes.
    Disk(u64),
    /// None; the child sets a limit itself.
    Own,
}

/// The output of a child, and the contents of its files.
struct Seen {
    requests: u64,
    lost: u64,
    unended: bool,
    stopped: String,
    files: Vec<Replay>,
}

fn set_limit(bytes: u64) -> io::Result<()> {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: reads the struct that it is given.
    if unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) } == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}

/// Mounts a tmpfs on a directory in a private mount namespace.
fn mount(folder: &std::ffi::CStr, options: &std::ffi::CStr) -> io::Result<()> {
    // SAFETY: plain system calls on strings that end with 0.
    unsafe {
        let own = libc::unshare(libc::CLONE_NEWNS) == 0
            || libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS) == 0;
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let (none, tmpfs) = (std::ptr::null(), c"tmpfs".as_ptr());
        if own
            && libc::mount(none, c"/".as_ptr(), none, private, none.cast()) == 0
            && libc::mount(tmpfs, folder.as_ptr(), tmpfs, 0, options.as_ptr().cast()) == 0
        {
            return Ok(());
        }
    }
    Err(io::Error::last_os_error())
}

/// Runs [`child`] under a limit.
fn run(mode: &str, limit: Limit) -> Seen {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path().join("r.dio");
    let place = std::ffi::CString::new(folder.path().to_str().unwrap()).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        "recording::recorder::full_disk_tests::child",
        "--ignored",
        "--nocapture",
    ]);
    command.env(MODE, mode).env(FILE, &path).env(COPY, copy.path());
    let before = move || match limit {
        Limit::File(bytes) => set_limit(bytes),
        Limit::Disk(bytes) => {
            let mut text = *b"size=0x00000000\0";
            (0..8)
                .for_each(|i| text[14 - i] = b"0123456789abcdef"[(bytes >> (4 * i)) as usize & 15]);
            mount(&place, std::ffi::CStr::from_bytes_with_nul(&text).map_err(io::Error::other)?)
        }
        Limit::Own => Ok(()),
    };
    // SAFETY: between fork and exec, only system calls are made.
    unsafe { command.pre_exec(before) };
    let said = command.output().unwrap();
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.status.success(), "{text}{}", String::from_utf8_lossy(&said.stderr));
    let line = |name: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(name));
        found.unwrap_or_else(|| panic!("{name} in {text}")).trim().to_owned()
    };
    let mut files: Vec<PathBuf> =
        fs::read_dir(copy.path()).unwrap().flatten().map(|entry| entry.path()).collect();
    files.sort();
    Seen {
        requests: line("requests").parse().unwrap(),
        lost: line("lost").parse().unwrap(),
        unended: line("unended").parse().unwrap(),
        stopped: line("stopped"),
        files: files.iter().map(|path| read(path)).collect(),
    }
}

fn read(path: &Path) -> Replay {
    replay(path, &mut Discard)
}

fn keep(mode: &str) -> Keep {
    match mode {
        "rotate" => Keep::Rotate { size: 100_000, keep: None },
        "flight" => Keep::Flight { size: 1 << 20, on: Vec::new() },
        _ => Keep::Whole,
    }
}

/// The child: records until recording stops, then prints the result.
#[test]
#[ignore = "run by the tests of this file, under a limit"]
fn child() {
    let (Some(mode), Some(path)) = (std::env::var_os(MODE), std::env::var_os(FILE)) else { return };
    let (mode, path) = (mode.to_string_lossy().into_owned(), PathBuf::from(path));
    let options = Options { keep: keep(&mode), ..options(path.clone()) };
    let mut enricher = Enricher::recorded();
    let mut recorder = Recorder::start(&options, &Header::default()).unwrap();
    for round in 0..40u64 {
        feed(&mut recorder, &mut enricher, 4_000, 2);
        if round == 3 {
            let len = |path: &Path| fs::metadata(path).unwrap().len();
            match &*mode {
                "nothing" => set_limit(1).unwrap(),
                "squeeze" => set_limit(len(&path) + 10).unwrap(),
                _ => {}
            }
        }
        if mode == "flight" && round % 4 == 3 {
            recorder.dump(&totals(4_000 * round), &mut enricher, "asked for");
            settle(&recorder);
        }
        if recorder.tick(&mut enricher).is_some() {
            break;
        }
    }
    // Requests that arrive before the failure is noticed.
    for n in 0..500 {
        let request = Request { end_ns: 81_000 + n, ..crate::testing::fixtures::request() };
        recorder.take(Event::Request(Box::new(request)), &mut enricher);
    }
    let done = recorder.finish(&totals(1_000_000), &mut enricher);
    set_limit(libc::RLIM_INFINITY).unwrap();
    let copy = PathBuf::from(std::env::var_os(COPY).unwrap());
    for file in &done.files {
        fs::copy(file, copy.join(file.file_name().unwrap())).unwrap();
    }
    println!("\nrequests {}\nlost {}\nunended {}", done.requests, done.lost, done.unended);
    println!("stopped {}", done.stopped.unwrap_or_default());
}

/// Asserts what must hold if the end could be written.
fn says_why(seen: &Seen, reason: &str) {
    assert!(seen.stopped.contains(reason), "{}", seen.stopped);
    assert!(!seen.unended && !seen.files.is_empty());
    let recorded: u64 = seen.files.iter().map(|file| file.recorded).sum();
    assert_eq!(seen.requests, recorded, "what is counted is in the files");
    let last = seen.files.iter().map(|file| file.integrity.end.as_ref().unwrap().why.as_str());
    assert_eq!(last.filter(|why| why.contains(reason)).count(), 1, "one says why");
    assert!(seen.files.iter().all(|file| file.integrity.damage.is_empty()));
}

#[test]
fn a_file_that_may_not_grow_says_so() {
    let seen = run("whole", Limit::File(200_000));
    says_why(&seen, "EFBIG");
    assert!(seen.lost > 0 && seen.requests > 5_000, "{} {}", seen.lost, seen.requests);
    assert_eq!(seen.files[0].summary.ended(), 1_000_000, "the last totals had room");
    assert!(seen.files[0].bytes <= 200_000);
}

#[test]
fn without_room_kept_the_last_requests_give_theirs() {
    says_why(&run("squeeze", Limit::Own), "EFBIG");
}

#[test]
fn where_nothing_can_be_written_that_is_said() {
    let seen = run("nothing", Limit::Own);
    assert!(seen.unended && seen.stopped.contains("EFBIG"), "{}", seen.stopped);
    assert_eq!(seen.files[0].recorded, seen.requests);
    assert!(seen.files[0].integrity.end.is_none());
}

#[test]
fn a_full_disk_is_said_in_the_file() {
    let seen = run("whole", Limit::Disk(256 << 10));
    says_why(&seen, "ENOSPC");
    assert!(seen.lost > 0 && seen.requests > 5_000, "{} {}", seen.lost, seen.requests);
    assert_eq!(seen.files[0].summary.ended(), 1_000_000, "the last totals had room");
}

#[test]
fn a_disk_that_is_full_between_files_is_said_in_the_last() {
    // Full within a file, and where the next one should begin.
    for bytes in (300 << 10..480 << 10).step_by(60 << 10) {
        let seen = run("rotate", Limit::Disk(bytes));
        says_why(&seen, "ENOSPC");
        assert!(seen.files.len() > 1, "{bytes}: {}", seen.requests);
        let (last, before) = seen.files.split_last().unwrap();
        assert!(before.iter().all(|file| file.integrity.end.as_ref().unwrap().why == "done"));
        assert!(last.integrity.end.as_ref().unwrap().why.contains("ENOSPC"));
    }
}

#[test]
fn a_dump_that_does_not_fit_says_so() {
    let seen: Vec<Seen> = (350 << 10..650 << 10)
        .step_by(100 << 10)
        .map(|bytes| run("flight", Limit::Disk(bytes)))
        .collect();
    // If not even the header fits, there is no file to contain the reason.
    let (none, begun): (Vec<&Seen>, Vec<&Seen>) = seen.iter().partition(|seen| seen.unended);
    begun.iter().for_each(|seen| says_why(seen, "ENOSPC"));
    assert!(!begun.is_empty());
    assert!(none.iter().all(|seen| seen.stopped.contains("ENOSPC")));
}
