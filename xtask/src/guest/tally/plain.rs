//! The tally of a scenario whose requests are compared one by one: each must be reported once.
use serde::{Deserialize, Serialize};

/// A request and its result, from the tally or as dio-trace reports it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Line {
    pub(crate) path: String,
    pub(crate) op: String,
    pub(crate) offset: i64,
    pub(crate) len: u64,
    pub(crate) ret: i64,
}

/// The mismatches: requests that only the tally or only dio-trace has.
pub(crate) fn compare(mut tally: Vec<Line>, reported: Vec<Line>) -> Vec<String> {
    let mut wrong = Vec::new();
    for line in reported {
        match tally.iter().position(|other| *other == line) {
            Some(at) => {
                tally.swap_remove(at);
            }
            None => wrong.push(format!("not requested: {line:?}")),
        }
    }
    wrong.extend(tally.iter().map(|line| format!("not reported: {line:?}")));
    wrong
}
