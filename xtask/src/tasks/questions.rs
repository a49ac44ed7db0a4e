//! `cargo xtask questions`: asks dio-trace what users ask, on real kernels, and writes
//! docs/questions.md.
use std::{fmt::Write as _, fs, time::Duration};

use anyhow::{Context, Result};
use clap::Args;

use crate::{
    guest::{apps::table::POSTGRES, contract::questions::Answer},
    host::{cmd::text, packages, paths, pypi},
    vm::{guest_part::Part, kernels},
};

/// Answer three questions of users on real kernels
#[derive(Args)]
pub(crate) struct QuestionsArgs {
    /// Write docs/questions.md
    #[arg(long)]
    write: bool,
}

/// A question, the kernels that it is asked on, and what is asked.
struct Question {
    title: &'static str,
    /// As `cargo xtask guest questions` names it.
    name: &'static str,
    kernels: &'static [&'static str],
    setting: &'static str,
}

const QUESTIONS: &[Question] = &[
    Question {
        title: "Is my PostgreSQL direct?",
        name: "postgres",
        kernels: &["6.12"],
        setting: "PostgreSQL 18 with `debug_io_direct=data,wal` and `io_method=worker` on ext4 runs \
                  pgbench; dio-trace attaches to the postmaster, and takes its processes with it.",
    },
    Question {
        title: "Why did the benchmark drop after the kernel upgrade?",
        name: "upgrade",
        kernels: &["6.1", "6.12"],
        setting: "fio writes to a btrfs with O_DIRECT: the same job on the old and on the new kernel.",
    },
    Question {
        title: "Which of 2,000 files fall back, and what do I do?",
        name: "files",
        kernels: &["6.12"],
        setting: "A program reads 2,000 files with O_DIRECT. Those on one of the two file systems are \
                  compressed.",
    },
];

const LIMIT: Duration = Duration::from_secs(20 * 60);

pub(crate) fn main(args: &QuestionsArgs) -> Result<u8> {
    packages::ensure(&[packages::VM, packages::SCENARIOS, packages::FIO, packages::TRACED])?;
    let postgres = pypi::environment(POSTGRES.context("a package")?)?;
    let mut page = HEAD.to_owned();
    for question in QUESTIONS {
        write!(page, "\n## {}\n\n{}\n", question.title, question.setting)?;
        for series in question.kernels {
            let kernel = kernels::find(series, None)?;
            let words = ["--question", question.name, "--postgres", text(&postgres)?];
            let words = words.map(str::to_owned).to_vec();
            let part = Part { name: "questions", words, kernel: &kernel, limit: LIMIT };
            let answers: Vec<Answer> = part.rows(|machine| machine.memory = "4G".to_owned())?;
            for answer in answers {
                page += &shown(&kernel.version, &answer)?;
            }
        }
    }
    println!("{page}");
    if args.write {
        fs::write(paths::workspace()?.join("docs/questions.md"), page)
            .context("cannot write the page")?;
    }
    Ok(0)
}

const HEAD: &str = "# Three questions

What the first 24 lines of `dio-trace report` say, as written by `cargo xtask questions --write` on
emulated machines (hence the latencies).
";

fn shown(kernel: &str, answer: &Answer) -> Result<String> {
    let mut text = format!("\nLinux {kernel}:\n\n");
    for command in &answer.commands {
        writeln!(text, "    $ {command}")?;
    }
    for line in &answer.lines {
        writeln!(text, "{}", format!("    {line}").trim_end())?;
    }
    Ok(text)
}
