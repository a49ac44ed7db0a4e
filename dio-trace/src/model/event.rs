//! The records that the probes send through the ring buffer.

use dio_trace_common::abi::{BufferedUseEvent, FileEvent, RejectedOpen, Request};

/// One record from the ring buffer.
pub enum Event {
    Request(Box<Request>),
    File(Box<FileEvent>),
    RejectedOpen(RejectedOpen),
    BufferedUse(BufferedUseEvent),
}
