//! Tests with stdin, stdout, stderr and files that are full, closed, gone, or not regular files.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::{
        fd::{FromRawFd as _, OwnedFd},
        unix::{
            fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink},
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// Longer than any command here takes on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn recording() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/v1.dio")
}

/// A directory that contains only `v1.dio`, the recording.
fn place() -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    fs::copy(recording(), place.path().join("v1.dio")).unwrap();
    place
}

fn tool(place: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dio-trace"));
    command.args(words).current_dir(place).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Waits for a child; kills it and fails if it does not exit in time.
fn ended(child: &mut Child, of: &[&str]) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("{of:?} hangs");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs the program and returns its output; kills it and fails if it does not exit in time.
fn run(place: &Path, words: &[&str]) -> Output {
    let child = tool(place, words).spawn().unwrap();
    let pid = child.id() as libc::pid_t;
    let (sender, output) = std::sync::mpsc::channel();
    let reader = thread::spawn(move || sender.send(child.wait_with_output()));
    let Ok(output) = output.recv_timeout(PATIENCE) else {
        // SAFETY: our own child; its thread still waits for it.
        unsafe { libc::kill(pid, libc::SIGKILL) };
        panic!("{words:?} hangs");
    };
    reader.join().unwrap().unwrap();
    output.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Checks that the program failed with exit code 1 and one line that contains all of `says`.
fn fails(out: &Output, words: &[&str], says: &[&str]) {
    let error = text(&out.stderr);
    assert_eq!(out.status.code(), Some(1), "{words:?}: {error}");
    assert_eq!(error.lines().count(), 1, "{words:?}: {error}");
    for part in says {
        assert!(error.contains(part), "{words:?} should say `{part}`: {error}");
    }
}

fn fifo(path: &Path) {
    let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
    // SAFETY: passes a NUL-terminated path.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
}

/// All paths of files in a directory tree, with their contents.
fn below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            out.extend(below(&path));
        } else {
            out.push((path.clone(), fs::read(&path).unwrap_or_default()));
        }
    }
    out.sort();
    out
}

/// Command lines of every verb, and whether they write a result to stdout.
const VERBS: &[(&[&str], bool)] = &[
    (&["explain"], true),
    (&["explain", "data-journal", "misaligned"], true),
    (&["explain", "no-such-cause"], false),
    (&["doctor", "--json"], true),
    (&["completions", "bash"], true),
    (&["completions", "zsh"], true),
    (&["man", "man"], false),
    (&["report", "v1.dio"], true),
    (&["report", "--json", "v1.dio"], true),
    (&["report", "--by", "fs", "v1.dio"], true),
    (&["report", "--by", "stack", "v1.dio"], true),
    (&["report", "v1.dio", "--html", "page.html", "--force"], false),
    (&["report", "v1.dio", "--html", "-"], true),
    (&["report", "missing.dio"], false),
    (&["inspect", "v1.dio"], true),
    (&["export", "--format", "jsonl", "v1.dio"], true),
    (&["export", "--format", "csv", "v1.dio"], true),
    (&["export", "--format", "parquet", "v1.dio"], true),
    (&["export", "--format", "perfetto", "v1.dio"], true),
    (&["export", "--format", "folded", "v1.dio", "-o", "-"], true),
    (&["export", "--format", "csv", "v1.dio", "-o", "out.csv", "--force"], false),
    (&["export", "--format", "parquet", "--partition", "parts", "--force", "v1.dio"], false),
    (&["check", "."], true),
    (&["check", "--json", "."], true),
    (&["check", "missing"], false),
    (&["--help"], true),
    (&["-h"], true),
    (&["--version"], true),
    (&["help", "report"], true),
    (&["report", "--help"], true),
    (&["no-such-verb"], false),
    (&["top"], false),
    // The verbs that trace, with errors that occur on any machine.
    (&["audit", "-o", "/nonexistent/file"], false),
    (&["attach", "-p", "4194305"], false),
    (&["run", "--", "/nonexistent/program"], false),
    (&["record", "-o", "-", "audit"], false),
];

/// The exit code of a verb if its outputs work.
fn usual(place: &Path, words: &[&str]) -> i32 {
    let status = tool(place, words).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    status.code().unwrap()
}

