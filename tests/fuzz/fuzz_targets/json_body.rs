//! libFuzzer's way into `json_body`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamseal_fuzz::json_body(data));
