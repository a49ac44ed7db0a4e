//! Tests that all outputs of a recording with an alignment probe show it as a note and its requests
//! as no findings, whether all requests were recorded or only findings.

use std::{fs, fs::File, path::PathBuf, process::Command};

use dio_trace::recording::format::{
    CounterFact, End, Fact, FileFact, Header, Recorded, TaskFact, TotalsFact, Writer,
};
use dio_trace_common::{
    abi::{API_READ, Counter, CounterKey, Request, Stat},
    evidence::{Evidence, seen},
    verdict::decide,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PID: u32 = 4120;
const INO: u64 = 77;
const MS: u64 = 1_000_000;
/// When the misaligned reads are made, in ns after the others: nothing is held back that long.
const LATER: u64 = 5_000 * MS;

/// A read that works, or ends with EINVAL.
fn read(pos: i64, len: u64, user: u64, works: bool) -> Request {
    let bytes = if works { len } else { 0 };
    Request {
        nr_segs: 1,
        user,
        pos,
        len,
        ret: if works { len as i64 } else { -22 },
        size_begin: 1 << 30,
        size_end: 1 << 30,
        magic: 0xef53,
        api: API_READ,
        evidence: Evidence {
            attempts: 1,
            direct_bytes: bytes,
            seen: seen::IOMAP_DIO,
            ..Evidence::default()
        },
        ..Request::EMPTY
    }
}

/// QEMU's probe on a device with sectors of 4096 bytes, then work, and later two misaligned reads.
fn requests() -> Vec<Request> {
    let mut requests: Vec<Request> =
        [1, 512, 1024, 2048].into_iter().map(|len| read(0, len, 0x1000, false)).collect();
    requests.push(read(0, 4096, 0x1000, true));
    requests.push(read(0, 4096, 0x1001, false));
    requests.push(read(0, 4096, 0x1200, true));
    requests.extend((1..9).map(|n| read(n * 4096, 4096, 0x1000, true)));
    requests.extend((1..3).map(|n| read(n * 100, 4096, 0x1000, false)));
    requests
}

/// A folder with the recording `r.dio`.
fn recording(all: bool) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let header = Header {
        kernel: "6.12".to_owned(),
        attach: "fentry".to_owned(),
        attached: vec!["vfs_read".to_owned()],
        all,
        ..Header::default()
    };
    let mut writer =
        Writer::new(File::create(folder.path().join("r.dio")).unwrap(), &header).unwrap();
    let info = json!({
        "path": "/images/disk.img", "fs": "xfs", "options": "rw", "dev": "8:1",
        "facts": {"dio_align": [512, 4096]}, "below": null,
    });
    let info = serde_json::from_value(info).unwrap();
    let file = FileFact { file: 1, ino: INO, dev: 8 << 20 | 1, generation: 0, info };
    writer.fact(&Fact::File(Box::new(file))).unwrap();
    let comm = b"qemu-img".to_vec();
    writer.fact(&Fact::Task(TaskFact { task: 1, pid: PID, tid: PID, comm })).unwrap();
    let mut counters: Vec<(CounterKey, Counter)> = Vec::new();
    for (n, mut request) in (1..).zip(requests()) {
        let later = if request.pos % 4096 == 0 { 0 } else { LATER };
        request.end_ns = later + n * MS;
        request.begin_ns = request.end_ns - 50_000;
        (request.file.inode, request.file.ino, request.file.dev) = (1, INO, 8 << 20 | 1);
        request.task.tgid = PID;
        let decision = decide(&request.facts(), &request.evidence);
        let key = CounterKey::of(&request, &decision);
        if !counters.iter().any(|(known, _)| *known == key) {
            counters.push((key, Counter::ZERO));
        }
        let counter = counters.iter_mut().find(|(known, _)| *known == key).unwrap();
        counter.1.count(&request, &decision);
        if all || decision.finding {
            let recorded = Recorded { request, file: 1, task: 1, extents: None, stack: 0 };
            writer.request(&recorded).unwrap();
        }
    }
    writer.totals(totals(&counters)).unwrap();
    writer.end(&End { time: 2 * LATER, why: End::DONE.to_owned() }).unwrap();
    folder
}

fn totals(counters: &[(CounterKey, Counter)]) -> TotalsFact {
    let ended: u64 = counters.iter().map(|(_, counter)| counter.requests).sum();
    let count = |stat: &Stat| if matches!(stat, Stat::Begun | Stat::Ended) { ended } else { 0 };
    TotalsFact {
        time: 2 * LATER,
        stats: Stat::ALL.iter().map(|(stat, name)| ((*name).to_owned(), count(stat))).collect(),
        counters: counters.iter().map(|(key, c)| CounterFact::new(1, key, c)).collect(),
        ..TotalsFact::default()
    }
}

struct Shown {
    folder: TempDir,
}

