//! [`Sink`]: the trait that every output implements.

use anyhow::Result;

use crate::flow::{
    explained::ExplainedRequest,
    lost::LostRow,
    side_events::{MixedAccess, RejectedOpenRow},
    summary::Summary,
};

/// Takes what a [`Pipeline`] has decided, filtered and explained.
///
/// Calls come in the order of the events, but for reads that may be steps of an alignment probe: they
/// come when it is known what they are ([`AlignmentProbes`]). An error from any method means that the output can take
/// no more; it ends tracing or reading.
///
/// [`Pipeline`]: crate::flow::pipeline::Pipeline
/// [`AlignmentProbes`]: crate::flow::alignment_probe::AlignmentProbes
pub trait Sink {
    /// True if requests without a finding are wanted as well, steps of alignment probes included. Only replay calls this: in live
    /// tracing the probes send only what was asked for.
    fn wants_all(&self) -> bool {
        false
    }

    /// Takes a request, with its cause.
    ///
    /// # Errors
    /// The output can take no more.
    fn request(&mut self, record: &ExplainedRequest) -> Result<()>;

    /// Takes the first rejected open of a process, file and call. The summary counts all of them.
    ///
    /// # Errors
    /// The output can take no more.
    fn rejected_open(&mut self, _: &RejectedOpenRow) -> Result<()> {
        Ok(())
    }

    /// Called when a process is first seen to use a file through the page cache that is also used
    /// directly. The summary counts the pages.
    ///
    /// # Errors
    /// The output can take no more.
    fn mixed_access(&mut self, _: &MixedAccess) -> Result<()> {
        Ok(())
    }

    /// Takes a number of requests whose own lines were lost. Only live tracing calls this.
    ///
    /// # Errors
    /// The output can take no more.
    fn lost_requests(&mut self, _: &LostRow) -> Result<()> {
        Ok(())
    }

    /// Writes what is buffered. Called when no event is waiting.
    ///
    /// # Errors
    /// The output can take no more.
    fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    /// Takes the summary at the end of tracing. No method is called after it.
    ///
    /// # Errors
    /// The output can take no more.
    fn summary(&mut self, _: &Summary) -> Result<()> {
        Ok(())
    }
}

/// A sink that takes everything and keeps nothing.
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
