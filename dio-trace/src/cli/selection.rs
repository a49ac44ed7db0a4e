//! The selection of requests from a recording: by time, by process and by the filters.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    cli::{filters::RecordedFilters, values::duration},
    recording::{
        format::Header,
        replay::{Selection, Window},
    },
};

#[derive(Args, Debug)]
#[command(next_help_heading = "Filters")]
pub(super) struct SelectionArgs {
    /// Start at this time after the recording began: 90s, 5m
    #[arg(long, value_name = "TIME", value_parser = duration)]
    since: Option<Duration>,
    /// Stop at this time after the recording began
    #[arg(long, value_name = "TIME", value_parser = duration)]
    until: Option<Duration>,
    /// Only these processes
    #[arg(short, long, value_delimiter = ',', value_name = "PID",
          value_parser = clap::value_parser!(u32).range(1..))]
    pid: Vec<u32>,
    #[command(flatten)]
    filters: RecordedFilters,
}

impl SelectionArgs {
    /// Checks the time window.
    ///
    /// # Errors
    /// If the window is empty.
    pub(super) fn check(&self) -> Result<()> {
        match (self.since, self.until) {
            (Some(since), Some(until)) if since >= until => {
                bail!("--since {since:?} is not before --until {until:?}: nothing is between them")
            }
            _ => Ok(()),
        }
    }

    /// The selection in words; `None` if everything is selected.
    fn words(&self) -> Option<String> {
        let mut words = self.filters.words();
        let mut say = |what: &str, value: String| words.push(format!("{what} {value}"));
        if !self.pid.is_empty() {
            let pids: Vec<String> = self.pid.iter().map(u32::to_string).collect();
            say("pid", pids.join(","));
        }
        if let Some(since) = self.since {
            say("since", format!("{since:?}"));
        }
        if let Some(until) = self.until {
            say("until", format!("{until:?}"));
        }
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// The selection for a recording with this header.
    pub(super) fn selection(&self, header: &Header) -> Selection {
        let began = i128::from(header.started) - i128::from(header.clock);
        let began = u64::try_from(began).unwrap_or(0);
        let at = |after: Duration| {
            began.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX))
        };
        Selection {
            window: Window {
                since: self.since.map_or(0, at),
                until: self.until.map_or(u64::MAX, at),
            },
            pids: self.pid.clone(),
            wanted: self.filters.wanted(),
            filter: self.filters.filter(),
            only: self.words(),
        }
    }
}
