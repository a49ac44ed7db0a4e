//! The development tasks of dio-trace: building the eBPF objects, testing on real kernels in virtual
//! machines, benchmarks and documents. `cargo xtask help` lists them.
//!
//! The modules, of which each imports only from those above it:
//!
//! - [`host`]: the developer's machine: packages, builds, other programs
//! - [`bpf`]: builds the eBPF objects
//! - [`cross`]: builds static programs for an architecture
//! - [`vm`]: boots real kernels in QEMU
//! - [`guest`]: the code that runs inside a VM
//! - [`tasks`]: the commands, one file each
#![warn(unreachable_pub)]

mod bpf;
mod cross;
mod guest;
mod host;
mod tasks;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use bpf::rustc;

/// Development tasks of dio-trace: build the eBPF objects, boot kernels, test, measure
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Bpf(tasks::bpf::BpfArgs),
    /// Fetch, list and try the kernels that VMs boot
    #[command(alias = "kernel")]
    Kernels(tasks::kernels::KernelsArgs),
    Vm(Box<tasks::vm::VmArgs>),
    Test(tasks::test::TestArgs),
    Truth(tasks::truth::TruthArgs),
    Stress(tasks::stress::StressArgs),
    Demo(tasks::demo::DemoArgs),
    Bench(tasks::bench::BenchArgs),
    Apps(tasks::apps::AppsArgs),
    Questions(tasks::questions::QuestionsArgs),
    Html(tasks::html::HtmlArgs),
    Fleet(tasks::fleet::FleetArgs),
    Fuzz(tasks::fuzz::FuzzArgs),
    Man(tasks::man::ManArgs),
    Dist(tasks::dist::DistArgs),
    /// Commands that run inside the VM
    #[command(hide = true, subcommand)]
    Guest(guest::Guest),
}

fn main() -> ExitCode {
    if std::env::var_os(rustc::MARK).is_some() {
        return rustc::main();
    }
    let cli = Cli::parse();
    let result = match &cli.task {
        Task::Bpf(args) => tasks::bpf::main(args).map(|()| 0),
        Task::Kernels(args) => tasks::kernels::main(args),
        Task::Vm(args) => tasks::vm::main(args),
        Task::Test(args) => tasks::test::main(args),
        Task::Truth(args) => tasks::truth::main(args),
        Task::Stress(args) => tasks::stress::main(args),
        Task::Demo(args) => tasks::demo::main(args),
        Task::Bench(args) => tasks::bench::main(args).map(|()| 0),
        Task::Apps(args) => tasks::apps::main(args),
        Task::Fuzz(args) => tasks::fuzz::main(args).map(|()| 0),
        Task::Fleet(args) => tasks::fleet::main(args),
        Task::Questions(args) => tasks::questions::main(args),
        Task::Html(args) => tasks::html::main(args).map(|()| 0),
        Task::Man(args) => tasks::man::main(args).map(|()| 0),
        Task::Dist(args) => tasks::dist::main(args),
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
