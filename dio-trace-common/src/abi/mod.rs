//! The records that the probes send to user space, and the keys and values of shared maps.
//!
//! - [`FileId`], [`Task`]: which file, which thread
//! - [`Request`]: one read or write
//! - [`FileEvent`], [`RejectedOpen`], [`BufferedUseEvent`]: the other events
//! - [`CounterKey`], [`Counter`]: sums of requests
//! - [`PageUse`], [`PageSum`]: pages that come into the page cache and leave it
//! - [`Stat`]: what the tracer itself did and lost
//!
//! No struct has padding (asserted with each): the verifier rejects sending uninitialised bytes,
//! and user space must not read them.

mod counters;
mod events;
mod identity;
mod page_cache;
mod request;
mod stats;

pub use counters::*;
pub use events::*;
pub use identity::*;
pub use page_cache::*;
pub use request::*;
pub use stats::*;

#[cfg(feature = "user")]
mod user {
    use super::{
        BufferedUse, CacheUser, Counter, CounterKey, FileId, PageSum, PageUse, UnaskedSum,
    };
    // SAFETY: repr(C), integers only, no padding (asserted with each): any bytes are a value.
    unsafe impl aya::Pod for CounterKey {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Counter {}
    // SAFETY: as above.
    unsafe impl aya::Pod for BufferedUse {}
    // SAFETY: as above.
    unsafe impl aya::Pod for FileId {}
    // SAFETY: as above.
    unsafe impl aya::Pod for UnaskedSum {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PageUse {}
    // SAFETY: as above.
    unsafe impl aya::Pod for PageSum {}
    // SAFETY: as above.
    unsafe impl aya::Pod for CacheUser {}
}
