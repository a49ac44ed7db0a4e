//! The verbs that trace (`run`, `attach`, `audit`) and their options.

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{Args, Subcommand};
use glob::Pattern;

use crate::{
    cli::{
        filters::{CauseFilter, Filters},
        metrics::MetricsArgs,
        values::{Mode, ReportFile, SHOW, Suggested, TO, duration, report_file, ring},
    },
    flow::{filter::Filter, group::By},
    gate::Rule,
};

/// The verbs that trace.
#[derive(Debug, Subcommand)]
pub(super) enum Trace {
    /// Trace a command and its descendants, from its first request to its exit
    Run {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        gate: GateArgs,
    },
    /// Trace running processes with their descendants, a systemd unit, or a container
    ///
    /// Ends when all of them have ended.
    Attach {
        #[command(flatten)]
        subject: Named,
        #[command(flatten)]
        common: Common,
    },
    /// Trace the whole system
    Audit {
        #[command(flatten)]
        processes: Processes,
        #[command(flatten)]
        common: Common,
    },
}

/// Options in the order of use: what to trace, what to show, where to.
#[derive(Args, Debug)]
pub(super) struct Common {
    /// Stop after this time: 10, 10s, 500ms, 2m, 1h, 7d
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub(super) duration: Option<Duration>,
    /// How to attach the probes
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Mode::Auto)]
    pub(super) attach: Mode,
    /// Trace even if the tracer does not see its own test requests
    #[arg(long)]
    pub(super) force_blind: bool,
    #[command(flatten)]
    pub(super) filters: Filters,
    #[command(flatten)]
    pub(super) causes: CauseFilter,
    /// Show every O_DIRECT request, not only findings
    #[arg(long, help_heading = SHOW)]
    pub(super) all: bool,
    /// Also trace requests on files that are open without O_DIRECT: verdict cached, or uncached with
    /// RWF_DONTCACHE
    ///
    /// They are no findings: the summary counts them, and --all shows each. Every read and write of the
    /// system is followed to its end then.
    #[arg(long, help_heading = SHOW)]
    pub(super) cached: bool,
    /// What a row of the closing table is; without this option, a file
    ///
    /// thread, cause, stack and time sum only findings, or every request with --all.
    #[arg(long, value_enum, value_name = "WHAT", help_heading = SHOW)]
    pub(super) by: Option<By>,
    /// Show the program's stack for each kind of finding: which code issued it (docs/stacks.md)
    #[arg(long, help_heading = SHOW)]
    pub(super) stack: bool,
    /// Say why RWF_NOWAIT requests end with EAGAIN and why io_uring hands requests to its workers
    ///
    /// Attaches probes to functions that the whole system uses, such as those that try a lock.
    #[arg(long, help_heading = SHOW)]
    pub(super) why_eagain: bool,
    /// Report every use of these files without O_DIRECT; * also matches slashes
    ///
    /// A read or write of such a file by a descriptor without O_DIRECT is the finding not-asked.
    #[arg(long, value_name = "GLOB", help_heading = SHOW)]
    pub(super) expect_direct: Vec<Pattern>,
    /// Report writes whose buffer changed while they were in flight
    ///
    /// Compares samples of the buffer at issue and completion. Writes that complete in an interrupt,
    /// as most of libaio and io_uring do, are not compared.
    #[arg(long, help_heading = SHOW)]
    pub(super) verify_stable: bool,
    /// Size of the buffer through which events come from the kernel: 64M; a power of two [default: by
    /// the number of CPUs]
    ///
    /// Events that find no room are lost and counted. Without this option: 1M for each CPU, but 4M at
    /// least and 64M at most; where every request is wanted 4M for each CPU, 16M at least and 256M at
    /// most; never more than 1/64 of the memory, or of the container's limit, if that is 4M or more.
    #[arg(long, value_name = "SIZE", value_parser = ring, help_heading = SHOW)]
    pub(super) ring: Option<u32>,
    /// Show times in UTC instead of this machine's zone
    #[arg(long, help_heading = SHOW)]
    pub(super) utc: bool,
    /// Leave out no lines of findings, and print more on stderr; twice for the probes' own messages
    #[arg(short, long, action = clap::ArgAction::Count, help_heading = SHOW)]
    pub(super) verbose: u8,
    /// Write JSON lines (docs/json.md)
    #[arg(long, help_heading = TO)]
    pub(super) json: bool,
    /// Write the output to this file instead of stdout, line by line
    #[arg(short, long, value_name = "FILE", help_heading = TO)]
    pub(super) output: Option<PathBuf>,
    #[command(flatten)]
    pub(super) metrics: MetricsArgs,
}

impl Common {
    /// The options of a verb that shows no requests.
    pub(super) fn without_requests(
        attach: Mode,
        force_blind: bool,
        filters: Filters,
        metrics: MetricsArgs,
    ) -> Self {
        Self {
            duration: None,
            attach,
            force_blind,
            filters,
            causes: CauseFilter::default(),
            all: false,
            cached: false,
            by: None,
            stack: false,
            why_eagain: false,
            expect_direct: Vec::new(),
            verify_stable: false,
            ring: None,
            utc: false,
            verbose: 0,
            json: false,
            output: None,
            metrics,
        }
    }

    /// The filter for user space.
    pub(super) fn filter(&self) -> Filter {
        Filter { causes: self.causes.ids(), ..self.filters.filter() }
    }
}

/// Findings that fail a build.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Gate")]
pub(super) struct GateArgs {
    /// Exit with 3 on these findings
    ///
    /// WORD:MIN fails at MIN or more. short does not count the end of a file or device. Lost events
    /// fail too.
    #[arg(long, value_delimiter = ',', value_name = "WORD[:MIN],…",
          value_parser = Suggested::<Rule>::new(Rule::words()))]
    pub(super) fail_on: Vec<Rule>,
    /// Write the result of --fail-on to a file: .json, .md or .xml (JUnit)
    #[arg(long, value_name = "FILE", requires = "fail_on", value_parser = report_file)]
    pub(super) report: Option<ReportFile>,
}

impl Trace {
    pub(super) const fn common(&self) -> &Common {
        match self {
            Self::Run { common, .. } | Self::Attach { common, .. } | Self::Audit { common, .. } => {
                common
            }
        }
    }
}

/// Selects processes by id.
#[derive(Args, Debug, Default)]
pub(super) struct Processes {
    /// Only these processes, with all their threads and descendants; separate several by commas
    #[arg(short, long, value_delimiter = ',', value_name = "PID",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) pid: Vec<u32>,
    /// Do not follow child processes, neither running nor new ones
    #[arg(long)]
    pub(super) no_children: bool,
}

/// Selects processes by id or by name.
#[derive(Args, Debug, Default)]
pub(super) struct Named {
    /// Program name, or a process id: all running processes with that name
    #[arg(value_name = "NAME|PID")]
    pub(super) names: Vec<String>,
    #[command(flatten)]
    pub(super) processes: Processes,
}
