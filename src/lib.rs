//! streamseal: a transparent encrypting reverse proxy for S2-compatible durable streams.
pub mod crypto;
pub mod keys;
pub mod store;
pub mod stream;
