//! Tests that a recording of format version 1, made on Linux 6.12, stays readable: its output stays
//! the same, whatever machine reads it.
//!
//! After an intended change run `BLESS=1 cargo test -p dio-trace --test recording`, then read the
//! diff.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings")
}

/// Runs the program in the directory of the recordings.
fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dio-trace"))
        .args(words)
        .current_dir(folder())
        .env("TZ", "UTC")
        .env("COLUMNS", "80")
        .output()
        .unwrap()
}

fn stdout(words: &[&str]) -> String {
    let out = run(words);
    assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn compare(name: &str, text: &str) {
    let path = folder().join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{} differs; is now:\n{text}", path.display());
}

#[test]
fn golden_report_fits_80_columns() {
    let text = stdout(&["report", "v1.dio"]);
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    compare("v1.txt", &text);
}

#[test]
fn a_report_says_what_another_kernel_changes() {
    let report = stdout(&["report", "v1.dio"]);
    let text = stdout(&["report", "--kernel", "7.3", "v1.dio"]);
    let added = text.strip_prefix(&report).expect("the rest of the report stays as it is");
    assert!(added.lines().all(|line| line.chars().count() <= 80), "{added}");
    let words = added.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.starts_with("kernel: 7.3 instead of 6.12.117+deb12-amd64:"), "{added}");
    assert!(words.contains("no longer on 7.3: the length of each segment of a vector"), "{added}");
    assert!(words.contains("on 7.3: an ext4 write that must not wait"), "{added}");
    let text = stdout(&["report", "--kernel", "6.12.117", "v1.dio"]);
    assert!(text.contains("kernel: 6.12.117 instead of 6.12.117+deb12-amd64: no change"), "{text}");
}

#[test]
fn golden_sums() {
    let by = ["process", "file", "fs", "cause", "time", "verdict"];
    let text: String = by.iter().map(|by| stdout(&["report", "--by", by, "v1.dio"])).collect();
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    compare("v1-by.txt", &text);
}

#[test]
fn golden_export() {
    compare("v1.jsonl", &stdout(&["export", "--format", "jsonl", "v1.dio"]));
    compare("v1.csv", &stdout(&["export", "--format", "csv", "v1.dio"]));
    compare("v1-folded.txt", &stdout(&["export", "--format", "folded", "v1.dio"]));
}

#[test]
fn golden_blocks() {
    compare("v1-blocks.txt", &stdout(&["inspect", "v1.dio"]));
}

#[test]
fn several_recordings_are_summed() {
    let of = |files: &[&str]| {
        let text = stdout(&[&["report", "--by", "fs"], files].concat());
        text.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned()
    };
    assert_eq!((of(&["v1.dio"]), of(&["v1.dio", "v1.dio"])), ("69".to_owned(), "138".to_owned()));
}

/// The requests of an export, as JSON values.
fn requests(words: &[&str]) -> Vec<serde_json::Value> {
    let text = stdout(&[&["export", "--format", "jsonl"], words, &["v1.dio"]].concat());
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.filter(|line: &serde_json::Value| line["kind"] == "request").collect()
}

#[test]
fn filters_select_the_matching_requests() {
    let all = requests(&[]);
    let narrowed = |words: &[&str], fits: &dyn Fn(&serde_json::Value) -> bool| {
        let wanted: Vec<_> = all.iter().filter(|request| fits(request)).cloned().collect();
        assert_eq!(requests(words), wanted, "{words:?}");
        wanted.len()
    };
    assert_eq!(narrowed(&["--only", "fallback"], &|r| r["verdict"] == "fallback"), 9);
    assert_eq!(narrowed(&["--cause", "misaligned"], &|r| r["cause"] == "misaligned"), 3);
    assert_eq!(narrowed(&["--only", "short"], &|r| r["outcome"] == "short:eof"), 1);
    let either = |r: &serde_json::Value| r["outcome"] == "short:eof" || r["verdict"] == "refused";
    assert_eq!(narrowed(&["--only", "short,refused"], &either), 4);
    assert_eq!(narrowed(&["--errors"], &|r| r["verdict"] == "refused"), 3);
    assert_eq!(narrowed(&["--op", "write"], &|r| r["op"] == "write"), 2);
    assert_eq!(narrowed(&["--api", "readv"], &|_| true), all.len());
    assert_eq!(narrowed(&["--api", "libaio,io_uring"], &|_| false), 0);
    assert_eq!(narrowed(&["--path", "*/wal"], &|r| r["path"] == "/mnt/j/wal"), 8);
    assert_eq!(narrowed(&["--fs", "xfs,ext4", "--comm", "python3"], &|_| true), all.len());
    assert_eq!(narrowed(&["--comm", "postgres"], &|_| false), 0);
    assert_eq!(narrowed(&["-p", "1,3272", "-t", "3272"], &|_| true), all.len());
    assert_eq!(narrowed(&["-p", "1"], &|_| false), 0);
    let slow = |r: &serde_json::Value| r["latency_ns"].as_u64().unwrap() >= 500_000;
    assert!((1..all.len()).contains(&narrowed(&["--min-latency", "500us"], &slow)));
}

