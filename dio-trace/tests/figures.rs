//! Tests that all outputs of one recording show the same figures and the same times: the text, the
//! HTML page, the tables of --by, the JSON and the export.

#[allow(dead_code, reason = "its main is not used here")]
#[path = "../examples/sample.rs"]
mod sample;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use dio_trace::{
    recording::format::{Header, Writer},
    util::clock::Zone,
};
use serde_json::Value;
use tempfile::TempDir;

/// A recording, and a directory for its HTML pages.
struct Recording {
    folder: TempDir,
    path: PathBuf,
}

/// The recording of format version 1, which has findings only, and no time zone.
fn first() -> Recording {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.dio");
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings/v1.dio");
    fs::copy(from, &path).unwrap();
    Recording { folder, path }
}

/// A recording of twenty minutes with every kind of event, of a host in Berlin's time zone.
fn twenty_minutes() -> Recording {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("r.dio");
    sample::write(&path, "db-17", 12_000).unwrap();
    Recording { folder, path }
}

impl Recording {
    /// The output of a verb for this recording, on a machine in that time zone.
    fn says(&self, verb: &str, words: &[&str], zone: &str) -> String {
        let out = Command::new(env!("CARGO_BIN_EXE_dio-trace"))
            .args([verb, self.path.to_str().unwrap()])
            .args(words)
            .env("TZ", zone)
            .env("COLUMNS", "80")
            .output()
            .unwrap();
        assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn report(&self, words: &[&str]) -> String {
        self.says("report", words, "UTC")
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.report(&[&["--json"], words].concat())).unwrap()
    }

    /// The data in the HTML page, made on a machine in that time zone.
    fn page(&self, words: &[&str], zone: &str) -> Value {
        let page = self.folder.path().join("page.html");
        let page = page.to_str().unwrap();
        self.says("report", &[&["--html", page, "--force"], words].concat(), zone);
        let text = fs::read_to_string(page).unwrap();
        let (_, data) = text.split_once("id=\"data\">").unwrap();
        serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap()
    }
}

fn number(text: &str) -> u64 {
    text.replace(',', "").parse().unwrap_or_else(|_| panic!("`{text}` is not a number"))
}

/// The text without its line breaks.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

type ByVerdict = BTreeMap<String, u64>;

/// The counts in a headline, such as `12 direct, 3 eof`.
fn headline(text: &str) -> ByVerdict {
    let text = flat(text);
    let (_, rest) = text.split_once("By verdict: ").expect("no headline by verdict");
    let part = |part: &str| {
        let (n, verdict) = part.split_once(' ').unwrap();
        let (verdict, _) = verdict.split_once(" (").unwrap_or((verdict, ""));
        (verdict.to_owned(), number(n))
    };
    rest.split_once('.').unwrap().0.split(", ").map(part).collect()
}

/// The name and the requests of every row of a --by table.
fn table(text: &str) -> ByVerdict {
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        ((*words.last().unwrap()).to_owned(), number(words[0]))
    };
    text.lines().skip(1).map(row).collect()
}

fn rows(rows: &Value, name: &str) -> ByVerdict {
    let row =
        |row: &Value| (row[name].as_str().unwrap().to_owned(), row["requests"].as_u64().unwrap());
    rows.as_array().unwrap().iter().map(row).collect()
}

/// Requests by verdict, as each output shows them.
fn by_verdict(of: &Recording) -> Vec<(&'static str, ByVerdict)> {
    let (text, page, json) = (of.report(&[]), of.page(&[], "UTC"), of.json(&["--by", "verdict"]));
    let some = |requests: &Value| {
        let some = requests.as_object().unwrap().iter().filter(|(_, n)| n.as_u64() != Some(0));
        some.map(|(verdict, n)| (verdict.clone(), n.as_u64().unwrap())).collect::<ByVerdict>()
    };
    let latency = text.split_once("\nlatency ").unwrap().1.split_once("\nanswer: ").unwrap().0;
    let export = of.says("export", &["--format", "jsonl"], "UTC");
    let summary: Value = serde_json::from_str(export.lines().last().unwrap()).unwrap();
    let mut files = ByVerdict::new();
    for row in json["summary"]["files"].as_array().unwrap() {
        let n = row["requests"].as_u64().unwrap();
        *files.entry(row["verdict"].as_str().unwrap().to_owned()).or_default() += n;
    }
    vec![
        ("the text's headline", headline(&text)),
        ("the text's latencies", table(latency)),
        ("--by verdict", table(&of.report(&["--by", "verdict"]))),
        ("--json --by verdict", rows(&json["groups"], "name")),
        ("--json", some(&json["summary"]["requests"])),
        ("--json, files", files),
        ("export", some(&summary["requests"])),
        ("the page's headline", headline(page["headline"].as_str().unwrap())),
        ("the page's table", rows(&page["verdicts"], "verdict")),
    ]
}

