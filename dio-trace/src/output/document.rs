//! The JSON document of a recording: what `report --json` writes (docs/json.md), and the data of
//! the HTML page.

use serde::Serialize;

use crate::{
    flow::{explained::SCHEMA, group::Group, summary::Summary},
    recording::{
        format::Header,
        replay::{Integrity, Replay},
    },
};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Report"))]
pub struct Document<'a> {
    v: u32,
    kind: &'static str,
    file: String,
    header: &'a Header,
    bytes: u64,
    began: u64,
    lasted_ns: u64,
    requests_recorded: u64,
    requests_in_window: u64,
    by_requests: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    only: Option<String>,
    dropped: u64,
    complete: bool,
    ended: Option<&'a str>,
    damaged_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<String>,
    damage: Vec<(u64, u64, &'a str)>,
    summary: &'a Summary,
    pub groups: Option<Vec<Group>>,
}

impl<'a> Document<'a> {
    /// The document of a recording. `name` is its path, already escaped.
    #[must_use]
    pub fn new(
        name: &str,
        replayed: &Replay,
        header: &'a Header,
        cut: &'a Integrity,
        summary: &'a Summary,
    ) -> Self {
        Self {
            v: SCHEMA,
            kind: "report",
            file: name.to_owned(),
            header,
            bytes: replayed.bytes,
            began: replayed.span.began,
            lasted_ns: replayed.span.lasted_ns,
            requests_recorded: replayed.recorded,
            requests_in_window: replayed.shown,
            by_requests: replayed.by_requests,
            only: replayed.only.clone(),
            dropped: replayed.dropped,
            complete: cut.end.is_some() && cut.damage.is_empty(),
            ended: cut.end.as_ref().map(|end| end.why.as_str()),
            damaged_bytes: cut.damaged_bytes,
            left_out: replayed.left_out.text(),
            damage: cut.damage.iter().map(|d| (d.offset, d.bytes, d.what.as_str())).collect(),
            summary,
            groups: None,
        }
    }
}