/// A pipe without a reader.
fn broken() -> Stdio {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn full() -> Stdio {
    File::create("/dev/full").unwrap().into()
}

#[test]
fn a_full_stdout_exits_with_1_and_one_line() {
    let place = place();
    for (words, prints) in VERBS {
        let out = tool(place.path(), words).stdout(full()).output().unwrap();
        let error = text(&out.stderr);
        assert!(!error.contains("panicked"), "{words:?}: {error}");
        if !*prints {
            assert_eq!(out.status.code(), Some(usual(place.path(), words)), "{words:?}: {error}");
            continue;
        }
        // For `check`, 1 would mean "not direct".
        let code = if words[0] == "check" { 2 } else { 1 };
        assert_eq!(out.status.code(), Some(code), "{words:?}: {error}");
        let said = "dio-trace: cannot write stdout: No space left on device";
        let lines = error.lines().filter(|line| line.starts_with("dio-trace: cannot")).count();
        assert!(error.contains(said) && lines == 1, "{words:?}: {error}");
    }
}

#[test]
fn a_pipe_without_a_reader_ends_the_program_quietly() {
    let place = place();
    for (words, prints) in VERBS {
        let out = tool(place.path(), words).stdout(broken()).output().unwrap();
        let error = text(&out.stderr);
        if *prints {
            assert_eq!(out.status.signal(), Some(libc::SIGPIPE), "{words:?}: {error}");
            assert!(!error.contains("cannot write") && !error.contains("panicked"), "{error}");
        } else {
            assert_eq!(out.status.code(), Some(usual(place.path(), words)), "{words:?}: {error}");
        }
    }
}

#[test]
fn a_broken_stderr_changes_nothing() {
    let place = place();
    for (words, _) in VERBS {
        let whole = tool(place.path(), words).output().unwrap();
        for (state, stderr) in [("full", full()), ("broken", broken())] {
            let out = tool(place.path(), words).stderr(stderr).output().unwrap();
            assert_eq!(out.status, whole.status, "{words:?} with a {state} stderr");
            // The output of `doctor` and `check` may differ from run to run.
            if !["doctor", "check"].contains(&words[0]) {
                assert!(out.stdout == whole.stdout, "{words:?} with a {state} stderr");
            }
        }
    }
}

#[test]
fn full_stdout_and_stderr_do_not_panic() {
    let place = place();
    for (words, prints) in VERBS {
        let status = tool(place.path(), words).stdout(full()).stderr(full()).status().unwrap();
        let code = match (prints, words[0]) {
            (true, "check") => 2,
            (true, _) => 1,
            (false, _) => usual(place.path(), words),
        };
        assert_eq!(status.code(), Some(code), "{words:?}");
    }
}

/// Runs the program with descriptors 0 to 2 closed.
fn closed(place: &Path, words: &[&str]) -> ExitStatus {
    let mut command = tool(place, words);
    let close = || {
        for fd in 0..3 {
            // SAFETY: closes descriptors of the child only; the program after exec opens its own.
            unsafe { libc::close(fd) };
        }
        Ok(())
    };
    // SAFETY: between fork and exec it only calls close(2).
    unsafe { command.pre_exec(close) };
    command.status().unwrap()
}

#[test]
fn a_file_never_gets_the_number_of_a_closed_standard_descriptor() {
    let place = place();
    for (words, _) in VERBS.iter().filter(|(words, _)| words[0] != "export") {
        let usual = usual(place.path(), words);
        assert_eq!(closed(place.path(), words).code(), Some(usual), "{words:?}");
    }
    let export = |file| ["export", "--format", "csv", "v1.dio", "-o", file];
    assert!(run(place.path(), &export("open.csv")).status.success());
    assert!(closed(place.path(), &export("closed.csv")).success());
    let read = |name: &str| fs::read(place.path().join(name)).unwrap();
    assert!(read("open.csv") == read("closed.csv"));
}

/// Command lines that write a file as a whole, and the file or directory they write.
const WRITERS: &[(&[&str], &str)] = &[
    (&["export", "v1.dio", "--format", "jsonl", "-o", "out"], "out"),
    (&["export", "v1.dio", "--format", "csv", "-o", "out"], "out"),
    (&["export", "v1.dio", "--format", "parquet", "-o", "out"], "out"),
    (&["export", "v1.dio", "--format", "perfetto", "-o", "out"], "out"),
    (&["export", "v1.dio", "--format", "folded", "-o", "out"], "out"),
    (&["export", "v1.dio", "--format", "parquet", "--partition", "out"], "out"),
    (&["report", "v1.dio", "--html", "out"], "out"),
    (&["man", "out"], "out"),
];

/// Runs the program with a file size limit of 64 bytes, which acts like a full disk.
fn on_a_small_disk(place: &Path, words: &[&str]) -> Output {
    let mut command = tool(place, words);
    let limit = || {
        let size = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: two system calls on this process; SIGXFSZ is ignored, so that write(2) fails.
        unsafe {
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            libc::setrlimit(libc::RLIMIT_FSIZE, &raw const size);
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes two system calls.
    unsafe { command.pre_exec(limit) };
    command.output().unwrap()
}

#[test]
fn a_full_disk_leaves_nothing_half_written() {
    for (words, _) in WRITERS {
        let place = place();
        let before = below(place.path());
        let out = on_a_small_disk(place.path(), words);
        fails(&out, words, &["cannot write", "File too large"]);
        assert_eq!(below(place.path()), before, "{words:?}");
    }
}

#[test]
fn a_full_disk_keeps_the_existing_files() {
    for (words, _) in WRITERS {
        let place = place();
        let words: Vec<&str> =
            words.iter().copied().chain((words[0] != "man").then_some("--force")).collect();
        assert!(run(place.path(), &words).status.success(), "{words:?}");
        for (path, _) in below(&place.path().join(".")) {
            if !path.ends_with("v1.dio") {
                fs::write(path, "old").unwrap();
            }
        }
        let before = below(place.path());
        let out = on_a_small_disk(place.path(), &words);
        assert_eq!(out.status.code(), Some(1), "{words:?}: {}", text(&out.stderr));
        assert_eq!(below(place.path()), before, "{words:?}");
    }
}

#[test]
fn a_full_device_leaves_nothing_half_written() {
    let place = place();
    let disk = place.path().join("disk");
    fs::create_dir(&disk).unwrap();
    // The mount disappears with the shell's mount namespace.
    let script = "mount -t tmpfs -o size=8k none disk || exit 99; \
                  \"$0\" export v1.dio --format jsonl -o disk/out; code=$?; ls -A disk; exit $code";
    let out = Command::new("unshare")
        .args(["-m", "sh", "-c", script, env!("CARGO_BIN_EXE_dio-trace")])
        .current_dir(place.path())
        .output();
    let Ok(out) = out.inspect_err(|error| eprintln!("SKIPPED: unshare: {error}")) else { return };
    let error = text(&out.stderr);
    if out.status.code() == Some(99) || error.contains("unshare:") {
        eprintln!("SKIPPED: nothing may be mounted here: {error}");
        return;
    }
    fails(&out, &["tmpfs"], &["cannot write disk/out: No space left on device"]);
    assert_eq!(text(&out.stdout), "");
}

/// Writes long.dio, a recording that takes a while to read: the blocks of v1.dio, repeated.
fn long(place: &Path, times: usize) {
    let once = fs::read(recording()).unwrap();
    let mut all = once.clone();
    for _ in 1..times {
        all.extend_from_slice(&once[16..]);
    }
    fs::write(place.join("long.dio"), all).unwrap();
}

/// The files in a directory tree, and their sizes.
fn sizes(place: &Path) -> Vec<(PathBuf, u64)> {
    let mut out = Vec::new();
    for entry in fs::read_dir(place).unwrap().flatten() {
        match entry.metadata() {
            Ok(about) if about.is_dir() => out.extend(sizes(&entry.path())),
            Ok(about) => out.push((entry.path(), about.len())),
            Err(_) => {}
        }
    }
    out.sort();
    out
}

/// Starts the program, and waits until it has created or changed a file.
fn begun(place: &Path, words: &[&str], ignored: Option<libc::c_int>) -> Child {
    let mut command = tool(place, words);
    let ignore = move || {
        if let Some(signal) = ignored {
            // SAFETY: ignores a signal in this process, as `nohup` does.
            unsafe { libc::signal(signal, libc::SIG_IGN) };
        }
        Ok(())
    };
    // SAFETY: between fork and exec it makes one system call.
    unsafe { command.pre_exec(ignore) };
    let there = sizes(place);
    let child = command.spawn().unwrap();
    let begin = Instant::now();
    while sizes(place) == there {
        assert!(begin.elapsed() < PATIENCE, "{words:?} writes no file");
        thread::sleep(Duration::from_millis(1));
    }
    child
}

fn kill(child: &Child, signal: libc::c_int) {
    // SAFETY: the child was not waited for, so the pid is still its own.
    assert_eq!(unsafe { libc::kill(child.id() as libc::pid_t, signal) }, 0);
}

#[test]
fn a_signal_leaves_nothing_half_written() {
    let writers: [&[&str]; 3] = [
        &["export", "long.dio", "--format", "csv", "-o", "out", "--force"],
        &["export", "long.dio", "--format", "parquet", "--partition", "parts"],
        &["report", "long.dio", "--html", "out", "--force"],
    ];
    for (words, signal) in writers.iter().zip([libc::SIGINT, libc::SIGTERM, libc::SIGHUP]) {
        // On a busy machine the program may end before the signal comes: then with more to write.
        let stopped = [5_000, 20_000, 80_000].iter().any(|copies| stops(words, signal, *copies));
        assert!(stopped, "{words:?}: the signal always came too late");
    }
}

/// Sends a signal to a program that writes; false if it had ended by then.
fn stops(words: &[&str], signal: libc::c_int, copies: usize) -> bool {
    let place = place();
    long(place.path(), copies);
    fs::write(place.path().join("out"), "old").unwrap();
    let before = below(place.path());
    let mut child = begun(place.path(), words, None);
    kill(&child, signal);
    let status = ended(&mut child, words);
    if status.success() {
        return false;
    }
    assert_eq!(status.signal(), Some(signal), "{words:?}: {status}");
    assert!(below(place.path()) == before, "{words:?} left something");
    true
}

#[test]
fn an_ignored_signal_stays_ignored() {
    let place = place();
    long(place.path(), 500);
    let words = ["export", "long.dio", "--format", "csv", "-o", "out"];
    let mut child = begun(place.path(), &words, Some(libc::SIGHUP));
    kill(&child, libc::SIGHUP);
    assert!(ended(&mut child, &words).success());
    let lines = fs::read_to_string(place.path().join("out")).unwrap().lines().count();
    assert_eq!(lines, 1 + 500 * 16);
}

#[test]
fn new_files_are_private_and_follow_no_link() {
    let place = place();
    let at = |name: &str| place.path().join(name);
    for (words, out) in WRITERS.iter().filter(|(words, _)| words[0] != "man") {
        assert!(run(place.path(), words).status.success(), "{words:?}");
        for (path, _) in below(place.path()).iter().filter(|(path, _)| !path.ends_with("v1.dio")) {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{words:?}: {}", path.display());
        }
        let again = run(place.path(), words);
        fails(&again, words, &["already exists", "--force"]);
        let forced: Vec<&str> = words.iter().copied().chain(["--force"]).collect();
        assert!(run(place.path(), &forced).status.success(), "{words:?}");
        if at(out).is_dir() {
            fs::remove_dir_all(at(out)).unwrap();
            continue;
        }
        fs::remove_file(at(out)).unwrap();
        fs::write(at("target"), "mine").unwrap();
        symlink("target", at(out)).unwrap();
        fails(&run(place.path(), &forced), &forced, &["symbolic link"]);
        assert_eq!(fs::read(at("target")).unwrap(), b"mine", "{words:?}");
        fs::remove_file(at(out)).unwrap();
        fs::remove_file(at("target")).unwrap();
    }
}

#[test]
fn man_pages_are_readable_by_everyone() {
    let place = place();
    assert!(run(place.path(), &["man", "man"]).status.success());
    let page = fs::metadata(place.path().join("man/dio-trace.1")).unwrap();
    let other = fs::metadata(place.path().join("man")).unwrap();
    // Both have the permissions of the umask.
    assert_eq!(page.mode() & 0o444, other.mode() & 0o444);
}

/// Runs the program with `input` on stdin, through a pipe.
fn piped(place: &Path, words: &[&str], input: &[u8]) -> Output {
    let mut child = tool(place, words).stdin(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

#[test]
fn a_dash_is_stdin_or_stdout() {
    let place = place();
    let bytes = fs::read(recording()).unwrap();
    let named = |words: &[&str]| {
        let out = run(place.path(), words);
        assert!(out.status.success(), "{words:?}: {}", text(&out.stderr));
        text(&out.stdout)
    };
    let stdin = |words: &[&str]| {
        let out = piped(place.path(), words, &bytes);
        assert!(out.status.success(), "{words:?}: {}", text(&out.stderr));
        text(&out.stdout)
    };
    let csv = named(&["export", "v1.dio", "--format", "csv"]);
    assert_eq!(stdin(&["export", "-", "--format", "csv"]), csv);
    assert_eq!(named(&["export", "v1.dio", "--format", "csv", "-o", "-"]), csv);
    let sums = named(&["report", "v1.dio", "--by", "fs"]);
    assert_eq!(stdin(&["report", "-", "--by", "fs"]), sums);
    for verb in ["report", "inspect"] {
        let both = (named(&[verb, "v1.dio"]), stdin(&[verb, "-"]));
        assert_eq!(both.0.replace("v1.dio: ", ""), both.1.replace("stdin: ", ""));
    }
    let page = named(&["report", "v1.dio", "--html", "-"]);
    assert!(page.starts_with("<!DOCTYPE html>") && page.ends_with("</html>\n"));
    // stdin may also be a file; no file named `-` is created.
    let file = File::open(recording()).unwrap();
    let out = tool(place.path(), &["export", "-", "--format", "csv"]).stdin(file).output().unwrap();
    assert_eq!(text(&out.stdout), csv);
    assert_eq!(below(place.path()).len(), 1);
    fails(&run(place.path(), &["report", "-"]), &["report", "-"], &["stdin is a device"]);
    let words = ["report", "-"];
    fails(&piped(place.path(), &words, b""), &words, &["stdin is empty"]);
    fails(&piped(place.path(), &words, b"text"), &words, &["stdin", "not a recording"]);
    fails(&piped(place.path(), &words, &bytes[..100]), &words, &["stdin", "offset 16"]);
    let words = ["record", "-o", "-", "audit"];
    fails(&run(place.path(), &words), &words, &["not a stream"]);
    stdin(&["export", "-", "--format", "parquet", "--partition", "parts"]);
    assert!(below(place.path()).iter().any(|(path, _)| path.to_str().unwrap().contains("-stdin-")));
}

#[test]
fn endless_input_is_rejected_by_its_start() {
    let place = place();
    let words = ["report", "-"];
    let mut endless = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
    let mut child =
        tool(place.path(), &words).stdin(endless.stdout.take().unwrap()).spawn().unwrap();
    ended(&mut child, &words);
    endless.kill().unwrap();
    endless.wait().unwrap();
    fails(&child.wait_with_output().unwrap(), &words, &["not a recording"]);
    fails(&run(place.path(), &["inspect", "/dev/zero"]), &["/dev/zero"], &["is a device"]);
    fails(&run(place.path(), &["report", "/"]), &["/"], &["is a directory"]);
}

#[test]
fn a_fifo_is_read_as_a_stream_without_waiting_for_a_writer() {
    let place = place();
    fifo(&place.path().join("fifo"));
    for words in [
        &["report", "fifo"][..],
        &["inspect", "fifo"],
        &["export", "fifo", "--format", "csv"],
        &["report", "fifo", "--html", "page.html"],
    ] {
        fails(&run(place.path(), words), words, &["fifo is empty: nobody writes to it"]);
    }
    let bash = Command::new("bash")
        .args(["-c", "\"$0\" report --by fs <(cat v1.dio)", env!("CARGO_BIN_EXE_dio-trace")])
        .current_dir(place.path())
        .output();
    if let Ok(bash) = bash {
        let whole = run(place.path(), &["report", "--by", "fs", "v1.dio"]);
        assert_eq!(text(&bash.stdout), text(&whole.stdout), "{}", text(&bash.stderr));
    }
    for words in [
        &["export", "v1.dio", "--format", "csv", "-o", "fifo", "--force"][..],
        &["report", "v1.dio", "--html", "fifo", "--force"],
    ] {
        fails(&run(place.path(), words), words, &["not a regular file"]);
    }
    let words = ["audit", "-o", "fifo"];
    fails(&run(place.path(), &words), &words, &["cannot write fifo", "nobody reads"]);
    assert!(fs::metadata(place.path().join("fifo")).unwrap().file_type().is_fifo());
}

#[test]
fn binary_formats_are_not_written_to_a_terminal() {
    let place = place();
    for (form, words) in [("parquet", "Parquet is binary"), ("perfetto", "is binary")] {
        let (mut ours, mut theirs) = (-1, -1);
        let none = std::ptr::null_mut();
        // SAFETY: writes two descriptors; the optional arguments are null.
        let made = unsafe {
            libc::openpty(&raw mut ours, &raw mut theirs, none, none.cast(), none.cast())
        };
        if made != 0 {
            eprintln!("SKIPPED: no terminal: {}", io::Error::last_os_error());
            return;
        }
        // SAFETY: the descriptors were just opened and have no other owner.
        let (ours, theirs) = unsafe { (OwnedFd::from_raw_fd(ours), OwnedFd::from_raw_fd(theirs)) };
        for dash in [&[][..], &["-o", "-"]] {
            let words_of = [&["export", "v1.dio", "--format", form], dash].concat();
            let stdout = theirs.try_clone().unwrap();
            let out = tool(place.path(), &words_of).stdout(stdout).output().unwrap();
            fails(&out, &words_of, &[words, "-o FILE"]);
        }
        // Nothing was written to the terminal.
        drop(theirs);
        let mut shown = Vec::new();
        let _ = File::from(ours).read_to_end(&mut shown);
        assert!(shown.is_empty(), "{shown:?}");
    }
}
