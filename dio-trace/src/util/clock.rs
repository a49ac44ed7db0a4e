//! Converts the probes' clock (CLOCK_MONOTONIC) to wall-clock time, and formats wall-clock time.

use jiff::{
    Timestamp,
    civil::DateTime,
    tz::{Offset, TimeZone},
};
use serde::{Deserialize, Serialize};

/// Converts CLOCK_MONOTONIC to CLOCK_REALTIME by the difference sampled at the start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset: i128,
}

impl Clock {
    /// Samples both clocks. Another task may be scheduled between two samples, so the sampling is
    /// repeated and the attempt with the shortest interval is used.
    #[must_use]
    pub fn now() -> Self {
        const TRIES: usize = 16;
        let tries = (0..TRIES).map(|_| {
            let before = read(libc::CLOCK_MONOTONIC);
            let wall = read(libc::CLOCK_REALTIME);
            let after = read(libc::CLOCK_MONOTONIC);
            (after - before, wall - (before + after) / 2)
        });
        Self { offset: tries.min().map_or(0, |(_, offset)| offset) }
    }

    /// A clock with a fixed difference of `offset` ns: that of a recording, or for tests.
    #[must_use]
    pub const fn fixed(offset: i128) -> Self {
        Self { offset }
    }

    /// CLOCK_REALTIME minus CLOCK_MONOTONIC, in ns.
    #[must_use]
    pub fn offset(&self) -> i64 {
        i64::try_from(self.offset).unwrap_or(i64::MAX)
    }

    /// The current CLOCK_MONOTONIC time in ns.
    #[must_use]
    pub fn monotonic() -> u64 {
        u64::try_from(read(libc::CLOCK_MONOTONIC)).unwrap_or(0)
    }

    /// The current CLOCK_REALTIME time: ns since the epoch.
    #[must_use]
    pub fn realtime() -> u64 {
        u64::try_from(read(libc::CLOCK_REALTIME)).unwrap_or(0)
    }

    /// Converts a CLOCK_MONOTONIC time in ns to ns since the epoch.
    #[must_use]
    pub fn wall(&self, monotonic: u64) -> u64 {
        u64::try_from(i128::from(monotonic) + self.offset).unwrap_or(0)
    }
}

fn read(clock: libc::clockid_t) -> i128 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one timespec.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
}

/// A time zone as a recording stores it: the offset when the recording began. All times of the
/// recording are shown with this offset, even if daylight saving time starts or ends meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Zone {
    /// Seconds east of UTC.
    pub offset: i32,
    /// IANA name, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl Zone {
    pub const UTC: Self = Self { offset: 0, name: None };

    /// This machine's current zone (TZ, or /etc/localtime); `None` if it cannot be determined.
    #[must_use]
    pub fn local() -> Option<Self> {
        let zone = TimeZone::try_system().ok()?;
        let offset = zone.to_offset(Timestamp::now()).seconds();
        Some(Self { offset, name: zone.iana_name().map(str::to_owned) })
    }

    /// False for an offset that no real time zone has and that the calendar cannot show.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        Offset::from_seconds(self.offset).is_ok()
    }

    /// `Europe/Berlin (+01:00)`, `+01:00`, `UTC`.
    #[must_use]
    pub fn text(&self) -> String {
        match &self.name {
            Some(name) if !self.is_utc() => format!("{name} ({})", self.suffix()),
            _ => self.short(),
        }
    }

    /// `+01:00`, `UTC`.
    #[must_use]
    pub fn short(&self) -> String {
        if self.is_utc() { "UTC".to_owned() } else { self.suffix() }
    }

    /// True if both offset and name are UTC's. The offset is not enough: London has it in winter.
    fn is_utc(&self) -> bool {
        let name = self.name.as_deref();
        self.offset == 0 && name.is_none_or(|name| matches!(name, "UTC" | "Etc/UTC"))
    }

    /// `+01:00`, with seconds if the offset has them.
    #[must_use]
    pub fn suffix(&self) -> String {
        let (sign, all) = (if self.offset < 0 { '-' } else { '+' }, self.offset.unsigned_abs());
        let (hours, minutes, seconds) = (all / 3600, all / 60 % 60, all % 60);
        let rest = if seconds == 0 { String::new() } else { format!(":{seconds:02}") };
        format!("{sign}{hours:02}:{minutes:02}{rest}")
    }

    /// Formats ns since the epoch as `HH:MM:SS`.
    #[must_use]
    pub fn time_of_day(&self, wall_ns: u64) -> String {
        let at = self.civil(wall_ns);
        let mut text = String::with_capacity("HH:MM:SS".len());
        for part in [at.hour(), at.minute(), at.second()] {
            if !text.is_empty() {
                text.push(':');
            }
            let digits = part.unsigned_abs();
            text.push(char::from(b'0' + digits / 10));
            text.push(char::from(b'0' + digits % 10));
        }
        text
    }

    /// The day of a time, in days since the epoch.
    #[must_use]
    pub fn day(&self, wall_ns: u64) -> i64 {
        let seconds = i64::try_from(wall_ns / 1_000_000_000).unwrap_or(i64::MAX);
        seconds.saturating_add(self.offset.into()).div_euclid(86_400)
    }

    /// Formats ns since the epoch as `YYYY-MM-DD`.
    #[must_use]
    pub fn date(&self, wall_ns: u64) -> String {
        self.civil(wall_ns).date().to_string()
    }

    /// Formats ns since the epoch as `YYYY-MM-DDTHH:MM:SS+HH:MM` (ISO 8601).
    #[must_use]
    pub fn iso(&self, wall_ns: u64) -> String {
        format!("{}T{}{}", self.date(wall_ns), self.time_of_day(wall_ns), self.suffix())
    }

    /// Formats ns since the epoch as ISO 8601 with milliseconds.
    #[must_use]
    pub fn iso_fine(&self, wall_ns: u64) -> String {
        let (date, time) = (self.date(wall_ns), self.time_of_day(wall_ns));
        format!("{date}T{time}.{:03}{}", wall_ns / 1_000_000 % 1_000, self.suffix())
    }

    /// Any time in a recording can be shown: a u64 of ns ends in 2554, the calendar in 9999.
    fn civil(&self, wall_ns: u64) -> DateTime {
        let at = Timestamp::from_nanosecond(i128::from(wall_ns)).unwrap_or_default();
        Offset::from_seconds(self.offset).unwrap_or(Offset::UTC).to_datetime(at)
    }
}

