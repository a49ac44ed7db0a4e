//! Command-line filters: those for live tracing ([`Filters`]), and the subset that also applies to
//! recordings ([`RecordedFilters`]).

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::{Args, ValueEnum};
use dio_trace_common::{
    abi::{API_IO_URING, API_LIBAIO, API_READ, API_READV, API_SPLICE, OP_READ, OP_WRITE},
    verdict::Verdict,
};
use glob::Pattern;

use crate::{
    cause::{self, RULES},
    cli::values::{Only, Suggested, duration, only},
    flow::filter::Filter,
    model::RequestFilter,
    system::cgroup,
    util::escape,
};

/// Filters for live tracing.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Filters")]
pub(super) struct Filters {
    #[command(flatten)]
    recorded: RecordedFilters,
    #[command(flatten)]
    place: Place,
    /// Only files on this device: a block device, or any file on its file system
    #[arg(long, value_name = "PATH")]
    dev: Option<PathBuf>,
}

/// Selects the processes of a cgroup.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Filters")]
pub(super) struct Place {
    /// Only processes in this cgroup and its descendants
    #[arg(long, value_name = "PATH")]
    cgroup: Option<PathBuf>,
    /// Only this container, by its name, its id or the beginning of it
    #[arg(long, value_name = "ID", conflicts_with = "cgroup")]
    container: Option<String>,
    /// Only this systemd unit: postgresql@18-main.service, user.slice; .service may be left out
    #[arg(long, value_name = "UNIT", conflicts_with_all = ["cgroup", "container"])]
    unit: Option<String>,
}

/// The filter by cause. `top` does not have it, because its figures are counters.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Filters")]
pub(super) struct CauseFilter {
    /// Only these causes, such as misaligned; `dio-trace explain` lists all
    ///
    /// The figures are then of the requests that are shown: findings, or every request with --all.
    #[arg(long, value_delimiter = ',', value_name = "ID", hide_possible_values = true,
          value_parser = Suggested::<CauseId>::new(RULES.iter().map(|rule| rule.id)))]
    cause: Vec<CauseId>,
}

impl CauseFilter {
    /// The ids of the causes; empty for any.
    pub(super) fn ids(&self) -> Vec<&'static str> {
        self.cause.iter().map(|cause| cause.0).collect()
    }
}

/// The id of a cause.
#[derive(Clone, Copy, Debug)]
struct CauseId(&'static str);

impl FromStr for CauseId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rule = cause::find(text).ok_or_else(|| {
            format!("similar: {} (`dio-trace explain` lists all)", cause::nearest(text).join(", "))
        })?;
        Ok(Self(rule.id))
    }
}

