//! The tally of a scenario whose requests are compared one by one: each must be reported once.
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{
    guest::{
        direct_io::files::fill,
        fixtures::Place,
        harness::{Traces, Tried, not_ended_with, requests},
    },
    host::cmd::text,
};

/// Arguments of the program of such a scenario.
#[derive(Args, Clone, Debug)]
pub(crate) struct UserArgs {
    /// A file to make requests of
    #[arg(long, required = true)]
    pub(crate) file: Vec<PathBuf>,
    /// File to write the tally to
    #[arg(long)]
    tally: PathBuf,
}

impl UserArgs {
    /// Writes what the program requested, for [`traced`].
    pub(crate) fn write(&self, tally: &[Line]) -> Result<()> {
        fs::write(&self.tally, serde_json::to_vec(tally)?).context("cannot write the tally")
    }
}

/// A request and its result, from the tally or as dio-trace reports it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Line {
    pub(crate) path: String,
    pub(crate) op: String,
    pub(crate) offset: i64,
    pub(crate) len: u64,
    pub(crate) ret: i64,
}

/// What a program requested, and how dio-trace told it.
pub(crate) struct Traced {
    pub(crate) tally: Vec<Line>,
    /// dio-trace's JSON.
    pub(crate) talk: String,
    /// The mismatches between the two.
    pub(crate) wrong: Vec<String>,
}

/// Runs the command `NAME-user` of `xtask guest` under dio-trace, on a file of `bytes` bytes in each
/// of the first two places.
pub(crate) fn traced(
    tried: &Tried,
    places: &[Place],
    out: &Path,
    name: &str,
    bytes: usize,
) -> Result<Traced> {
    let traces = Traces::new(out, name);
    let me = std::env::current_exe().context("xtask cannot find itself")?;
    let mut command = Command::new(&tried.tool);
    command.args(["run", "--json", "--all", "--attach", &tried.attach, "--"]);
    command.arg(me).args(["guest", &format!("{name}-user"), "--tally", text(&traces.tally)?]);
    for place in &places[..2] {
        let file = place.path.join(name);
        fill(&file, bytes)?;
        command.args(["--file", text(&file)?]);
    }
    let output = command.output().context("cannot start dio-trace")?;
    let talk = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut wrong: Vec<String> = not_ended_with(&output, 0).into_iter().collect();
    let tally: Vec<Line> = serde_json::from_slice(&fs::read(&traces.tally)?)?;
    wrong.extend(compare(tally.clone(), requests(&talk)?));
    Ok(Traced { tally, talk, wrong })
}

/// The mismatches: requests that only the tally or only dio-trace has.
fn compare(mut tally: Vec<Line>, reported: Vec<Line>) -> Vec<String> {
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
