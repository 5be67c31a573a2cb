//! libFuzzer's way into `protobuf`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| streamseal_fuzz::protobuf(data));