/// Filters that also apply to recordings. A request must match every filter that is set; it matches
/// a filter with several values if it matches any of them.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Filters")]
pub(super) struct RecordedFilters {
    /// Only requests submitted by this thread
    #[arg(short, long, value_name = "TID", value_parser = clap::value_parser!(u32).range(1..))]
    tid: Option<u32>,
    /// Only processes with these names
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    comm: Vec<String>,
    /// Only files whose path matches; * also matches slashes
    #[arg(long, value_name = "GLOB")]
    path: Vec<Pattern>,
    /// Only these file systems
    #[arg(long, value_delimiter = ',', value_name = "TYPE")]
    fs: Vec<String>,
    /// Only these Kubernetes pods
    #[arg(long, value_delimiter = ',', value_name = "[NAMESPACE/]POD")]
    pod: Vec<String>,
    /// Only pods of these Kubernetes namespaces
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    namespace: Vec<String>,
    /// Only reads or writes
    #[arg(long, value_enum)]
    op: Option<Op>,
    /// Only requests made through these interfaces
    #[arg(long, value_enum, value_delimiter = ',')]
    api: Vec<Api>,
    /// Only requests that took at least this long: 500us, 10ms, 1s
    #[arg(long, value_name = "TIME", value_parser = duration)]
    min_latency: Option<Duration>,
    /// Only these verdicts, or short counts, whatever their verdict
    #[arg(long, value_delimiter = ',', value_name = "VERDICT|short", value_parser = only())]
    only: Vec<Only>,
    /// Only refused and failed requests
    #[arg(long, conflicts_with = "only")]
    errors: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Op {
    Read,
    Write,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Api {
    /// read, pread, write, pwrite
    Read,
    /// readv, preadv, preadv2, writev, pwritev, pwritev2
    Readv,
    Libaio,
    #[value(name = "io_uring")]
    IoUring,
    /// splice, sendfile
    Splice,
}

impl Api {
    /// The value's name on the command line.
    fn word(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    const fn bit(self) -> u32 {
        1 << match self {
            Self::Read => API_READ,
            Self::Readv => API_READV,
            Self::Libaio => API_LIBAIO,
            Self::IoUring => API_IO_URING,
            Self::Splice => API_SPLICE,
        }
    }
}

impl Filters {
    /// Those that select a cgroup alone.
    pub(super) fn of(place: Place) -> Self {
        Self { place, ..Self::default() }
    }

    /// The filter for the probes: by numbers that the kernel side can compare.
    ///
    /// # Errors
    /// If the cgroup or the device cannot be found.
    pub(super) fn wanted(&self) -> Result<RequestFilter> {
        let cgroup = self.cgroup()?.map(|(_, folder)| cgroup::of_path(&folder)).transpose()?;
        let dev = self.dev.as_ref().map_or(Ok(RequestFilter::ALL.dev), device)?;
        Ok(RequestFilter { cgroup, dev, ..self.recorded.wanted() })
    }

    /// The selected cgroup, in words, and its directory; `None` if none is selected.
    ///
    /// # Errors
    /// If there is no such cgroup.
    pub(super) fn cgroup(&self) -> Result<Option<(String, PathBuf)>> {
        let named = |what: &str, name: &str| format!("{what} {}", escape::escape(name.as_bytes()));
        let Place { cgroup, container, unit } = &self.place;
        Ok(match (cgroup, container, unit) {
            (Some(path), ..) => {
                Some((named("cgroup", &path.to_string_lossy()), cgroup::folder_of_path(path)?))
            }
            (_, Some(id), _) => Some((named("container", id), cgroup::folder_of_container(id)?)),
            (.., Some(unit)) => Some((named("unit", unit), cgroup::folder_of_unit(unit)?)),
            _ => None,
        })
    }

    /// The selected process names.
    pub(super) fn comms(&self) -> &[String] {
        &self.recorded.comm
    }

    /// The filter for user space; see [`RecordedFilters::filter`].
    pub(super) fn filter(&self) -> Filter {
        self.recorded.filter()
    }
}

impl RecordedFilters {
    /// The filters that are set, in words.
    pub(super) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut say = |what: &str, values: Vec<String>| {
            if !values.is_empty() {
                words.push(escape::escape(format!("{what} {}", values.join(",")).as_bytes()));
            }
        };
        say("tid", self.tid.iter().map(u32::to_string).collect());
        say("comm", self.comm.clone());
        say("path", self.path.iter().map(Pattern::to_string).collect());
        say("fs", self.fs.clone());
        say("pod", self.pod.clone());
        say("namespace", self.namespace.clone());
        say("op", self.op.iter().map(|op| format!("{op:?}").to_lowercase()).collect());
        say("api", self.api.iter().map(|api| api.word()).collect());
        say("latency from", self.min_latency.iter().map(|time| format!("{time:?}")).collect());
        let filter = self.filter();
        let verdicts = filter.verdicts.iter().map(|verdict| verdict.as_str());
        let short = filter.short.then_some("short");
        say("verdict", verdicts.chain(short).map(str::to_owned).collect());
        words
    }

    /// The filter by numbers: thread, operation, interface and latency.
    pub(super) fn wanted(&self) -> RequestFilter {
        let all = RequestFilter::ALL;
        RequestFilter {
            tid: self.tid.unwrap_or(all.tid),
            ops: match self.op {
                None => all.ops,
                Some(Op::Read) => 1 << OP_READ,
                Some(Op::Write) => 1 << OP_WRITE,
            },
            apis: if self.api.is_empty() {
                all.apis
            } else {
                self.api.iter().fold(0, |bits, api| bits | api.bit())
            },
            min_latency_ns: self.min_latency.map_or(0, |time| time.as_nanos() as u64),
            ..all
        }
    }

    /// The filter by names and verdicts, for which a request must be resolved and judged first.
    pub(super) fn filter(&self) -> Filter {
        let errors = [Verdict::Refused, Verdict::Failed];
        let verdict = |only: &Only| match only {
            Only::Verdict(verdict) => Some(*verdict),
            Only::Short => None,
        };
        Filter {
            comms: self.comm.clone(),
            paths: self.path.clone(),
            fs: self.fs.clone(),
            pods: self.pod.clone(),
            namespaces: self.namespace.clone(),
            verdicts: if self.errors {
                errors.to_vec()
            } else {
                self.only.iter().filter_map(verdict).collect()
            },
            short: self.only.contains(&Only::Short),
            causes: Vec::new(),
        }
    }
}

/// The kernel's `dev_t` of a block device, or of the device that holds a file.
fn device(path: &PathBuf) -> Result<u32> {
    let shown = escape::path(path);
    let about = fs::metadata(path).with_context(|| format!("--dev: cannot look at {shown}"))?;
    let is_device = about.file_type().is_block_device();
    let dev = if is_device { about.rdev() } else { about.dev() };
    let (major, minor) = (libc::major(dev), libc::minor(dev));
    if major == 0 && !is_device {
        bail!(
            "--dev: {shown} is not on a block device (btrfs and network file systems use device \
             numbers of their own); use --path or --fs"
        );
    }
    Ok(major << 20 | minor)
}
