//! The contract of every output.

use anyhow::Result;

use crate::flow::{
    explained::ExplainedRequest,
    side_events::{MixedAccess, RejectedOpenRow},
    summary::Summary,
};

/// Takes what a [`Pipeline`] has decided, explained and let through its filter.
///
/// Calls come in the order of the events. An error from any of them means that the output can take
/// no more: tracing or reading ends with it.
///
/// [`Pipeline`]: crate::flow::pipeline::Pipeline
pub trait Sink {
    /// True if requests without a finding are wanted as well. Only a recording asks: of live
    /// tracing the probes send what was asked for.
    fn wants_all(&self) -> bool {
        false
    }

    /// A request, with its cause.
    ///
    /// # Errors
    /// As the trait says.
    fn request(&mut self, record: &ExplainedRequest) -> Result<()>;

    /// The first rejected open of its process, file and call. The summary counts all of them.
    ///
    /// # Errors
    /// As the trait says.
    fn rejected_open(&mut self, _: &RejectedOpenRow) -> Result<()> {
        Ok(())
    }

    /// A process was seen for the first time to use a file through the page cache that is also used
    /// directly. The summary counts the pages.
    ///
    /// # Errors
    /// As the trait says.
    fn mixed_access(&mut self, _: &MixedAccess) -> Result<()> {
        Ok(())
    }

    /// No event is waiting: what is buffered is written now.
    ///
    /// # Errors
    /// As the trait says.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// The end of tracing. Nothing is called after it.
    ///
    /// # Errors
    /// As the trait says.
    fn summary(&mut self, _: &Summary) -> Result<()> {
        Ok(())
    }
}

/// Takes everything and keeps nothing.
#[cfg(any(test, fuzzing))]
pub(crate) struct Discard;

#[cfg(any(test, fuzzing))]
impl Sink for Discard {
    fn wants_all(&self) -> bool {
        true
    }

    fn request(&mut self, _: &ExplainedRequest) -> Result<()> {
        Ok(())
    }
}
