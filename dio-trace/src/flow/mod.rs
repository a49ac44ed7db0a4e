//! The path of an event to the outputs. A [`pipeline::Pipeline`] decides, filters and explains each
//! event and passes it to a [`sink::Sink`]; a [`summary::Summary`] ends the run.

pub mod alignment_probe;
pub mod answer;
pub mod by_record;
pub mod bytes;
pub mod causes;
pub mod decided;
pub mod explained;
pub mod file_user;
pub mod filter;
pub mod group;
pub mod lost;
pub(crate) mod nothing;
pub mod nowait;
pub mod page_cache;
pub mod pipeline;
pub mod problem;
pub mod side_events;
pub mod sink;
pub mod summary;
pub mod timeline;
pub mod unasked;
