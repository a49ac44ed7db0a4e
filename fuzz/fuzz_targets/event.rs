//! What the probes send, and all that is done with it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dio_trace::testing::fuzz::event(bytes));
