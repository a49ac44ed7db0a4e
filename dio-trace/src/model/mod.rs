//! What live tracing and a recording have in common: events, totals, which requests are wanted, and
//! files as they are shown.

mod event;
mod file_info;
mod request_filter;
mod totals;

pub use event::Event;
pub use file_info::{BufferedUser, BufferedUsers, FileInfo};
pub use request_filter::RequestFilter;
pub use totals::{AttachMode, MissingProbe, Totals};
