//! A file that may be a recording.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dio_trace::testing::fuzz::recording(bytes));
