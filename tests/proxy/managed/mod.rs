//! Clients of streams with managed keys send an API key and nothing else, and everything else is refused.

mod access;
mod master;
mod setup;
mod shred;
mod shred_memory;
