//! One scenario by itself, and set-ups to look at by hand.
use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    guest::{
        fixtures::{self, Kind, Place, ROOT, Setup},
        harness::Tried,
        matrix::{
            cells::{self, Cell},
            files::fill_folder,
        },
        scenarios::{Check, forecasts},
    },
    host::cmd::say,
};

/// One scenario alone
#[derive(Args, Clone, Debug)]
pub(crate) struct AloneArgs {
    #[command(flatten)]
    tried: Tried,
    /// Folder for what was seen
    #[arg(long)]
    out: PathBuf,
}

/// Makes these set-ups and runs a scenario on them; the exit code.
pub(crate) fn alone(args: &AloneArgs, setups: &[&str], check: Check) -> Result<u8> {
    let wrong = check(&args.tried, &fixtures::make_bare(setups)?, &args.out)?;
    fixtures::clear(Path::new(ROOT))?;
    wrong.iter().for_each(say);
    Ok(u8::from(!wrong.is_empty()))
}

#[derive(Args, Clone, Debug)]
pub(crate) struct MakeArgs {
    /// The kernel series, which chooses the scenarios' column
    #[arg(long)]
    series: String,
    /// The set-ups; those that cannot be at once are an error
    #[arg(required = true)]
    setup: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ForecastArgs {
    /// dio-trace
    #[arg(long)]
    tool: PathBuf,
    #[command(flatten)]
    make: MakeArgs,
}

/// Asks `check` about set-ups whose requests nobody makes; the exit code.
pub(crate) fn forecasts_alone(args: &ForecastArgs) -> Result<u8> {
    let places = made(&args.make)?;
    for (place, cells) in places.iter().filter(|(place, _)| place.path.is_dir()) {
        let bare = fs::read_dir(&place.path)?.next().is_none();
        if bare
            || matches!(place.setup.kind, Kind::Made { .. } | Kind::Memory | Kind::Overlay { .. })
        {
            fill_folder(cells, &place.path)?;
        }
    }
    let (answers, wrong) = forecasts::check(&args.tool, &places)?;
    wrong.iter().for_each(say);
    say(format!("check: {answers} answers, {} wrong", wrong.len()));
    fixtures::clear(Path::new(ROOT))?;
    Ok(u8::from(!wrong.is_empty()))
}

/// Makes set-ups and leaves them, to look at by hand; says where they are, as the workload takes
/// it.
pub(crate) fn make(args: &MakeArgs) -> Result<()> {
    for (place, _) in made(args)? {
        println!("{}:{}", place.setup.name, place.path.display());
    }
    Ok(())
}

fn made(args: &MakeArgs) -> Result<Vec<(Place, Vec<Cell>)>> {
    let wanted = args.setup.iter().map(|name| fixtures::find(name)).collect::<Result<Vec<_>>>()?;
    if fixtures::rounds(&wanted).len() > 1 {
        bail!("these cannot be there at once");
    }
    let load = |setup: &'static Setup| {
        cells::load(setup.name, setup.rows, &args.series).map(|cells| (setup, cells))
    };
    fixtures::make(wanted.into_iter().map(load).collect::<Result<_>>()?, Path::new(ROOT))
}
