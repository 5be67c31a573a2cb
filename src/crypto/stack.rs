//! Wiping the stack of what cryptography leaves there: copies of keys and round keys in frames that are gone.

use std::hint::black_box;

/// Bytes that are wiped after work on one record, and after setting up a key. What is not optimised keeps
/// many more copies.
const DEPTHS: [usize; 2] = if cfg!(debug_assertions) {
    [32 * 1024; 2]
} else {
    [1536, 4096]
};

/// Work on one record: AEGIS-256 and AES-256-GCM keep their state in registers and a few hundred bytes.
pub(super) const RECORD: usize = DEPTHS[0];

/// Work that sets a key up, once per request: an AES key schedule, a BLAKE3 state.
pub(super) const SETUP: usize = DEPTHS[1];

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
