//! The selection of requests from a recording: by time, by process and by the filters.

use anyhow::{Result, bail};
use clap::Args;

use crate::{
    cli::{
        filters::{CauseFilter, RecordedFilters},
        when::When,
    },
    flow::filter::Filter,
    recording::{
        format::Header,
        replay::{Selection, Window},
    },
    util::clock::{Shown, Zone},
};

#[derive(Args, Debug)]
#[command(next_help_heading = "Filters")]
pub(super) struct SelectionArgs {
    /// Start at this time after the recording began: 90s, 5m; or when the clock shows 14:32
    ///
    /// The clock is that of the recording host, or UTC with --utc; a time before the recording
    /// began is that of the next day.
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// Stop at this time after the recording began, or when the clock next shows 14:40
    #[arg(long, value_name = "TIME")]
    until: Option<When>,
    /// Only these processes
    #[arg(short, long, value_delimiter = ',', value_name = "PID",
          value_parser = clap::value_parser!(u32).range(1..))]
    pid: Vec<u32>,
    #[command(flatten)]
    filters: RecordedFilters,
    #[command(flatten)]
    causes: CauseFilter,
}

impl SelectionArgs {
    /// Checks the time window.
    ///
    /// # Errors
    /// If the window is empty.
    pub(super) fn check(&self) -> Result<()> {
        match (self.since, self.until) {
            (Some(When::After(since)), Some(When::After(until))) if since >= until => {
                bail!("--since {since:?} is not before --until {until:?}: nothing is between them")
            }
            _ => Ok(()),
        }
    }

    /// The selection in words; `None` if everything is selected. `since` and `until` are ns since
    /// the epoch.
    fn words(&self, since: u64, until: u64, zone: &Zone) -> Option<String> {
        let mut words = self.filters.words();
        let mut say = |what: &str, value: String| words.push(format!("{what} {value}"));
        if !self.pid.is_empty() {
            let pids: Vec<String> = self.pid.iter().map(u32::to_string).collect();
            say("pid", pids.join(","));
        }
        if !self.causes.ids().is_empty() {
            say("cause", self.causes.ids().join(","));
        }
        if let Some(when) = self.since {
            say("since", when.text(since, zone));
        }
        if let Some(when) = self.until {
            say("until", when.text(until, zone));
        }
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// The selection for a recording with this header. Times of the clock are in UTC if `utc`.
    pub(super) fn selection(&self, header: &Header, utc: bool) -> Selection {
        let (begin, zone) = (header.started, Shown::recorded(header.zone.as_ref(), utc).zone);
        let since = self.since.map_or(begin, |when| when.since(begin, &zone));
        let until = self.until.map_or(u64::MAX, |when| when.until(begin, since, &zone));
        // CLOCK_MONOTONIC, as all other times in the recording.
        let monotonic =
            |wall: u64| u64::try_from(i128::from(wall) - i128::from(header.clock)).unwrap_or(0);
        Selection {
            window: Window {
                since: self.since.map_or(0, |_| monotonic(since)),
                until: self.until.map_or(u64::MAX, |_| monotonic(until)),
            },
            pids: self.pid.clone(),
            wanted: self.filters.wanted(),
            filter: Filter { causes: self.causes.ids(), ..self.filters.filter() },
            only: self.words(since, until, &zone),
        }
    }
}
