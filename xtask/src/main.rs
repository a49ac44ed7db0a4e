//! The project's own tasks. `cargo xtask help` lists them.
//!
//! - [`bpf`], [`rustc`], [`strip`]: the eBPF object
//! - [`kernels`], [`initrd`], [`qemu`], [`vm`]: real kernels to test in
//! - [`test`], [`demo`]: the two commands of the README
//! - [`truth`]: every scenario on every kernel; [`suites`], [`steps`]: what it shares with the test
//! - [`stress`]: thousands of requests at once
//! - [`papers`]: man pages and completions
//! - [`bench`]: figures of this machine; [`part`]: what of them runs in a guest
//! - [`apps`]: real programs under dio-trace
//! - [`fleet`], [`duckdb`]: the queries of docs/fleet.md
//! - [`fuzz`]: bytes that nobody meant
//! - [`html`], [`browser`]: the page of a report, clicked through
//! - [`host`], [`apt`], [`pypi`], [`build`], [`places`], [`cmd`]: what they all stand on
//! - [`guest`]: what runs inside the VM
#![warn(unreachable_pub)]

mod apps;
mod apt;
mod bench;
mod bpf;
mod browser;
mod build;
mod cmd;
mod demo;
mod duckdb;
mod fleet;
mod fuzz;
mod guest;
mod host;
mod html;
mod initrd;
mod kernels;
mod papers;
mod part;
mod places;
mod pypi;
mod qemu;
mod rustc;
mod steps;
mod stress;
mod strip;
mod suites;
mod test;
mod truth;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// dio-trace's own tasks: build the eBPF object, boot kernels, test, demo
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Bpf(bpf::BpfArgs),
    /// Fetch and list the kernels that VMs boot
    Kernel(kernels::KernelArgs),
    Vm(Box<vm::VmArgs>),
    Test(test::TestArgs),
    Truth(truth::TruthArgs),
    Stress(stress::StressArgs),
    Demo(demo::DemoArgs),
    Bench(bench::BenchArgs),
    Apps(apps::AppsArgs),
    Html(html::HtmlArgs),
    Fleet(fleet::FleetArgs),
    Fuzz(fuzz::FuzzArgs),
    Man(papers::ManArgs),
    /// What runs inside the VM
    #[command(hide = true, subcommand)]
    Guest(guest::Guest),
}

fn main() -> ExitCode {
    if std::env::var_os(rustc::MARK).is_some() {
        return rustc::main();
    }
    let cli = Cli::parse();
    let result = match &cli.task {
        Task::Bpf(args) => bpf::main(args).map(|()| 0),
        Task::Kernel(args) => kernels::main(args).map(|()| 0),
        Task::Vm(args) => vm::main(args),
        Task::Test(args) => test::main(args),
        Task::Truth(args) => truth::main(args),
        Task::Stress(args) => stress::main(args),
        Task::Demo(args) => demo::main(args),
        Task::Bench(args) => bench::main(args).map(|()| 0),
        Task::Apps(args) => apps::main(args),
        Task::Fuzz(args) => fuzz::main(args).map(|()| 0),
        Task::Fleet(args) => fleet::main(args).map(|()| 0),
        Task::Html(args) => html::main(args).map(|()| 0),
        Task::Man(args) => papers::main(args).map(|()| 0),
        Task::Guest(part) => guest::main(part),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("xtask: error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
