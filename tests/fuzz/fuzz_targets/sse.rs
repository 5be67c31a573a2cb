//! libFuzzer's way into `sse`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamseal_fuzz::sse(data));
