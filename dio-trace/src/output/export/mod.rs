//! Requests in the forms that other programs read. The fields are those of docs/json.md.

pub mod csv;
pub mod folded;
pub mod parquet;
pub mod partition;
pub mod perfetto;
mod protobuf;
