//! From an event to what is shown of it.

pub mod decided;
pub mod explained;
pub mod filter;
pub mod group;
pub mod pipeline;
pub mod side_events;
pub mod sink;
pub mod summary;
pub mod timeline;
