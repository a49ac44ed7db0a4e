//! Runs one scenario by itself, and makes fixtures for inspection by hand.
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

/// Arguments of a scenario that runs by itself
#[derive(Args, Clone, Debug)]
pub(crate) struct AloneArgs {
    #[command(flatten)]
    tried: Tried,
    /// Folder for the output of dio-trace
    #[arg(long)]
    out: PathBuf,
}

/// Makes fixtures and runs a scenario on them; returns the exit code.
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
    /// The fixtures; it is an error if they cannot exist at the same time
    #[arg(required = true)]
    setup: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ForecastArgs {
    /// Path of the dio-trace binary
    #[arg(long)]
    tool: PathBuf,
    #[command(flatten)]
    make: MakeArgs,
}

/// Checks what `dio-trace check` predicts for fixtures, without making the requests; returns the
/// exit code.
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

/// Makes fixtures and leaves them mounted for inspection by hand. Prints NAME:PATH of each, as the
/// workload's `--place` takes it.
pub(crate) fn make(args: &MakeArgs) -> Result<()> {
    for (place, _) in made(args)? {
        println!("{}:{}", place.setup.name, place.path.display());
    }
    Ok(())
}

fn made(args: &MakeArgs) -> Result<Vec<(Place, Vec<Cell>)>> {
    let wanted = args.setup.iter().map(|name| fixtures::find(name)).collect::<Result<Vec<_>>>()?;
    if fixtures::rounds(&wanted).len() > 1 {
        bail!("these fixtures cannot exist at the same time");
    }
    let load = |setup: &'static Setup| {
        cells::load(setup.name, setup.rows, &args.series).map(|cells| (setup, cells))
    };
    fixtures::make(wanted.into_iter().map(load).collect::<Result<_>>()?, Path::new(ROOT))
}
