//! From an event to what is shown of it.

pub mod filter;
pub mod group;
pub mod record;
pub mod side_events;
pub mod summary;
pub mod timeline;
