//! Wiping the stack of what cryptography leaves there: copies of keys and round keys in frames that are gone.

use std::hint::black_box;

/// Bytes that AEGIS-256 may use: its state and a block or two, in frames of 250 bytes.
pub(super) const AEGIS: usize = depth(1024);

/// Bytes that AES-256-GCM may use. With AVX-512 it spreads all round keys, the first two of which are the
/// key, over a frame of 4032 bytes, and again below it: 6 KiB were seen to leave some of them.
pub(super) const GCM: usize = depth(16 * 1024);

/// Bytes that setting a key up may use: an AES key schedule on its way to the heap (2 KiB), a BLAKE3 state.
pub(super) const SETUP: usize = depth(16 * 1024);

/// These figures are for optimised code, as found by scanning its memory (`tests/proxy/memory.rs` with
/// `STREAMSEAL_PROGRAM`, x86-64). What is not optimised keeps many
/// more copies.
const fn depth(bytes: usize) -> usize {
    if cfg!(debug_assertions) {
        32 * 1024
    } else {
        bytes
    }
}

/// Runs `work`, then overwrites `DEPTH` bytes of the stack that it used. What it returns must hold no
/// secret itself, only point to it.
#[inline(always)]
pub(super) fn scrubbed<const DEPTH: usize, T>(work: impl FnOnce() -> T) -> T {
    let result = apart(work);
    scrub::<DEPTH>();
    result
}

/// In a frame of its own, so that all of it lies where [`scrub`] writes.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn scrub<const DEPTH: usize>() {
    // A fresh array takes the place of the frames that were there; looking at it keeps the zeros.
    black_box(&mut [0_u8; DEPTH]);
}
