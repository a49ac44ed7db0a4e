//! docs/json.schema.json: made from the structs that are written as JSON, and what is written is held
//! against it.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use crate::{
    check, cli, doctor,
    flow::{explained::ExplainedRequest, lost::LostRow, page_cache::CacheReport, summary::Summary},
    gate,
    output::document::Document,
    testing::golden::{compare, lines},
};

/// The schema of every object of docs/json.md.
fn schema() -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let mut any = Vec::new();
    let mut kind = |kind: &str, schema: schemars::Schema| {
        let mut schema = schema.to_value();
        schema["properties"] = json!({ "kind": { "const": kind } });
        any.push(schema);
    };
    kind("request", generator.subschema_for::<ExplainedRequest>());
    kind("lost_requests", generator.subschema_for::<LostRow>());
    kind("summary", generator.subschema_for::<Summary>());
    kind("report", generator.subschema_for::<Document<'_>>());
    kind("check", generator.subschema_for::<check::Report>());
    kind("check", generator.subschema_for::<check::Failure>());
    kind("cause", generator.subschema_for::<cli::Cause>());
    kind("page_cache", generator.subschema_for::<CacheReport>());
    kind("gate", generator.subschema_for::<gate::Outcome>());
    kind("doctor", generator.subschema_for::<doctor::Report>());
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dio-trace, version 1 of the JSON contract",
        "description": "One line of --json. docs/json.md gives the units and the meaning of null.",
        "anyOf": any,
        "$defs": generator.take_definitions(true),
    })
}

#[test]
fn golden_schema() {
    let text = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    compare("../../../../docs/json.schema.json", &text);
}

#[test]
fn the_lines_of_a_run_fit_the_schema_and_others_do_not() {
    let schema = jsonschema::validator_for(&schema()).unwrap();
    for line in lines() {
        let mut line: Value = serde_json::from_str(&line).unwrap();
        assert!(schema.is_valid(&line), "{line}");
        let fields: Vec<String> = line.as_object().unwrap().keys().cloned().collect();
        for field in fields.iter().filter(|field| *field != "stack") {
            let whole = line[field].clone();
            for other in [None, Some(json!([[1]]))] {
                match other {
                    None => drop(line.as_object_mut().unwrap().remove(field)),
                    Some(other) => line[field] = other,
                }
                assert!(!schema.is_valid(&line), "without {field}: {line}");
                line[field] = whole.clone();
            }
        }
    }
}
