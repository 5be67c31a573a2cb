//! Bodies as streams: whole request bodies within bounds, append and read sessions with back-pressure.

mod acks;
mod budget;
mod collect;
mod frames;
mod inputs;
mod keys;
mod limit;
mod meter;
mod outgoing;
mod reader;

pub use acks::{AckError, Acks, Answer};
pub use budget::{Budget, Charge, Cutoff, FREE_BYTES, MIN_BUDGET_BYTES, NoRoom, Rest, Room};
pub use collect::{CollectError, collect};
pub use inputs::{InputError, Inputs};
pub use keys::{EpochKey, EpochKeys, MAX_UNUSED, SessionKeys};
pub use limit::ReadLimit;
pub use meter::Meter;
pub use outgoing::{Ended, SealedBody, SealedSender};
pub use reader::{Opened, ReadError, Reader};
