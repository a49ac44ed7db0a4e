//! Recordings of a trace: the file format, the recorder that writes one, and the replay that reads
//! one back.

pub mod format;
pub mod recorder;
pub mod replay;
