//! Clients of streams with managed keys send an API key and nothing else; keys rotate under them without a
//! record being rewritten, and everything that is not as the proxy made it is refused.

mod access;
mod certificate;
mod crash;
mod epochs;
mod master;
mod oracle;
mod policy;
mod sessions;
pub mod setup;
mod shred;
mod shred_memory;
mod switches;
mod tampered;
mod view;
