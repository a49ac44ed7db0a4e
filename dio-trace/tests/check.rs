//! Tests of `dio-trace check` as a program: its answers, its exit codes, and that it leaves nothing
//! behind.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::Path,
    process::{Command, Output},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

/// A directory outside /tmp, which may be in memory.
fn folder() -> TempDir {
    TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// A file of `len` bytes, none of them in the page cache.
fn file(folder: &Path, len: usize) -> NamedTempFile {
    let mut file = NamedTempFile::new_in(folder).unwrap();
    file.write_all(&vec![7; len]).unwrap();
    uncache(file.as_file());
    file
}

fn uncache(file: &File) {
    use std::os::fd::AsRawFd as _;
    file.sync_all().unwrap();
    // SAFETY: passes an open descriptor and no pointers.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

fn check(words: &[&str], paths: &[&Path]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dio-trace"));
    command.arg("check").args(words).args(paths).output().unwrap()
}

fn lines(out: &Output) -> Vec<Value> {
    let text = String::from_utf8(out.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn pages_dirtied_by_others_prove_nothing() {
    let folder = folder();
    let ending = AtomicBool::new(false);
    let busy = [folder.path().join("busy"), folder.path().join("too")];
    let answers: Vec<Value> = thread::scope(|scope| {
        for path in &busy {
            let ending = &ending;
            scope.spawn(move || {
                let megabytes = vec![1; 4 << 20];
                while !ending.load(Ordering::Relaxed) {
                    fs::write(path, &megabytes).unwrap();
                }
            });
        }
        let ask = || lines(&check(&["--json"], &[folder.path()])).remove(0);
        let answers = (0..4).map(|_| ask()).collect();
        ending.store(true, Ordering::Relaxed);
        answers
    });
    for answer in &answers {
        for access in ["overwrite", "extend"] {
            let answer = &answer[access];
            // A fallback that the rules expect is proven by the file's own pages.
            let surprise = answer["verdict"] == "fallback" && answer["forecast"] == "direct";
            assert!(!surprise, "{answer}");
        }
    }
}

#[test]
fn without_trials_the_answer_is_a_forecast_and_not_a_success() {
    let folder = folder();
    let out = check(&["--json", "--no-probe"], &[folder.path()]);
    let report = lines(&out).remove(0);
    assert_ne!(out.status.code(), Some(0), "{report}");
    assert_eq!(report["proven"], false);
    assert_ne!(report["overall"], "direct");
    let page = check(&["--no-probe"], &[folder.path()]).stdout;
    let page = String::from_utf8(page).unwrap();
    let headline = page.lines().next().unwrap();
    assert!(headline.contains("not proven") || headline.ends_with("cannot tell"), "{page}");
}

#[test]
fn another_kernel_is_compared_with_this_one_if_it_is_named() {
    let folder = folder();
    let changes = |words: &[&str]| {
        let words = [&["--json", "--no-probe"], words].concat();
        lines(&check(&words, &[folder.path()])).remove(0)["kernel_changes"].clone()
    };
    assert!(changes(&[]).is_null());
    for change in changes(&["--kernel", "5.10"]).as_array().unwrap() {
        assert_eq!(change["kernel"], "5.10", "{change}");
        assert_ne!(change["here"], change["there"], "{change}");
    }
    let page = check(&["--no-probe", "--kernel", "5.10"], &[folder.path()]).stdout;
    let page = String::from_utf8(page).unwrap();
    assert!(page.contains("  kernel:    5.10 instead of "), "{page}");
}

#[test]
fn checking_a_file_does_not_update_its_access_time() {
    let folder = folder();
    let file = file(folder.path(), 1 << 20);
    let long_ago = SystemTime::now() - Duration::from_hours(48);
    let times = fs::FileTimes::new().set_accessed(long_ago);
    file.as_file().set_times(times).unwrap();
    let before = fs::metadata(file.path()).unwrap();
    let out = check(&["--json"], &[file.path()]);
    assert!(!out.stdout.is_empty());
    let after = fs::metadata(file.path()).unwrap();
    let atime = |about: &fs::Metadata| (about.atime(), about.atime_nsec());
    assert_eq!(atime(&after), atime(&before), "{}", String::from_utf8_lossy(&out.stdout));
}

#[test]
fn a_path_that_cannot_be_checked_has_its_line() {
    let folder = folder();
    let gone = folder.path().join(std::ffi::OsStr::from_bytes(b"no\x1b[2J\xff"));
    let out = check(&["--json"], &[folder.path(), &gone, folder.path()]);
    let lines = lines(&out);
    assert_eq!(lines.len(), 3);
    assert!(lines[0]["error"].is_null() && lines[2]["error"].is_null());
    let failed = &lines[1];
    assert_eq!((&failed["v"], &failed["kind"]), (&lines[0]["v"], &Value::from("check")));
    assert!(failed["path"].as_str().unwrap().ends_with("no\\x1b[2J\\xff"), "{failed}");
    assert!(failed["error"].as_str().unwrap().contains("No such file"), "{failed}");
    assert_eq!(failed["overall"], "unknown");
    let code = out.status.code();
    assert!(code == Some(2) || (code == Some(1) && lines[0]["overall"] == "not"), "{code:?}");
}

#[test]
fn a_file_size_limit_does_not_kill_check() {
    let folder = folder();
    let line = format!(
        "ulimit -f 128; exec {} check --json {}",
        env!("CARGO_BIN_EXE_dio-trace"),
        folder.path().display()
    );
    let out = Command::new("sh").args(["-c", &line]).output().unwrap();
    assert!(out.status.code().is_some(), "{:?}", out.status);
    assert_ne!(lines(&out)[0]["extend"]["verdict"], "failed");
}

#[test]
fn nothing_is_left_in_the_directory() {
    let folder = folder();
    let file = file(folder.path(), 64 << 10);
    check(&[], &[folder.path(), file.path()]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