#[test]
fn filters_use_the_totals_where_possible() {
    let sums = |words: &[&str]| {
        let text = stdout(&[&["report", "--json", "--by", "verdict"], words, &["v1.dio"]].concat());
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        let of = |group: &serde_json::Value| {
            (group["name"].as_str().unwrap().to_owned(), group["requests"].as_u64().unwrap())
        };
        let groups: Vec<_> = report["groups"].as_array().unwrap().iter().map(of).collect();
        (groups, report["by_requests"].as_bool().unwrap())
    };
    let row = |name: &str, n| (name.to_owned(), n);
    assert_eq!(sums(&["--path", "*/wal"]), (vec![row("fallback", 8)], false));
    assert_eq!(sums(&["--only", "direct"]), (vec![row("direct", 56)], false));
    assert_eq!(sums(&["-p", "1"]), (vec![], false));
    // The totals do not have threads, so the recorded requests are counted: 4 of 56 direct ones.
    let by_requests = vec![row("fallback", 9), row("direct", 4), row("refused", 3)];
    assert_eq!(sums(&["-t", "3272"]), (by_requests, true));
}

#[test]
fn a_filtered_report_shows_its_filters() {
    let text = stdout(&["report", "--path", "/nope", "v1.dio"]);
    assert!(text.contains("only:   path /nope\n"), "{text}");
    assert!(text.contains("Nothing that was recorded fits"), "{text}");
    let text = stdout(&["report", "--json", "-p", "3272", "--errors", "v1.dio"]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["only"], "verdict refused,failed; pid 3272");
    let out = run(&["report", "--since", "5m", "--until", "5m", "v1.dio"]);
    let error = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && error.contains("nothing is between them"), "{error}");
}

#[test]
fn an_uninvolved_process_is_not_shown() {
    let text = stdout(&["report", "-p", "1", "v1.dio"]);
    assert!(!text.contains("mixed") && !text.contains("/mnt/"), "{text}");
}

#[test]
fn without_totals_a_report_counts_the_requests() {
    let mut damaged = fs::read(folder().join("v1.dio")).unwrap();
    damaged[2200] ^= 1; // in a block of totals
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), damaged).unwrap();
    let text = stdout(&["report", "--json", file.path().to_str().unwrap()]);
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let requests = report["summary"]["requests"].as_object().unwrap().values();
    let sum: u64 = requests.map(|n| n.as_u64().unwrap()).sum();
    assert_eq!((sum, &report["by_requests"]), (16, &true.into()));
}

#[test]
fn a_file_that_is_not_a_recording_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let old = folder.path().join("old");
    fs::write(&old, "kept").unwrap();
    let old = old.to_str().unwrap();
    for words in [
        ["report", "v1.txt", "--html", old, "--force"],
        ["export", "v1.txt", "--format=csv", "--force", &format!("-o{old}")],
    ] {
        assert!(!run(&words).status.success(), "{words:?}");
        assert_eq!(fs::read_to_string(old).unwrap(), "kept", "{words:?}");
    }
}

