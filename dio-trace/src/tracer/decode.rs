//! Decodes ring-buffer records to events.

use dio_trace_common::abi::{
    BufferedUseEvent, EVENT_BUFFERED_USE, EVENT_FILE, EVENT_REJECTED_OPEN, EVENT_REQUEST,
    FileEvent, RejectedOpen, Request,
};

use crate::{model::Event, util::errno};

/// Decodes one record; `None` if its kind is unknown or its size wrong.
pub(crate) fn decode(bytes: &[u8]) -> Option<Event> {
    let kind = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
    match kind {
        EVENT_REQUEST => {
            let mut request = copy::<Request>(bytes)?;
            request.ret = request.ret.max(-errno::MAX);
            Some(Event::Request(Box::new(request)))
        }
        EVENT_FILE => Some(Event::File(Box::new(copy::<FileEvent>(bytes)?))),
        EVENT_REJECTED_OPEN => Some(Event::RejectedOpen(copy(bytes)?)),
        EVENT_BUFFERED_USE => Some(Event::BufferedUse(copy(bytes)?)),
        _ => None,
    }
}

/// Types for which every byte pattern is a valid value.
///
/// # Safety
/// The type must be `repr(C)` and consist of integers only.
unsafe trait Plain: Copy {}
// SAFETY: as the trait asks.
unsafe impl Plain for Request {}
// SAFETY: as the trait asks.
unsafe impl Plain for FileEvent {}
// SAFETY: as the trait asks.
unsafe impl Plain for RejectedOpen {}
// SAFETY: as the trait asks.
unsafe impl Plain for BufferedUseEvent {}

fn copy<T: Plain>(bytes: &[u8]) -> Option<T> {
    (bytes.len() >= size_of::<T>())
        // SAFETY: long enough, and any bytes are a T; the source need not be aligned.
        .then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_records_are_none() {
        assert!(decode(&[]).is_none());
        assert!(decode(&EVENT_REQUEST.to_ne_bytes()).is_none());
        let mut bytes = vec![0; size_of::<FileEvent>()];
        assert!(decode(&bytes).is_none());
        bytes[..4].copy_from_slice(&EVENT_FILE.to_ne_bytes());
        assert!(matches!(decode(&bytes), Some(Event::File(_))));
        bytes[..4].copy_from_slice(&EVENT_REQUEST.to_ne_bytes());
        assert!(matches!(decode(&bytes), Some(Event::Request(_))));
        assert!(decode(&bytes[..size_of::<Request>() - 1]).is_none());
        for (kind, size) in [
            (EVENT_REJECTED_OPEN, size_of::<RejectedOpen>()),
            (EVENT_BUFFERED_USE, size_of::<BufferedUseEvent>()),
        ] {
            bytes[..4].copy_from_slice(&kind.to_ne_bytes());
            assert!(decode(&bytes[..size]).is_some());
            assert!(decode(&bytes[..size - 1]).is_none());
        }
    }
}
