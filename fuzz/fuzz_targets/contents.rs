//! Blocks with sound heads and check sums, whatever they hold.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dio_trace::testing::fuzz::contents(bytes));