/// The total number of requests, as each output shows it.
fn totals(of: &Recording) -> Vec<(String, u64)> {
    let json = of.json(&[]);
    let ended = json["summary"]["requests"].as_object().unwrap().values();
    let ended = ended.map(|n| n.as_u64().unwrap()).sum();
    let mut all = vec![("--json".to_owned(), ended)];
    let (text, page) = (flat(&of.report(&[])), of.page(&[], "UTC"));
    let said = text.split(" requests have a finding").next().unwrap().rsplit(' ').next();
    all.push(("the headline".to_owned(), number(said.unwrap())));
    let (seen, _) = text.split_once(" ended, ").unwrap();
    all.push(("seen:".to_owned(), number(seen.rsplit(' ').next().unwrap())));
    for by in ["process", "file", "fs"] {
        let sum = table(&of.report(&["--by", by])).values().sum();
        all.push((format!("--by {by}"), sum));
    }
    for name in ["files", "processes", "file_systems"] {
        let sum = page[name]["rows"].as_array().unwrap().iter();
        let sum = sum.map(|row| row["requests"].as_u64().unwrap()).sum();
        all.push((format!("the page's {name}"), sum));
    }
    all
}

fn agree(of: &Recording) {
    let all = by_verdict(of);
    for (form, counts) in &all {
        assert_eq!(counts, &all[0].1, "{form} differs from {}", all[0].0);
    }
    let sum: u64 = all[0].1.values().sum();
    for (form, total) in totals(of) {
        assert_eq!(total, sum, "{form}");
    }
    let json = of.json(&[]);
    let findings = &json["summary"]["findings"];
    let said = flat(&of.report(&[])).split(" requests have a finding").next().unwrap().to_owned();
    let said = said.rsplit(' ').nth(2).unwrap().to_owned();
    assert_eq!(number(&said), findings.as_u64().unwrap());
}

#[test]
fn every_output_counts_the_same() {
    agree(&first());
    agree(&twenty_minutes());
}

/// The answer, as each output shows it.
fn answers(of: &Recording, words: &[&str]) -> Vec<String> {
    let (text, page, json) = (of.report(words), of.page(words, "UTC"), of.json(words));
    let export = of.says("export", &[&["--format", "jsonl"], words].concat(), "UTC");
    let last: Value = serde_json::from_str(export.lines().last().unwrap()).unwrap();
    let said = |value: &Value| value.as_str().unwrap().to_owned();
    let (_, text) = text.split_once("\nanswer: ").unwrap();
    // A line of an answer that is not its first one is indented.
    let lines = |text: &str| {
        let mut lines = text.lines();
        let first = lines.next().unwrap().to_owned();
        let more = lines.take_while(|line| line.starts_with("        ")).map(str::to_owned);
        flat(&[first].into_iter().chain(more).collect::<Vec<_>>().join(" "))
    };
    let (_, end) = text.rsplit_once("\nanswer: ").unwrap();
    assert_eq!(flat(end), lines(end), "the report ends with the answer");
    vec![
        lines(text),
        lines(end),
        said(&page["report"]["summary"]["answer"]),
        said(&json["summary"]["answer"]),
        said(&last["answer"]),
    ]
}

#[test]
fn every_output_gives_the_same_answer() {
    for (of, words) in [
        (first(), &[][..]),
        (twenty_minutes(), &[]),
        (twenty_minutes(), &["--since", "5m"]),
        (twenty_minutes(), &["--only", "fallback"]),
        (twenty_minutes(), &["--path", "/nowhere"]),
        (twenty_minutes(), &["--cause", "misaligned"]),
        (first(), &["--cause", "open-refused,io-error"]),
    ] {
        let all = answers(&of, words);
        assert!(!all[0].is_empty() && all.iter().all(|answer| *answer == all[0]), "{all:#?}");
    }
}