#[test]
fn unreadable_recordings_do_not_stop_a_report() {
    let fs = |files: &[&str]| run(&[&["report", "--by", "fs"], files].concat());
    let (whole, part) = (fs(&["v1.dio"]), fs(&["v1.txt", "v1.dio", "missing.dio"]));
    assert_eq!((part.status.code(), &part.stdout), (Some(1), &whole.stdout));
    let error = String::from_utf8(part.stderr).unwrap();
    for said in ["v1.txt: ", "missing.dio: ", "2 of 3 recordings could not be read"] {
        assert!(error.contains(said), "{error}");
    }
    let none = fs(&["v1.txt", "missing.dio"]);
    assert_eq!((none.status.code(), none.stdout.len()), (Some(1), 0));
}

#[test]
fn a_full_output_is_named() {
    let full = Command::new(env!("CARGO_BIN_EXE_dio-trace"))
        .args(["export", "--format", "jsonl", "v1.dio"])
        .current_dir(folder())
        .stdout(fs::File::create("/dev/full").unwrap())
        .output()
        .unwrap();
    let error = String::from_utf8(full.stderr).unwrap();
    assert_eq!(full.status.code(), Some(1));
    assert!(error.contains("cannot write stdout: No space left on device"), "{error}");
}

#[test]
fn a_truncated_recording_is_reported_up_to_its_end() {
    let whole = fs::read(folder().join("v1.dio")).unwrap();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("cut.dio");
    fs::write(&path, &whole[..whole.len() - 300]).unwrap();
    let text = stdout(&["report", path.to_str().unwrap()]);
    assert!(text.contains("the recording has no end"), "{text}");
    assert!(text.contains("at offset"), "{text}");
    fs::write(&path, &whole[..100]).unwrap();
    let out = run(&["report", path.to_str().unwrap()]);
    assert_eq!(out.status.code(), Some(1));
    let error = String::from_utf8(out.stderr).unwrap();
    assert!(error.contains("offset 16") && error.lines().count() == 1, "{error}");
}

/// The JSON in a page.
fn page_data(page: &str) -> serde_json::Value {
    let (_, data) = page.split_once("id=\"data\">").unwrap();
    serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap()
}

#[test]
fn a_page_has_the_totals_of_the_report() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("report.html");
    let page = path.to_str().unwrap();
    assert_eq!(stdout(&["report", "v1.dio", "--html", page]), "");
    let data = page_data(&fs::read_to_string(&path).unwrap());
    let report: serde_json::Value =
        serde_json::from_str(&stdout(&["report", "v1.dio", "--json"])).unwrap();
    assert_eq!(data["report"], report);
    let sum = |rows: &serde_json::Value, field: &str| -> u64 {
        rows.as_array().unwrap().iter().filter_map(|row| row[field].as_u64()).sum()
    };
    for rows in [&data["verdicts"], &data["files"]["rows"], &data["processes"]["rows"]] {
        assert_eq!((sum(rows, "requests"), sum(rows, "findings")), (69, 16));
    }
    // Only findings were recorded individually.
    let slices = &data["times"]["slices"];
    assert_eq!((sum(slices, "requests"), sum(slices, "findings")), (16, 16));
    assert_eq!(
        (sum(&data["causes"], "requests"), sum(&data["findings"]["rows"], "requests")),
        (16, 16)
    );
    for row in data["verdicts"].as_array().unwrap() {
        assert_eq!(
            report["summary"]["requests"][row["verdict"].as_str().unwrap()],
            row["requests"]
        );
    }
}

#[test]
fn a_page_does_not_overwrite_an_existing_file() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("mine");
    fs::write(&path, "mine").unwrap();
    let page = path.to_str().unwrap();
    let says = |words: &[&str], part: &str| {
        let out = run(words);
        let text = String::from_utf8(out.stderr).unwrap();
        assert!(out.status.code() == Some(1) && text.contains(part), "{words:?}: {text}");
    };
    says(&["report", "v1.dio", "--html", page], "--force");
    let own = place.path().join("own.dio");
    fs::copy(folder().join("v1.dio"), &own).unwrap();
    let own = own.to_str().unwrap();
    says(&["report", own, "--html", own, "--force"], "the recording itself");
    says(&["export", own, "--format", "csv", "-o", own, "--force"], "the recording itself");
    stdout(&["report", own]);
    says(&["report", "v1.dio", "v1.dio", "--html", page], "one recording");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    stdout(&["report", "v1.dio", "--html", page, "--force"]);
    assert!(fs::read_to_string(&path).unwrap().starts_with("<!DOCTYPE html>"));
}
