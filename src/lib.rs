//! streamseal: a transparent encrypting reverse proxy for S2-compatible durable streams.
//!
//! Clients speak the ordinary S2 API to it. It seals every record's headers and body before they
//! reach the upstream store and opens them on the way back, so that the store holds only ciphertext
//! and never sees a key.
//!
//! # What is promised
//!
//! - No data record of a stream with a cipher reaches the upstream in clear, and no key ever does.
//!   A body for an append to such a stream can only be built from [`crypto::Sealed`] records, and only
//!   [`crypto::StreamCipher::seal`] makes those; forwarding a body as it is takes a proof that the
//!   config store says "plain".
//! - Only authenticated plaintext reaches a client from a stream with a cipher.
//! - When the config store cannot answer, the request is refused.
//! - A managed key is stored wrapped, and the process alone cannot unwrap it: it takes an API key of the
//!   stream's project, or the key management service. "No key" and "not encrypted" are different types.
//!
//! # What is not
//!
//! The upstream still learns names, sizes, times and counts, can reorder, repeat or drop whole
//! records within one stream, and sees command records (fence, trim) in clear.
//!
//! # Life of a request
//!
//! [`server`] accepts it, [`proxy`] lets it in (by an API key: [`proxy::gate`]) and routes it, [`store`]
//! says which cipher its stream has, [`keys`] which key it carries, or who can unwrap the key that the proxy
//! made for the stream, [`body`] turns bytes into records with [`wire`] and seals or opens them with
//! [`crypto`], [`upstream`] carries it to the store and back.

pub mod cli;
pub mod config;
pub mod server;

pub mod proxy;

pub mod body;
pub mod keys;
pub mod registry;
pub mod store;
pub mod upstream;

pub mod wire;

pub mod certificate;
pub mod clock;
pub mod crypto;
pub mod drain;
pub mod file;
pub mod process;
pub mod project;
pub mod received;
pub mod size;
pub mod stream;
pub mod telemetry;

#[global_allocator]
static ALLOCATOR: zeroizing_alloc::ZeroAlloc<mimalloc::MiMalloc> = process::ALLOCATOR;
