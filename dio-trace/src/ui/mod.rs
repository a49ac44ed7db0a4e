//! The screen: a line per finding, and a closing summary.

mod columns;
mod screen;

pub use screen::{Screen, Style};
