//! The promises of streamseal, each against a real `s2-lite` and over real TLS; a module per promise.

#[path = "proxy/harness/mod.rs"]
mod harness;
#[path = "proxy/smoke.rs"]
mod smoke;
