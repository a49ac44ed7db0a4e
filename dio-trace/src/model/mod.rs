//! What live tracing and a recording have in common: events, totals, which requests are wanted, and
//! files as they are shown.

mod event;
mod file_info;
mod totals;
mod wanted;

pub use event::Event;
pub use file_info::{CacheUser, FileInfo, Mixers};
pub use totals::{Attach, Missing, Totals};
pub use wanted::Wanted;
