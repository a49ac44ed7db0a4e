//! Tests of the command line that need no tracer: bad input is reported in one clear line.

use std::process::{Command, Output};

fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dio-trace")).args(words).output().unwrap()
}

/// Checks that the program fails with this exit code, and that its message contains all of `says`.
/// The message is one line, except for usage errors.
fn refuses(words: &[&str], code: i32, says: &[&str]) {
    let out = run(words);
    let text = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(code), "{words:?}: {text}");
    assert!(out.stdout.is_empty(), "{words:?} wrote to stdout");
    assert!(!text.contains("panicked"), "{text}");
    for part in says {
        assert!(text.contains(part), "{words:?} should say `{part}`: {text}");
    }
    if code == 1 {
        let lines = text.lines().filter(|line| !line.contains("attaching")).count();
        assert_eq!(lines, 1, "{words:?}: {text}");
    }
}

#[test]
fn usage_errors_exit_with_2() {
    refuses(&["frobnicate"], 2, &["unrecognized subcommand"]);
    refuses(&["audit", "--frobnicate"], 2, &["unexpected argument"]);
    refuses(&["attach"], 2, &["--pid"]);
    refuses(&["attach", "-p", "0"], 2, &["not in 1.."]);
    refuses(&["attach", "-p", "postgres"], 2, &["invalid digit"]);
    refuses(&["audit", "-d", "0"], 2, &["more than 0"]);
    refuses(&["audit", "-d", "5 parsecs"], 2, &["unknown unit"]);
    refuses(&["audit", "--attach", "uprobe"], 2, &["fentry", "kprobe"]);
    refuses(&["run"], 2, &["COMMAND"]);
    refuses(&["record", "audit"], 2, &["--output"]);
    refuses(&["record", "-o", "x", "--max-size", "9T", "audit"], 2, &["is not a size"]);
    refuses(&["record", "-o", "x", "--rotate", "1K", "audit"], 2, &["at least 1M"]);
    refuses(&["record", "-o", "x", "--rotate", "1M:0", "audit"], 2, &["KEEP", "at least 1"]);
    let both = ["record", "-o", "x", "--rotate", "1M", "--flight-recorder", "1M", "audit"];
    refuses(&both, 2, &["cannot be used with"]);
    refuses(&["record", "-o", "x", "--dump-on", "failed", "audit"], 2, &["--flight-recorder"]);
    refuses(&["report", "x.dio", "--html", "x.html", "--by", "fs"], 2, &["cannot be used with"]);
    refuses(&["report", "x.dio", "--force"], 2, &["--html"]);
    refuses(&["export", "x.dio", "--format", "xml"], 2, &["jsonl", "csv", "parquet"]);
    refuses(&["explain", "misalinged"], 2, &["no cause `misalinged`", "similar: misaligned"]);
    refuses(&["explain", "tmpfs", "\x1b[2J"], 2, &["\\x1b[2J"]);
    refuses(&["check", "/", "--kernel", "new"], 2, &["--kernel", "looks like 7.2 or 6.12.77"]);
    refuses(&["report", "x.dio", "--kernel", "6.12.y"], 2, &["looks like 7.2 or 6.12.77"]);
    refuses(&["report", "x.dio", "--kernel", "7.2", "--json"], 2, &["cannot be used with"]);
}

#[test]
fn failures_exit_with_1_and_one_line() {
    refuses(&["attach", "-p", "4194305"], 1, &["no process 4194305", "pgrep"]);
    refuses(&["audit", "-o", "/nonexistent/file"], 1, &["cannot write /nonexistent/file"]);
}

#[test]
fn a_program_that_cannot_be_run_exits_as_in_a_shell() {
    refuses(&["run", "--", "/nonexistent/program"], 127, &["no such program"]);
    refuses(&["run", "--", "no-such-program-anywhere"], 127, &["no such program", "PATH"]);
    refuses(&["run", "--", "/etc/passwd"], 126, &["not executable"]);
    refuses(&["run", "--", "/"], 127, &["no such program"]);
}

#[test]
fn control_characters_in_names_are_escaped() {
    refuses(&["run", "--", "\x1b[2Jevil"], 127, &["\\x1b[2Jevil"]);
}

#[test]
fn a_thread_is_not_a_process() {
    let thread = std::thread::spawn(|| {
        // SAFETY: gettid has no preconditions.
        let tid = unsafe { libc::gettid() };
        refuses(&["attach", "-p", &tid.to_string()], 1, &["is a thread of process"]);
    });
    thread.join().unwrap();
}

