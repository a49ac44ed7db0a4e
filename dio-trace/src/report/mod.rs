//! A recording through the flow that live events take: decide, explain, sum up. Nothing of this
//! machine is asked.

mod by;
mod document;
pub mod html;
mod replay;
mod tables;
mod timeline;

pub use by::{By, Group, groups};
pub use document::Document;
pub use replay::{Cut, Replay, Sink, Window, replay};
pub use timeline::{Slice, Timeline, sparkline};
