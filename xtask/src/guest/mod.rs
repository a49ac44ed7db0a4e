//! The part of xtask that runs inside the test VM: it makes requests, runs dio-trace on them and
//! checks what dio-trace reports.
//!
//! A *cell* is one system call on one kernel; a *fixture* is the file system or device that it is
//! made on.
//!
//! - [`contract`], [`tally`]: the formats of the files that host, guest and workload exchange
//! - [`direct_io`]: makes requests by every API
//! - [`matrix`], [`fixtures`]: the cells as data, and the file systems that they run on
//! - [`harness`]: runs dio-trace on a program; [`check`]: compares its report with the truth
//! - [`workload`]: the program that makes the cells' requests
//! - [`demo`]: the demonstration
//! - [`load`]: loads the eBPF programs on one kernel
//! - [`prometheus`]: a server scrapes dio-trace
//! - [`scenarios`]: tests of what cells cannot show
//! - [`suite`]: runs all of these on one kernel
//! - [`bench`]: measures what a request costs under a tracer
//! - [`apps`]: traces real programs and compares with counts that are not dio-trace's
//! - [`stress`]: makes thousands of requests at once and checks each of them
pub(crate) mod apps;
pub(crate) mod bench;
mod check;
pub(crate) mod contract;
mod demo;
mod direct_io;
mod fixtures;
mod harness;
mod load;
mod matrix;
mod prometheus;
mod questions;
mod scenarios;
mod stress;
mod suite;
mod tally;
mod workload;

use anyhow::{Result, bail};
use clap::Subcommand;

use fixtures::fuse;
use scenarios::{
    blind, compat, cut, family, innocents, live, mixed, named, page_cache, released, reports,
    rings, shorts, stacks, unasked, unprivileged,
};
use suite::by_hand;
use tally::plain::UserArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum Guest {
    /// Run all scenarios on this kernel
    Suite(suite::SuiteArgs),
    /// Read a file with O_DIRECT while other processes use it through the page cache
    DirectUser(mixed::DirectUserArgs),
    /// Run only the scenario of attaching to a process with descendants
    Family(by_hand::AloneArgs),
    /// A process of the `family` scenario
    FamilyMember(family::FamilyArgs),
    /// Run only the scenario of processes that must not be reported for mixed access
    Innocents(by_hand::AloneArgs),
    /// The program of the `innocents` scenario
    Innocent(innocents::InnocentArgs),
    /// Run only the scenario of the live screen
    Live(by_hand::AloneArgs),
    /// Compare only what `dio-trace check` predicts for fixtures
    Forecasts(by_hand::ForecastArgs),
    /// Run only the scenario of an unprivileged user
    OrdinaryUser(by_hand::AloneArgs),
    /// Run only the scenario of releasing what was traced
    Released(by_hand::AloneArgs),
    /// Run only the scenario of process and file names
    Named(by_hand::AloneArgs),
    /// Set a process title and read
    NamedUser(named::NamedUserArgs),
    /// Read a file with O_DIRECT, for the `released` scenario
    ReleasedUser(released::ReleasedUserArgs),
    /// Read a file from functions whose names the `stack` scenario expects
    StackReader(stacks::StackReaderArgs),
    /// Make fixtures and leave them mounted
    Make(by_hand::MakeArgs),
    /// Run only the scenario of a tracer that does not see its own test requests
    Blind(by_hand::AloneArgs),
    /// Run only the scenario of a recorder that is killed
    Cut(by_hand::AloneArgs),
    /// The program that reads while the recorder is killed
    CutLoad(cut::CutLoadArgs),
    /// Run only the scenario of io_uring's rarer features
    Rings(by_hand::AloneArgs),
    /// Run only the scenario of files that are used without O_DIRECT
    Unasked(by_hand::AloneArgs),
    /// The program of the `unasked` scenario
    UnaskedUser(unasked::UnaskedUserArgs),
    /// Run only the scenario of `dio-trace cache`
    PageCache(by_hand::AloneArgs),
    /// The program of the `page-cache` scenario
    PageCacheUser(page_cache::PageCacheUserArgs),
    /// Run only the scenario of 32-bit programs
    Compat(by_hand::AloneArgs),
    /// The program of the `compat` scenario
    CompatUser(UserArgs),
    /// The program of the `rings` scenario
    RingsUser(UserArgs),
    /// Run only the scenario of public reports
    Reports(by_hand::AloneArgs),
    /// Make requests from buffers that cannot be pinned, for the `reports` scenario
    ReportsUser(reports::memory::ReportsUserArgs),
    /// Write with RWF_NOWAIT, for the `reports` scenario
    ReportsNowait(reports::nowait::ReportsNowaitArgs),
    /// Write with flags of the call, for the `reports` scenario
    ReportsFlags(reports::flags::ReportsFlagsArgs),
    /// Write a buffer that changes, for the `reports` scenario
    ReportsStable(reports::stable::ReportsStableArgs),
    /// Make requests that would have to wait, for the `reports` scenario
    ReportsWaits(reports::waits::ReportsWaitsArgs),
    /// Try alignments out as QEMU does, for the `reports` scenario
    ReportsProbing(reports::probing::ReportsProbingArgs),
    /// Write vectors of odd segments, for the `reports` scenario
    ReportsSegments(reports::segments::ReportsSegmentsArgs),
    /// Make the cells' requests
    Workload(workload::WorkloadArgs),
    /// Serve a folder over FUSE
    FuseServer(fuse::FuseServerArgs),
    /// Check reads that return less than they asked for
    Shorts(shorts::ShortsArgs),
    /// The program of the `shorts` check
    ShortsReader(shorts::reader::ReaderArgs),
    /// Make thousands of requests at once and check each of them
    Stress(stress::StressArgs),
    /// The program of the `stress` check
    StressLoad(stress::load::LoadArgs),
    /// Measure what a request costs under different tracers
    Bench(bench::cost::BenchArgs),
    /// The program of the `bench` measurement
    BenchLoad(bench::load::BenchLoadArgs),
    /// Measure how many events are lost under load
    Rate(bench::rate::RateArgs),
    /// The program of the `rate` measurement
    RateLoad(bench::rate::RateLoadArgs),
    /// Measure dio-trace's start, its idle cost, and its memory over many requests
    Upkeep(bench::upkeep::UpkeepArgs),
    /// The program of the `upkeep` measurement
    UpkeepLoad(bench::upkeep::UpkeepLoadArgs),
    /// Trace real programs and compare the counts
    Apps(apps::AppsArgs),
    /// Load and attach every eBPF program
    Load(load::LoadArgs),
    /// Answer a question of docs/questions.md
    Questions(questions::QuestionsArgs),
    /// Compare what Prometheus has scraped with the summary
    Prometheus(prometheus::PrometheusArgs),
    /// A program of docs/questions.md
    QuestionsReader(questions::QuestionsReaderArgs),
    /// Show dio-trace at work
    Demo(demo::DemoArgs),
    /// The program that the demonstration traces
    DemoReader(demo::ReaderArgs),
}

