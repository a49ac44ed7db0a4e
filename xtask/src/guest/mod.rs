//! What runs inside the VM.
//!
//! - [`suite`]: makes the set-ups, runs the workload under dio-trace, judges what it said
//! - [`setups`], [`cells`], [`cases`]: the scenarios as data
//! - [`workload`], [`request`]: the program that is watched, and its own tally
//! - [`judge`]: the comparison
//! - [`cut`]: a recorder that is killed
//! - [`rings`]: io_uring's rarer ways
//! - [`live`]: the live screen, in a terminal
//! - [`mixed`]: who mixes direct and buffered access
//! - [`innocents`]: who must not be blamed of that
//! - [`family`]: descendants that run before dio-trace attaches
//! - [`released`]: what was traced is let go
//! - [`named`]: names of files in a namespace, of processes and threads
//! - [`memory`]: buffers and mappings
//! - [`fuse`]: a FUSE server for some set-ups
//! - [`shorts`]: what makes a read return less than it was asked for
//! - [`stress`]: thousands of requests at once, counted one by one
//! - [`flight`]: many requests in flight
//! - [`bench`]: what a request costs under a tracer
//! - [`apps`]: real programs, held to counts that are not dio-trace's
//! - [`demo`]: the demonstration
mod apps;
mod bench;
mod cases;
mod cells;
mod cut;
mod demo;
mod family;
mod files;
mod filters;
mod flight;
mod forecasts;
mod fuse;
mod gate;
mod innocents;
mod judge;
mod live;
mod memory;
mod mixed;
mod named;
mod recordings;
mod released;
mod request;
mod rings;
mod setups;
mod shorts;
mod stacks;
mod stress;
mod suite;
mod unprivileged;
mod workload;

pub(crate) use apps::{APPS, App, Counted, Latency, Ops, Row as AppRow};
pub(crate) use bench::{
    Measured,
    load::KINDS,
    rate::{Output, Rate},
    tracers::{TRACERS, Tracer},
    upkeep::{Long, Rest},
};
pub(crate) use stress::judge::Score;

use anyhow::{Result, bail};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Guest {
    /// All scenarios on this kernel
    Suite(suite::SuiteArgs),
    /// Uses a file directly while others do not
    DirectUser(mixed::DirectUserArgs),
    /// Attaching to a process with descendants, alone
    Family(suite::AloneArgs),
    /// One of them
    FamilyMember(family::FamilyArgs),
    /// Who must not be blamed of mixed access, alone
    Innocents(suite::AloneArgs),
    /// Uses files in those ways
    Innocent(innocents::InnocentArgs),
    /// The live screen alone
    Live(suite::AloneArgs),
    /// What `check` says of set-ups, alone
    Forecasts(suite::ForecastArgs),
    /// The ordinary user alone
    OrdinaryUser(suite::AloneArgs),
    /// What was traced is let go, alone
    Released(suite::AloneArgs),
    /// Names, alone
    Named(suite::AloneArgs),
    /// Takes a title, and reads
    NamedUser(named::NamedUserArgs),
    /// Uses a file directly
    ReleasedUser(released::ReleasedUserArgs),
    /// Reads a file from functions that are known
    StackReader(stacks::StackReaderArgs),
    /// Makes set-ups and leaves them
    Make(suite::MakeArgs),
    /// A recorder that is killed, alone
    Cut(suite::AloneArgs),
    /// Reads while it is
    CutLoad(cut::CutLoadArgs),
    /// io_uring's rarer ways, alone
    Rings(suite::AloneArgs),
    /// Uses them
    RingsUser(rings::RingsUserArgs),
    /// Makes the scenarios' requests
    Workload(workload::WorkloadArgs),
    /// Shows a folder by FUSE
    FuseServer(fuse::FuseServerArgs),
    /// Reads that return less than they were asked for
    Shorts(shorts::ShortsArgs),
    /// Makes them
    ShortsReader(shorts::reader::ReaderArgs),
    /// Thousands of requests at once, counted one by one
    Stress(stress::StressArgs),
    /// Makes them
    StressLoad(stress::load::LoadArgs),
    /// What a request costs, under this tracer and that
    Bench(bench::BenchArgs),
    /// Makes the requests
    BenchLoad(bench::load::BenchLoadArgs),
    /// What is lost under load
    Rate(bench::rate::RateArgs),
    /// Makes the load
    RateLoad(bench::rate::RateLoadArgs),
    /// How it starts, rests, and lasts
    Upkeep(bench::upkeep::UpkeepArgs),
    /// Makes the load
    UpkeepLoad(bench::upkeep::UpkeepLoadArgs),
    /// Real programs under it
    Apps(apps::AppsArgs),
    /// Shows dio-trace at work
    Demo(demo::DemoArgs),
    /// The program that the demonstration watches
    DemoReader(demo::ReaderArgs),
}

