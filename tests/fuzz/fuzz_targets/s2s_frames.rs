//! libFuzzer's way into `s2s_frames`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamseal_fuzz::s2s_frames(data));