#[test]
fn a_cause_is_selected_with_its_figures() {
    let of = twenty_minutes();
    let all = of.json(&[])["summary"].clone();
    let one = of.json(&["--cause", "misaligned"])["summary"].clone();
    let caused = |row: &&Value| row["cause"] == "misaligned";
    let causes = all["causes"].as_array().unwrap();
    assert_eq!(
        one["causes"].as_array().unwrap(),
        &[(*causes.iter().find(caused).unwrap()).clone()]
    );
    assert_eq!(one["requests"]["refused"], one["findings"]);
    assert_eq!(one["causes"][0]["requests"], one["findings"]);
    assert_eq!((&one["mixed"], &one["refusals"]), (&Value::from([0; 0]), &Value::from([0; 0])));
    let answer = one["answer"].as_str().unwrap();
    assert!(answer.contains("; requests with other causes are left out"), "{answer}");
    assert!(!answer.contains('%'), "a share of what was selected says nothing: {answer}");
}

#[test]
fn the_answer_adds_up() {
    for of in [first(), twenty_minutes()] {
        let summary = of.json(&[])["summary"].clone();
        let answer = summary["answer"].as_str().unwrap();
        let (share, rest) = answer.split_once("% of the ").unwrap();
        let (all, rest) = rest.split_once(' ').unwrap();
        let (_, rest) = rest.split_once(": ").unwrap();
        let fallbacks = number(rest.split_once(' ').unwrap().0);
        assert_eq!(summary["requests"]["fallback"], fallbacks);
        let share: f64 = share.parse().unwrap();
        let exact = fallbacks as f64 * 100.0 / number(all) as f64;
        assert!((share - exact).abs() < 0.06, "{answer}");
        let mut causes = 0;
        for cause in summary["causes"].as_array().unwrap() {
            causes += cause["requests"].as_u64().unwrap();
        }
        assert_eq!(summary["findings"], causes, "no event was lost");
    }
}

#[test]
fn refused_requests_and_rejected_opens_are_separate_figures() {
    let of = first();
    let (text, page) = (of.report(&[]), of.page(&[], "UTC"));
    assert!(flat(&text).contains("O_DIRECT itself was refused 1 time."), "{text}");
    assert_eq!(page["refused_opens"], 1);
    assert_eq!(headline(&text)["refused"], 3);
    assert_eq!(page["report"]["summary"]["requests"]["refused"], 3);
}

#[test]
fn every_output_shows_the_same_span_and_zone() {
    let (old, new) = (first(), twenty_minutes());
    let unknown = "UTC, the recording does not say its host's zone";
    let host = "Europe/Berlin (+01:00), the recording host's zone";
    for (of, words, when, zone) in [
        (&old, &[][..], "2026-11-24T16:43:14+00:00, 5.7s", unknown),
        (&new, &[], "2026-01-02T04:04:05+01:00, 20min", host),
        (&new, &["--utc"], "2026-01-02T03:04:05+00:00, 20min", "UTC, by --utc"),
    ] {
        // The zone of the reading machine does not matter.
        for here in ["UTC", "America/New_York"] {
            let text = flat(&of.says("report", words, here));
            assert!(text.contains(&format!(", {when} of ")), "{here}: {text}");
            assert!(text.contains(&format!("times: {zone}")), "{here}: {text}");
            let page = of.page(words, here);
            assert_eq!((&page["when"], &page["zone"]["text"]), (&when.into(), &zone.into()));
            let offset = if zone == host { 3_600 } else { 0 };
            assert_eq!(page["zone"]["offset"], offset);
        }
    }
    let json = old.json(&[]);
    assert_eq!(
        (&json["began"], &json["header"]["zone"]),
        (&json["header"]["started"], &Value::Null)
    );
    assert_eq!(json["lasted_ns"].as_u64().unwrap() / 100_000_000, 57);
    assert_eq!(new.json(&[])["header"]["zone"]["name"], "Europe/Berlin");
}

#[test]
fn lines_and_slices_are_in_the_same_zone() {
    let of = twenty_minutes();
    for (words, time, slice) in [
        (&[][..], "04:0", "2026-01-02T04:04:06.001+01:00"),
        (&["--utc"], "03:0", "2026-01-02T03:04:06.001+00:00"),
    ] {
        for here in ["UTC", "America/New_York"] {
            let text = of.says("report", words, here);
            let lines: Vec<&str> = text
                .lines()
                .filter(|line| line.as_bytes().get(2) == Some(&b':') && line.contains('/'))
                .collect();
            assert!(lines.len() > 10 && lines[0].starts_with(time), "{here}: {}", lines[0]);
            let slices = of.says("report", &[&["--by", "time"], words].concat(), here);
            let first = slices.lines().nth(1).unwrap();
            assert!(first[..first.len() - 13].contains(&slice[..16]), "{first}");
            assert!(first.ends_with(&slice[23..]), "{first}");
            assert!(slices.lines().all(|line| line.chars().count() <= 80), "{slices}");
        }
    }
}

