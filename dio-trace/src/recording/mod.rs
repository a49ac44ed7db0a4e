//! Recordings: the file, writing one, and reading one back.

pub mod format;
pub mod recorder;
pub mod replay;