/// Runs a part; the exit code.
pub(crate) fn main(guest: &Guest) -> Result<u8> {
    // The suite partitions and formats disks.
    if std::env::var_os("DIO_TRACE_VM").is_none() {
        bail!("this runs inside a VM alone: cargo xtask vm, test or demo start it there");
    }
    match guest {
        Guest::Suite(args) => suite::main(args),
        Guest::DirectUser(args) => mixed::direct_user(args).map(|()| 0),
        Guest::Family(args) => suite::alone(args, family::SETUPS, family::check),
        Guest::FamilyMember(args) => family::member(args).map(|()| 0),
        Guest::Innocents(args) => suite::alone(args, innocents::SETUPS, innocents::check),
        Guest::Innocent(args) => innocents::program(args).map(|()| 0),
        Guest::Live(args) => suite::alone(args, live::SETUPS, live::check),
        Guest::Forecasts(args) => suite::forecasts_alone(args),
        Guest::OrdinaryUser(args) => suite::alone(args, unprivileged::SETUPS, unprivileged::check),
        Guest::Cut(args) => suite::alone(args, cut::SETUPS, cut::check),
        Guest::Rings(args) => suite::alone(args, rings::SETUPS, rings::check),
        Guest::RingsUser(args) => rings::user(args).map(|()| 0),
        Guest::CutLoad(args) => cut::load(args).map(|()| 0),
        Guest::Released(args) => suite::alone(args, released::SETUPS, released::check),
        Guest::ReleasedUser(args) => released::user(args).map(|()| 0),
        Guest::Named(args) => suite::alone(args, unprivileged::SETUPS, named::check),
        Guest::NamedUser(args) => named::user(args).map(|()| 0),
        Guest::StackReader(args) => stacks::reader(args).map(|()| 0),
        Guest::Make(args) => suite::make(args).map(|()| 0),
        Guest::Workload(args) => workload::main(args).map(|()| 0),
        Guest::FuseServer(args) => fuse::main(args).map(|()| 0),
        Guest::Shorts(args) => shorts::main(args),
        Guest::ShortsReader(args) => shorts::reader::main(args).map(|()| 0),
        Guest::Stress(args) => stress::main(args),
        Guest::StressLoad(args) => stress::load::main(args).map(|()| 0),
        Guest::Bench(args) => bench::main(args).map(|()| 0),
        Guest::BenchLoad(args) => bench::load::main(args).map(|()| 0),
        Guest::Rate(args) => bench::rate::main(args).map(|()| 0),
        Guest::RateLoad(args) => bench::rate::load(args).map(|()| 0),
        Guest::Upkeep(args) => bench::upkeep::main(args).map(|()| 0),
        Guest::UpkeepLoad(args) => bench::upkeep::load(args).map(|()| 0),
        Guest::Apps(args) => apps::main(args).map(|()| 0),
        Guest::Demo(args) => demo::main(args),
        Guest::DemoReader(args) => demo::reader(args).map(|()| 0),
    }
}