#[test]
fn a_time_of_the_clock_is_that_of_the_recording_host() {
    let of = twenty_minutes();
    let requests = |words: &[&str]| {
        let json = of.json(words);
        (json["requests_in_window"].as_u64().unwrap(), json["only"].as_str().unwrap().to_owned())
    };
    let (n, only) = requests(&["--since", "04:09:05", "--until", "04:10:05"]);
    assert_eq!(only, "since 2026-01-02T04:09:05+01:00; until 2026-01-02T04:10:05+01:00");
    assert!(n > 0);
    assert_eq!(requests(&["--since", "5m", "--until", "6m"]).0, n);
    assert_eq!(requests(&["--utc", "--since", "03:09:05", "--until", "6m"]).0, n);
    let (none, only) = requests(&["--since", "03:09"]);
    assert_eq!((none, only.as_str()), (0, "since 2026-01-03T03:09:00+01:00"));
}

#[test]
fn a_mixed_file_is_shown_with_both_sides_if_either_is_selected() {
    let of = twenty_minutes();
    let all = flat(&of.report(&[]));
    let (_, sides) = all.split_once("mixed: ").unwrap().1.split_once(": ").unwrap();
    let (sides, _) = sides.split_once("; cost").unwrap();
    assert!(sides.contains("postgres/2101") && sides.contains("backup-agent/7001"), "{sides}");
    for words in
        [["--comm", "postgres"], ["--comm", "backup-agent"], ["--pid", "2101"], ["--pid", "7001"]]
    {
        let text = flat(&of.report(&words));
        assert!(text.contains(sides), "{words:?}: {text}");
        // The line for its first occurrence is shown too.
        assert!(text.contains("mixed /var"), "{words:?}: {text}");
        let json = of.json(&words);
        assert_eq!(json["summary"]["mixed"].as_array().unwrap().len(), 1, "{words:?}");
    }
    for words in [["--comm", "mysqld"], ["--pid", "3307"], ["--path", "/srv/*"]] {
        let text = of.report(&words);
        assert!(!text.contains("mixed"), "{words:?}: {text}");
    }
}

#[test]
fn an_impossible_zone_is_ignored_and_its_name_is_escaped() {
    for (offset, when) in [
        (i32::MIN, "1970-01-01T00:00:05+00:00"),
        (i32::MAX, "1970-01-01T00:00:05+00:00"),
        (45_900, "1970-01-01T12:45:05+12:45"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.dio");
        let zone = Zone { offset, name: Some("\x1b[2J\u{202e}x".to_owned()) };
        let header = Header { started: 5_000_000_000, zone: Some(zone), ..Header::default() };
        Writer::new(fs::File::create(&path).unwrap(), &header).unwrap();
        let of = Recording { folder, path };
        let (text, page) = (flat(&of.report(&[])), of.page(&[], "UTC"));
        assert!(text.contains(when) && !text.contains(['\x1b', '\u{202e}']), "{text}");
        assert!(page["when"].as_str().unwrap().starts_with(when), "{}", page["when"]);
        let said = page["zone"]["text"].as_str().unwrap();
        assert!(text.contains(said) && said.contains("host's zone"), "{text}");
    }
}

/// Not a test: [`the_zone_of_a_machine_is_that_of_tz`] runs this with other values of TZ.
#[test]
#[ignore = "prints this machine's zone"]
fn print_zone() {
    println!("zone={:?}", Zone::local().map(|zone| zone.text()));
}

#[test]
fn the_zone_of_a_machine_is_that_of_tz() {
    // Kolkata has no summer time; a POSIX rule has no name; the last one is not a zone.
    for (tz, zone) in [
        ("Asia/Kolkata", "Some(\"Asia/Kolkata (+05:30)\")"),
        ("XXX-3", "Some(\"+03:00\")"),
        ("UTC", "Some(\"UTC\")"),
        ("Nowhere/At_All", "None"),
    ] {
        let out = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "print_zone", "--nocapture"])
            .env("TZ", tz)
            .output()
            .unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        assert!(text.contains(&format!("zone={zone}\n")), "{tz}: {text}");
    }
}
