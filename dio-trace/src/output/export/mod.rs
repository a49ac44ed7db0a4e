//! The formats of `export`, for other programs. Fields are those of docs/json.md.

pub mod csv;
pub mod folded;
pub mod parquet;
pub mod partition;
pub mod perfetto;
mod protobuf;
