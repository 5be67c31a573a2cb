//! Wiping the stack of what cryptography leaves there: copies of keys and round keys in frames that are gone.

use std::hint::black_box;

/// Bytes that are wiped. The deepest call, setting up AES-256-GCM, takes less; without optimisation every
/// value that is passed on is one more copy.
const DEPTH: usize = if cfg!(debug_assertions) {
    32 * 1024
} else {
    4 * 1024
};

/// Runs `work`, then overwrites the stack that it used. What it returns must hold no secret itself, only
/// point to it.
#[inline(always)]
pub(super) fn scrubbed<T>(work: impl FnOnce() -> T) -> T {
    let result = apart(work);
    scrub();
    result
}

/// In a frame of its own, so that all of it lies where [`scrub`] writes.
#[inline(never)]
fn apart<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn scrub() {
    // A fresh array takes the place of the frames that were there; looking at it keeps the zeros.
    black_box(&mut [0_u8; DEPTH]);
}
