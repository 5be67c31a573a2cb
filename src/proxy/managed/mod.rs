//! Streams whose keys the proxy makes: each data key wrapped, in the store, and never in clear.

pub mod master;
