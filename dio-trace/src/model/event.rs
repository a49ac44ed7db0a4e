//! The records that the probes send through the ring buffer.

use dio_trace_common::abi::{FileEvent, MixerEvent, Refusal, Request};

/// One record from the ring buffer.
pub enum Event {
    Request(Box<Request>),
    File(Box<FileEvent>),
    Refusal(Refusal),
    Mixer(MixerEvent),
}