/// Runs a subcommand and returns its exit code.
pub(crate) fn main(guest: &Guest) -> Result<u8> {
    // The suite partitions and formats disks.
    if std::env::var_os("DIO_TRACE_VM").is_none() {
        bail!("this runs only inside a VM: cargo xtask vm, test or demo start it there");
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
        Guest::Reports(args) => by_hand::alone(args, reports::SETUPS, reports::check),
        Guest::ReportsNowait(args) => reports::nowait::program(args).map(|()| 0),
        Guest::ReportsFlags(args) => reports::flags::program(args).map(|()| 0),
        Guest::ReportsStable(args) => reports::stable::program(args).map(|()| 0),
        Guest::ReportsWaits(args) => reports::waits::program(args).map(|()| 0),
        Guest::ReportsProbing(args) => reports::probing::program(args).map(|()| 0),
        Guest::ReportsSegments(args) => reports::segments::program(args).map(|()| 0),
        Guest::ReportsUser(args) => reports::memory::program(args).map(|()| 0),
        Guest::OrdinaryUser(args) => {
            by_hand::alone(args, unprivileged::SETUPS, unprivileged::check)
        }
        Guest::Blind(args) => by_hand::alone(args, unprivileged::SETUPS, blind::check),
        Guest::Cut(args) => by_hand::alone(args, cut::SETUPS, cut::check),
        Guest::Rings(args) => by_hand::alone(args, rings::SETUPS, rings::check),
        Guest::Unasked(args) => by_hand::alone(args, unasked::SETUPS, unasked::check),
        Guest::UnaskedUser(args) => unasked::user(args).map(|()| 0),
        Guest::PageCache(args) => by_hand::alone(args, page_cache::SETUPS, page_cache::check),
        Guest::PageCacheUser(args) => page_cache::user(args).map(|()| 0),
        Guest::Compat(args) => by_hand::alone(args, compat::SETUPS, compat::check),
        Guest::CompatUser(args) => compat::user(args).map(|()| 0),
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
        Guest::Load(args) => load::main(args).map(|()| 0),
        Guest::Questions(args) => questions::main(args),
        Guest::Prometheus(args) => prometheus::main(args),
        Guest::QuestionsReader(args) => questions::reader(args).map(|()| 0),
        Guest::Demo(args) => demo::main(args),
        Guest::DemoReader(args) => demo::reader(args).map(|()| 0),
    }
}
