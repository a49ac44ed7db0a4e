//! What runs inside the VM.
//!
//! - [`contract`], [`tally`]: the files that two sides exchange
//! - [`direct_io`]: how requests are made
//! - [`matrix`], [`fixtures`]: the scenarios as data, and the file systems that they run on
//! - [`harness`]: dio-trace on a program; [`check`]: the comparison
//! - [`workload`]: the program that makes the cells' requests
//! - [`demo`]: the demonstration
//! - [`scenarios`]: what the cells cannot show
//! - [`suite`]: all of that on one kernel
//! - [`bench`]: what a request costs under a tracer
//! - [`apps`]: real programs, held to counts that are not dio-trace's
//! - [`stress`]: thousands of requests at once, counted one by one
pub(crate) mod apps;
pub(crate) mod bench;
mod check;
pub(crate) mod contract;
mod demo;
mod direct_io;
mod fixtures;
mod harness;
mod matrix;
mod scenarios;
mod stress;
mod suite;
mod tally;
mod workload;

use anyhow::{Result, bail};
use clap::Subcommand;

use fixtures::fuse;
use scenarios::{
    cut, family, innocents, live, mixed, named, released, rings, shorts, stacks, unprivileged,
};
use suite::by_hand;

#[derive(Debug, Subcommand)]
pub(crate) enum Guest {
    /// All scenarios on this kernel
    Suite(suite::SuiteArgs),
    /// Uses a file directly while others do not
    DirectUser(mixed::DirectUserArgs),
    /// Attaching to a process with descendants, alone
    Family(by_hand::AloneArgs),
    /// One of them
    FamilyMember(family::FamilyArgs),
    /// Who must not be blamed of mixed access, alone
    Innocents(by_hand::AloneArgs),
    /// Uses files in those ways
    Innocent(innocents::InnocentArgs),
    /// The live screen alone
    Live(by_hand::AloneArgs),
    /// What `check` says of set-ups, alone
    Forecasts(by_hand::ForecastArgs),
    /// The ordinary user alone
    OrdinaryUser(by_hand::AloneArgs),
    /// What was traced is let go, alone
    Released(by_hand::AloneArgs),
    /// Names, alone
    Named(by_hand::AloneArgs),
    /// Takes a title, and reads
    NamedUser(named::NamedUserArgs),
    /// Uses a file directly
    ReleasedUser(released::ReleasedUserArgs),
    /// Reads a file from functions that are known
    StackReader(stacks::StackReaderArgs),
    /// Makes set-ups and leaves them
    Make(by_hand::MakeArgs),
    /// A recorder that is killed, alone
    Cut(by_hand::AloneArgs),
    /// Reads while it is
    CutLoad(cut::CutLoadArgs),
    /// io_uring's rarer ways, alone
    Rings(by_hand::AloneArgs),
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
    Bench(bench::cost::BenchArgs),
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
        Guest::Family(args) => by_hand::alone(args, family::SETUPS, family::check),
        Guest::FamilyMember(args) => family::member(args).map(|()| 0),
        Guest::Innocents(args) => by_hand::alone(args, innocents::SETUPS, innocents::check),
        Guest::Innocent(args) => innocents::program(args).map(|()| 0),
        Guest::Live(args) => by_hand::alone(args, live::SETUPS, live::check),
        Guest::Forecasts(args) => by_hand::forecasts_alone(args),
        Guest::OrdinaryUser(args) => {
            by_hand::alone(args, unprivileged::SETUPS, unprivileged::check)
        }
        Guest::Cut(args) => by_hand::alone(args, cut::SETUPS, cut::check),
        Guest::Rings(args) => by_hand::alone(args, rings::SETUPS, rings::check),
        Guest::RingsUser(args) => rings::user(args).map(|()| 0),
        Guest::CutLoad(args) => cut::load(args).map(|()| 0),
        Guest::Released(args) => by_hand::alone(args, released::SETUPS, released::check),
        Guest::ReleasedUser(args) => released::user(args).map(|()| 0),
        Guest::Named(args) => by_hand::alone(args, unprivileged::SETUPS, named::check),
        Guest::NamedUser(args) => named::user(args).map(|()| 0),
        Guest::StackReader(args) => stacks::reader(args).map(|()| 0),
        Guest::Make(args) => by_hand::make(args).map(|()| 0),
        Guest::Workload(args) => workload::main(args).map(|()| 0),
        Guest::FuseServer(args) => fuse::main(args).map(|()| 0),
        Guest::Shorts(args) => shorts::main(args),
        Guest::ShortsReader(args) => shorts::reader::main(args).map(|()| 0),
        Guest::Stress(args) => stress::main(args),
        Guest::StressLoad(args) => stress::load::main(args).map(|()| 0),
        Guest::Bench(args) => bench::cost::main(args).map(|()| 0),
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
