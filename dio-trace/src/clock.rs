//! From the probes' clock to the wall's.

/// CLOCK_MONOTONIC to CLOCK_REALTIME, by the difference at the start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    offset: i128,
}

impl Clock {
    /// Samples both clocks. Another task may run between two samples: the closest ones count.
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

    /// A clock with a fixed difference in ns, for tests.
    #[must_use]
    pub const fn fixed(offset: i128) -> Self {
        Self { offset }
    }

    /// The difference in ns.
    #[must_use]
    pub fn offset(&self) -> i64 {
        i64::try_from(self.offset).unwrap_or(i64::MAX)
    }

    /// CLOCK_MONOTONIC now, in ns.
    #[must_use]
    pub fn monotonic() -> u64 {
        u64::try_from(read(libc::CLOCK_MONOTONIC)).unwrap_or(0)
    }

    /// ns since the epoch of a CLOCK_MONOTONIC time in ns.
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

/// "HH:MM:SS.mmm" of local time.
#[must_use]
pub fn time_of_day(wall_ns: u64) -> String {
    let local = local(wall_ns);
    let millis = wall_ns / 1_000_000 % 1_000;
    format!("{:02}:{:02}:{:02}.{millis:03}", local.tm_hour, local.tm_min, local.tm_sec)
}

/// "YYYY-MM-DD" of local time.
#[must_use]
pub fn date_of(wall_ns: u64) -> String {
    let local = local(wall_ns);
    format!("{:04}-{:02}-{:02}", local.tm_year + 1900, local.tm_mon + 1, local.tm_mday)
}

fn local(wall_ns: u64) -> libc::tm {
    let seconds = (wall_ns / 1_000_000_000) as libc::time_t;
    // SAFETY: all-zero is a value of this plain struct, and localtime_r fills it.
    let mut local: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: two valid pointers.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut local) };
    local
}