/// The time zone that times are shown in, and why it was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub zone: Zone,
    pub why: &'static str,
}

impl Default for Shown {
    fn default() -> Self {
        Self::ASKED
    }
}

impl Shown {
    /// UTC because the user asked for it.
    pub const ASKED: Self = Self { zone: Zone::UTC, why: "by --utc" };

    /// The zone for live tracing on this machine.
    #[must_use]
    pub fn here(utc: bool) -> Self {
        if utc {
            return Self::ASKED;
        }
        match Zone::local() {
            Some(zone) => Self { zone, why: "this machine's zone" },
            None => Self { zone: Zone::UTC, why: "this machine's zone is unknown" },
        }
    }

    /// The zone for a recording, from its header.
    #[must_use]
    pub fn recorded(zone: Option<&Zone>, utc: bool) -> Self {
        match zone {
            _ if utc => Self::ASKED,
            Some(zone) => Self { zone: zone.clone(), why: "the recording host's zone" },
            None => Self { zone: Zone::UTC, why: "the recording does not say its host's zone" },
        }
    }

    /// `Europe/Berlin (+01:00), the recording host's zone`
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}, {}", self.zone.text(), self.why)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-02 03:04:05.678 UTC
    const AT: u64 = 1_767_323_045_678_000_000;

    fn zone(offset: i32) -> Zone {
        Zone { offset, name: None }
    }

    #[test]
    fn a_time_has_its_date_and_offset() {
        assert_eq!(Zone::UTC.iso(AT), "2026-01-02T03:04:05+00:00");
        assert_eq!(zone(19_800).iso_fine(AT), "2026-01-02T08:34:05.678+05:30");
        assert_eq!(zone(-5 * 3600).iso(AT), "2026-01-01T22:04:05-05:00");
        assert_eq!(
            (zone(-5 * 3600).date(AT), zone(1_172).suffix()),
            ("2026-01-01".into(), "+00:19:32".into())
        );
        assert_eq!(Zone::UTC.iso(u64::MAX), "2554-07-21T23:34:33+00:00");
    }

    #[test]
    fn no_header_breaks_the_calendar() {
        for offset in [i32::MIN, -100_000, 100_000, i32::MAX] {
            assert!(!zone(offset).is_sound());
            let text = zone(offset).iso(AT);
            assert!(text.starts_with("2026-01-02T03:04:05"), "{text}");
        }
        for at in [0, u64::MAX] {
            assert!(zone(-93_599).is_sound() && !zone(-93_599).iso_fine(at).is_empty());
        }
    }

    #[test]
    fn which_zone_and_why() {
        let berlin = Zone { offset: 3600, name: Some("Europe/Berlin".to_owned()) };
        let of = |zone: Option<&Zone>, utc| Shown::recorded(zone, utc).text();
        assert_eq!(of(Some(&berlin), false), "Europe/Berlin (+01:00), the recording host's zone");
        assert_eq!(of(Some(&berlin), true), "UTC, by --utc");
        let zone = |name: &str| Zone { offset: 0, name: Some(name.to_owned()) };
        assert_eq!(
            (zone("Etc/UTC").text(), zone("Europe/London").text()),
            ("UTC".into(), "Europe/London (+00:00)".into())
        );
        assert_eq!(of(None, false), "UTC, the recording does not say its host's zone");
        assert_eq!(Shown::here(true), Shown::ASKED);
    }
}
