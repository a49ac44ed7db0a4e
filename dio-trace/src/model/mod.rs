//! Types shared by live tracing and recordings: events, totals, the request filter, and the
//! description of a file.

mod cache_totals;
mod event;
mod file_info;
mod request_filter;
mod totals;

pub use cache_totals::CacheTotals;
pub use event::Event;
pub use file_info::{BufferedUser, BufferedUsers, FileInfo};
pub use request_filter::RequestFilter;
pub use totals::{AttachMode, Gap, MissingProbe, SELF_TEST, Totals, in_flight};