#[test]
fn version_names_commit_and_object() {
    let out = run(&["--version"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success());
    assert!(text.starts_with("dio-trace ") && text.contains("object "), "{text}");
}

#[test]
fn help_has_examples_and_fits_80_columns() {
    for verb in ["", "audit", "attach", "run", "record", "report", "export"] {
        let words: Vec<&str> = [verb, "--help"].into_iter().filter(|w| !w.is_empty()).collect();
        let out = run(&words);
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(out.status.success());
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    }
    let text = String::from_utf8(run(&["--help"]).stdout).unwrap();
    assert!(text.contains("sudo dio-trace attach -p"), "{text}");
}

#[test]
fn values_are_in_help_and_completions() {
    let help = |verb: &str| {
        let text = String::from_utf8(run(&[verb, "--help"]).stdout).unwrap();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let bash = String::from_utf8(run(&["completions", "bash"]).stdout).unwrap();
    for (verb, values) in [
        (
            "audit",
            "refused, failed, eof, dax, memory, fallback, partial, client, direct, unknown, cached, uncached, short",
        ),
        ("run", "fallback, partial, refused, failed, unknown, short, mixed"),
        ("audit", "read, write"),
        ("record", "refused, failed, eof, dax, memory"),
    ] {
        assert!(help(verb).contains(&format!("[possible values: {values}")), "{verb}: {values}");
        assert!(bash.contains(&values.replace(", ", " ")), "{values}");
    }
    assert!(bash.contains("data-journal ") && !help("explain").contains("data-journal,"));
    refuses(&["audit", "--only", "shorts"], 2, &["short"]);
    refuses(&["audit", "--cause", "misalinged"], 2, &["similar: misaligned"]);
    refuses(&["top", "--cause", "misaligned"], 2, &["unexpected argument"]);
    refuses(&["record", "-o", "/x", "audit", "--cause", "misaligned"], 1, &["dio-trace report"]);
    refuses(&["run", "--fail-on", "x", "--", "true"], 2, &["the words are fallback"]);
}

#[test]
fn causes_are_explained_without_root() {
    let list = String::from_utf8(run(&["explain"]).stdout).unwrap();
    assert!(list.contains("data-journal"), "{list}");
    let out = run(&["explain", "data-journal", "misaligned"]);
    let text = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success() && out.stderr.is_empty());
    for part in ["data-journal: ", "misaligned: ", "  means:", "  proof:", "  fix:", "  where:"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.lines().chain(list.lines()).all(|line| line.chars().count() <= 80), "{text}");
    assert_eq!(
        text.matches("  kernels:").count(),
        1,
        "data-journal is the same everywhere: {text}"
    );
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("until 6.0 (b1a000d3b8ec, bf8d08532bc1)"), "{text}");
}

#[test]
fn top_is_for_terminals() {
    refuses(&["top"], 1, &["needs a terminal", "dio-trace audit"]);
    refuses(&["top", "-p", "4194305"], 1, &["no process 4194305"]);
    refuses(&["top", "-i", "10ms"], 2, &["at least 100ms"]);
    refuses(&["top", "--by", "time"], 2, &["process", "file", "fs", "cause"]);
    refuses(&["top", "--json"], 2, &["--once"]);
    refuses(&["record", "-o", "x", "top"], 2, &["unrecognized subcommand"]);
}

#[test]
fn completions_load() {
    for (shell, part) in [("bash", "_dio__trace()"), ("zsh", "#compdef"), ("fish", "complete -c")] {
        let out = run(&["completions", shell]);
        assert!(out.status.success() && out.stderr.is_empty());
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(text.contains(part) && text.contains("fail-on"), "{shell}: {text}");
        if shell == "bash" {
            let loads = text + "\ncomplete -p dio-trace\n";
            let bash = Command::new("bash").args(["--norc", "-e", "-c", &loads]).output();
            // Skipped on a machine without bash.
            assert!(bash.is_err() || bash.unwrap().status.success());
        }
    }
    refuses(&["completions", "tcsh"], 2, &["bash", "zsh", "fish"]);
}

#[test]
fn no_colours_without_a_terminal() {
    for words in [&["explain", "data-journal"][..], &["check", "/"], &["--help"], &["audit", "-x"]]
    {
        let out = run(words);
        let text = [out.stdout, out.stderr].concat();
        assert!(!text.contains(&0x1b), "{words:?}");
    }
    let recording = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/v1.dio");
    let colours = |words: &[&str], term: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dio-trace"));
        let out = command.args(words).env("TERM", term).env_remove("NO_COLOR").output().unwrap();
        assert!(out.status.success(), "{words:?}");
        out.stdout.contains(&0x1b)
    };
    assert!(!colours(&["report", recording], "xterm"));
    for term in ["xterm", "dumb"] {
        assert!(colours(&["report", recording, "--color", "always"], term));
        assert!(colours(&["--color=always", "report", recording], term));
        assert!(!colours(&["report", recording, "--color=never"], term));
    }
    refuses(&["report", recording, "--color", "sometimes"], 2, &["auto, always, never"]);
}

#[test]
fn a_file_that_is_not_a_recording_exits_with_1() {
    refuses(&["report", "/no/such/file"], 1, &["cannot open /no/such/file"]);
    refuses(&["report", "/"], 1, &["is a directory"]);
    let hours = ["export", "/etc/passwd", "--format", "csv", "--partition", "/no/such/folder"];
    refuses(&hours, 1, &["needs --format parquet"]);
    refuses(&["inspect", "/proc/self/exe"], 1, &["not a recording", "offset 0"]);
    refuses(&["record", "-o", "/x", "audit", "--json"], 1, &["`dio-trace report`"]);
    refuses(&["record", "-o", "/x", "audit", "--utc"], 1, &["host's zone", "dio-trace report"]);
}
