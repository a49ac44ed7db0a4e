//! What the program writes as JSON fits docs/json.schema.json.

use std::{path::Path, process::Command};

use serde_json::Value;

/// Runs the program in the directory of the recordings; returns the lines of its stdout.
fn lines(words: &[&str]) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    let out = Command::new(env!("CARGO_BIN_EXE_dio-trace"))
        .args(words)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_line_fits_the_schema() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/json.schema.json");
    let schema = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let runs: &[(&str, &[&str])] = &[
        ("report", &["report", "v1.dio", "--json"]),
        ("report", &["report", "v1.dio", "--json", "--by", "cause"]),
        ("request", &["export", "v1.dio", "--format", "jsonl"]),
        ("check", &["check", "--json", ".", "v1.dio", "/nonexistent", "/dev/null"]),
        ("check", &["check", "--json", "--kernel", "7.2", "--no-probe", "v1.dio"]),
        ("cause", &["explain", "--json"]),
        ("cause", &["explain", "--json", "tmpfs"]),
        ("doctor", &["doctor", "--json"]),
    ];
    for (kind, words) in runs {
        let lines = lines(words);
        assert!(lines.iter().any(|line| line["kind"] == *kind), "{words:?}: {lines:?}");
        for line in lines {
            let errors: Vec<String> = schema.iter_errors(&line).map(|e| e.to_string()).collect();
            assert!(errors.is_empty(), "{words:?}: {errors:?}: {line}");
        }
    }
}
