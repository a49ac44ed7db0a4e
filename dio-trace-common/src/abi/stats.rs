//! The per-CPU statistics of the tracer itself.

macro_rules! stats {
    ($($(#[$m:meta])* $name:ident = $text:literal,)+) => {
        /// Indices of the per-CPU statistics, which count what the tracer did and what it lost.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Stat { $($(#[$m])* $name,)+ }
        impl Stat {
            /// All indices with their names in reports.
            pub const ALL: &'static [(Self, &'static str)] = &[$((Self::$name, $text),)+];

            /// The statistic's name in reports.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }
        }
    };
}

stats! {
    /// Requests issued.
    Begun = "begun",
    /// Requests completed and counted.
    Ended = "ended",
    /// Completed requests that a filter excluded.
    Filtered = "filtered",
    /// Requests that a signal interrupted before anything was moved: the kernel restarts the call, or it
    /// ends with EINTR.
    Restarted = "restarted by a signal",
    /// Requests with a missed completion, detected when their thread or kiocb issued another.
    Unmatched = "unmatched",
    /// Requests not traced: no slot for per-thread state was available.
    LostThread = "no thread state",
    /// Requests not traced: the map of kiocbs was full.
    LostKiocb = "kiocb map full",
    /// Vectored requests not traced: their iovecs could not be read.
    LostLength = "iovec not readable",
    /// Child processes not followed: the set of traced processes was full.
    LostChild = "process set full",
    /// Events written to the ring buffer.
    Events = "events",
    /// Events lost: the ring buffer was full.
    LostEvent = "ring buffer full",
    /// Rejected opens lost: the ring buffer was full.
    LostRejectedOpen = "refusal: ring buffer full",
    /// Mixed access not counted: the map of buffered users was full.
    LostBufferedUse = "mixed access map full",
    /// Uses that did not ask for direct I/O (`--expect-direct`) and are not counted: the map of such uses
    /// was full, or their file is not known.
    LostUnasked = "not-asked use not counted",
    /// File names lost: the ring buffer was full.
    LostFile = "file name: ring buffer full",
    /// Completed requests not counted: all counters were in use.
    LostCounter = "counter map full",
    /// Writes whose buffer was compared (`--verify-stable`).
    BuffersCompared = "buffers compared",
    /// Pages of the page cache that are counted by process alone, because there was no room for their
    /// file (`cache`).
    PagesWithoutFile = "pages without their file",
    /// Pages of the page cache that are not counted, because all sums were in use (`cache`).
    LostPages = "pages not counted",
    /// Requests whose stack was lost: another stack with the same hash was stored.
    LostStack = "stack: hash taken",
}

/// Number of [`Stat`] indices.
pub const STATS: usize = Stat::ALL.len();
