//! libFuzzer's way into `sealed_record`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamseal_fuzz::sealed_record(data));