impl Shown {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn says(&self, verb: &str, words: &[&str]) -> String {
        let recording = self.path("r.dio");
        let mut command = Command::new(env!("CARGO_BIN_EXE_dio-trace"));
        command.args([verb, recording.to_str().unwrap()]).args(words);
        let out = command.env("COLUMNS", "80").output().unwrap();
        assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.says("report", &[&["--json"], words].concat())).unwrap()
    }

    /// The data of the HTML page.
    fn page(&self) -> Value {
        let page = self.path("page.html");
        self.says("report", &["--html", page.to_str().unwrap()]);
        let text = fs::read_to_string(page).unwrap();
        let (_, data) = text.split_once("id=\"data\">").unwrap();
        serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap()
    }
}

/// The sum of a number over rows.
fn sum(rows: &Value, name: &str) -> u64 {
    rows.as_array().unwrap().iter().map(|row| row[name].as_u64().unwrap()).sum()
}

/// Checks the numbers of requests and findings in every output.
fn agree(of: &Shown, requests: u64) {
    let json = of.json(&[]);
    let summary = &json["summary"];
    assert_eq!(summary["findings"], 2);
    assert_eq!(summary["requests"]["refused"], 7);
    assert_eq!(sum(&summary["files"], "requests"), requests);
    assert_eq!(sum(&summary["files"], "findings"), 2);
    for by in ["process", "file", "fs", "verdict"] {
        let groups = &of.json(&["--by", by])["groups"];
        assert_eq!((sum(groups, "requests"), sum(groups, "findings")), (requests, 2), "{by}");
    }
    let causes = &of.json(&["--by", "cause"])["groups"];
    assert_eq!((causes[0]["name"].as_str(), sum(causes, "requests")), (Some("misaligned"), 2));
    let page = of.page();
    for name in ["files", "processes", "file_systems"] {
        assert_eq!(sum(&page[name]["rows"], "findings"), 2, "{name}");
    }
    assert_eq!(sum(&page["findings"]["rows"], "requests"), 2);
    assert_eq!(sum(&page["verdicts"], "findings"), 2);
    assert_eq!(sum(&page["times"]["slices"], "findings"), 2);
    assert_eq!(sum(&of.json(&["--by", "time"])["groups"], "findings"), 2);
    assert_eq!(page["report"]["summary"]["alignment_probes"], summary["alignment_probes"]);
}

fn check(all: bool, worked: &Value, ending: &str) {
    let of = Shown { folder: recording(all) };
    agree(&of, requests().len() as u64);
    let json = of.json(&[]);
    let rows = json["summary"]["alignment_probes"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[0]["requests"], &rows[0]["worked"]), (1, &json!(5), worked));
    assert_eq!((&rows[0]["pid"], &rows[0]["comm"]), (&json!(PID), &json!("qemu-img")));
    let text = of.says("report", &[]).split_whitespace().collect::<Vec<_>>().join(" ");
    let note = "note: /images/disk.img: of qemu-img/4120, alignment probe: 5 reads at offset 0 with \
                lengths 1 to 4096 and misaligned buffers were refused with EINVAL";
    assert!(text.contains(&format!("{note}{ending}")), "{text}");
    assert!(text.contains("2 of 17 requests have a finding. By verdict: 10 direct, 7 refused."));
    assert_eq!(text.matches("qemu-img/4120 R ").count(), 2, "{text}");
    // Every request is exported once: those of the probe in order, with its cause and no remedy.
    let export = of.says("export", &["--format", "jsonl"]);
    let lines: Vec<Value> =
        export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let steps: Vec<&Value> =
        lines.iter().filter(|line| line["cause"] == "alignment-probe").collect();
    let lengths: Vec<u64> = steps.iter().map(|line| line["len"].as_u64().unwrap()).collect();
    assert_eq!(lengths, [1, 512, 1024, 2048, 4096]);
    assert!(steps.iter().all(|line| line["fix"].is_null() && line["finding"] == false));
    assert_eq!(lines.len(), 1 + if all { 17 } else { 7 });
    // A report of a part of the recording agrees, too: it counts the requests.
    let part = of.json(&["--only", "refused"]);
    assert_eq!(
        (&part["summary"]["findings"], &part["summary"]["requests"]["refused"]),
        (&json!(2), &json!(7))
    );
    let thread = of.json(&["--tid", &PID.to_string()]);
    assert_eq!((&thread["by_requests"], &thread["summary"]["findings"]), (&json!(true), &json!(2)));
    assert_eq!(thread["summary"]["alignment_probes"][0]["requests"], 5);
}

#[test]
fn a_probe_is_a_note_where_all_was_recorded() {
    check(true, &json!(4096), ", then one of 4096 worked");
}

#[test]
fn a_probe_is_a_note_where_findings_were_recorded() {
    check(false, &Value::Null, "; other reads of the file worked");
}
