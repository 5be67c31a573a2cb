//! S2's wire formats, one file each: bytes to records and back; no I/O, no HTTP connections.

pub mod compression;
mod error;
pub mod json;
pub mod media;
pub mod proto;
pub mod record;
pub mod s2s;
pub mod sse;

pub use error::DecodeError;

#[cfg(test)]
mod tests;
