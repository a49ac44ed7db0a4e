//! The suite: runs all scenarios on one kernel and writes suite.json.
//!
//! - [`run`]: the cells, under `attach -p --all` and under `run`
//! - [`scenarios`]: the scenarios that are not made of cells
//! - [`by_hand`]: one scenario by itself, or fixtures for inspection by hand
pub(crate) mod by_hand;
mod run;
mod scenarios;
mod verified;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::Args;

use self::scenarios::Scope;
use crate::{
    guest::{
        check::Judge,
        contract::suite::{Score, Suite},
        direct_io::memory::page_size,
        fixtures::{self, Setup},
        harness::Tried,
        matrix::cells,
        scenarios::{compat, live, released, reports, unprivileged},
    },
    host::cmd::say,
};

#[derive(Args, Clone, Debug)]
pub(crate) struct SuiteArgs {
    #[command(flatten)]
    tried: Tried,
    /// File to write the result to
    #[arg(long)]
    out: PathBuf,
    /// Make only these fixtures
    #[arg(long)]
    setup: Vec<String>,
    /// Also make the rare fixtures, which `cargo xtask test` leaves out to save time
    #[arg(long, conflicts_with = "setup")]
    all_setups: bool,
    /// Which of the scenarios that are not made of cells to run
    #[arg(long, value_enum, default_value_t = Scope::Commands)]
    scenarios: Scope,
    /// Also run the cells under `audit`, each with a file that is deleted right after its request
    #[arg(long)]
    deleted_files: bool,
}

/// The number of mismatches shown; all are in the result.
const SHOWN: usize = 40;

pub(crate) fn main(args: &SuiteArgs) -> Result<u8> {
    let tried = &args.tried;
    let out = args.out.parent().unwrap_or(Path::new("/"));
    let wanted: Vec<&'static Setup> = match &args.setup[..] {
        [] => fixtures::ALL.iter().filter(|setup| args.all_setups || !setup.rare).collect(),
        names => names.iter().map(|name| fixtures::find(name)).collect::<Result<_>>()?,
    };
    let scope = args.scenarios;
    let (mut judge, mut left_out) = (Judge::default(), Vec::new());
    for (number, round) in fixtures::rounds(&wanted).into_iter().enumerate() {
        let mut measured = Vec::new();
        for setup in round {
            let cells = cells::load(setup.name, setup.rows, &tried.series)?;
            let why = match fixtures::lacks(setup) {
                _ if cells.is_empty() => Some(format!("not measured on {}", tried.series)),
                why => why,
            };
            if let Some(why) = why {
                say(format!("{}: left out: {why}", setup.name));
                left_out.push(setup.name.to_owned());
            } else {
                measured.push((setup, cells));
            }
        }
        if !measured.is_empty() {
            run::one_round(tried, out, number + 1, measured, args.deleted_files, &mut judge)?;
        }
    }
    scenarios::mixed_access(tried, out, &mut judge)?;
    for (scenarios, setups) in [
        (scenarios::WITH_JOURNAL, live::SETUPS),
        (scenarios::COMPAT, compat::SETUPS),
        (scenarios::PLAIN, unprivileged::SETUPS),
        (scenarios::REPORTS, reports::SETUPS),
        (scenarios::LET_GO, released::SETUPS),
    ] {
        scenarios::run(tried, out, scope, scenarios, setups, &mut judge)?;
    }
    if args.all_setups {
        scenarios::short_counts(tried, out, &mut judge)?;
    }
    let sum = |part: fn(&Score) -> u64| judge.scores.iter().map(part).sum();
    let result = Suite {
        page_size: page_size() as u64,
        cells: sum(|score| score.cells),
        wrong: sum(|score| score.wrong),
        missed: sum(|score| score.missed),
        extra: sum(|score| score.extra),
        setups: judge.scores,
        left_out,
        complaints: judge.complaints,
    };
    for complaint in result.complaints.iter().take(SHOWN) {
        say(complaint);
    }
    if result.complaints.len() > SHOWN {
        say(format!("and {} more, in the result", result.complaints.len() - SHOWN));
    }
    fs::write(&args.out, serde_json::to_vec_pretty(&result)?)
        .with_context(|| format!("cannot write {}", args.out.display()))?;
    Ok(u8::from(!result.complaints.is_empty()))
}
