//! A recording through the flow that live events take: decide, explain, sum up. Nothing of this
//! machine is asked.

mod budget;
mod by;
mod document;
mod fit;
pub mod html;
mod part;
mod replay;
mod tables;
mod timeline;

pub use budget::LeftOut;
pub use by::{By, Group, groups};
pub use document::Document;
pub use part::{Part, Window};
pub use replay::{Cut, Replay, Sink, replay};
pub use timeline::{Slice, Timeline, join, sparkline};
