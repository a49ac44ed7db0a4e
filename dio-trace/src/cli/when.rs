//! A time in a recording: after its begin (`90s`), or by the clock (`14:32`).

use std::{str::FromStr, time::Duration};

use crate::{cli::values::duration, util::clock::Zone};

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 24 * 3600 * SECOND;

/// A value of `--since` or `--until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// After the begin of the recording.
    After(Duration),
    /// The first time that the clock shows this, in ns after midnight. It is exact to `unit` ns: a
    /// minute or a second.
    Clock { at: u64, unit: u64 },
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if !text.contains(':') {
            return duration(text).map(Self::After);
        }
        clock(text).ok_or_else(|| "a time of the clock looks like 14:32 or 14:32:05".to_owned())
    }
}

fn clock(text: &str) -> Option<When> {
    let mut parts = text.split(':').map(|part| {
        let is_number = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| part.parse::<u64>().ok()).flatten()
    });
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next();
    let unit = if second.is_some() { SECOND } else { 60 * SECOND };
    let second = second.map_or(Some(0), |second| second)?;
    let is_time = hour < 24 && minute < 60 && second < 60 && parts.next().is_none();
    is_time.then_some(When::Clock { at: ((hour * 60 + minute) * 60 + second) * SECOND, unit })
}

impl When {
    /// This time as `--since`, in ns since the epoch. A time of the clock is the first one that does
    /// not end before `begin`, the begin of the recording.
    pub(super) fn since(self, begin: u64, zone: &Zone) -> u64 {
        match self {
            Self::After(after) => plus(begin, after),
            Self::Clock { at, unit } => {
                let now = of_day(begin, zone);
                let wait = (DAY + at - now / unit * unit) % DAY;
                begin.saturating_add(wait.saturating_sub(now % unit))
            }
        }
    }

    /// This time as `--until`, in ns since the epoch. A time of the clock is the first one after
    /// `since`, where the selected part begins.
    pub(super) fn until(self, begin: u64, since: u64, zone: &Zone) -> u64 {
        match self {
            Self::After(after) => plus(begin, after),
            Self::Clock { at, .. } => {
                let wait = (DAY + at - of_day(since, zone)) % DAY;
                since.saturating_add(if wait == 0 { DAY } else { wait })
            }
        }
    }

    /// The words for a report; `at` is this time in ns since the epoch.
    pub(super) fn text(self, at: u64, zone: &Zone) -> String {
        match self {
            Self::After(after) => format!("{after:?}"),
            Self::Clock { .. } => zone.iso(at),
        }
    }
}

fn plus(begin: u64, after: Duration) -> u64 {
    begin.saturating_add(u64::try_from(after.as_nanos()).unwrap_or(u64::MAX))
}

/// ns since midnight in a zone.
fn of_day(wall: u64, zone: &Zone) -> u64 {
    let local = i128::from(wall) + i128::from(zone.offset) * i128::from(SECOND);
    u64::try_from(local.rem_euclid(i128::from(DAY))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-02 03:04:05.5 UTC.
    const BEGIN: u64 = 1_767_323_045 * SECOND + SECOND / 2;

    fn when(text: &str) -> When {
        text.parse().unwrap()
    }

    fn since(text: &str, zone: &Zone) -> String {
        zone.iso_fine(when(text).since(BEGIN, zone))
    }

    #[test]
    fn times_of_the_clock_are_those_of_the_zone() {
        let berlin = Zone { offset: 3_600, name: None };
        assert_eq!(since("03:05", &Zone::UTC), "2026-01-02T03:05:00.000+00:00");
        assert_eq!(since("04:05", &berlin), "2026-01-02T04:05:00.000+01:00");
        assert_eq!(since("3:05:30", &Zone::UTC), "2026-01-02T03:05:30.000+00:00");
        assert_eq!(since("90s", &Zone::UTC), "2026-01-02T03:05:35.500+00:00");
        // The minute or the second in which the recording began is its begin.
        assert_eq!(since("03:04", &Zone::UTC), "2026-01-02T03:04:05.500+00:00");
        assert_eq!(since("03:04:05", &Zone::UTC), "2026-01-02T03:04:05.500+00:00");
        // An earlier one is that of the next day.
        assert_eq!(since("03:03", &Zone::UTC), "2026-01-03T03:03:00.000+00:00");
        assert_eq!(since("03:04:04", &Zone::UTC), "2026-01-03T03:04:04.000+00:00");
    }

    #[test]
    fn the_end_comes_after_the_start() {
        let until = |text: &str, from: &str| {
            let from = when(from).since(BEGIN, &Zone::UTC);
            Zone::UTC.iso(when(text).until(BEGIN, from, &Zone::UTC))
        };
        assert_eq!(until("03:06", "03:05"), "2026-01-02T03:06:00+00:00");
        assert_eq!(until("03:05", "03:05"), "2026-01-03T03:05:00+00:00");
        assert_eq!(until("01:00", "23:00"), "2026-01-03T01:00:00+00:00");
        assert_eq!(until("1m", "03:05"), "2026-01-02T03:05:05+00:00");
    }

    #[test]
    fn what_is_not_a_time_is_rejected() {
        for bad in ["", "24:00", "12:60", "12:30:60", "12:", ":12", "1:2:3:4", "+1:00", "123:00"] {
            assert!(bad.parse::<When>().is_err(), "{bad}");
        }
        assert_eq!(when("2d"), When::After(Duration::from_secs(2 * 86_400)));
    }
}
