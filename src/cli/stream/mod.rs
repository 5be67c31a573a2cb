//! `streamseal stream …`: what is done with one stream at a time.

mod endpoint;
mod hash;
mod keys;
mod migrate;
mod progress;
mod range;
mod records;
mod verify;

use clap::Subcommand;

use super::{Failure, block_on, print};

/// What to do with a stream.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Copy a stream into another one, record by record: from plain to encrypted, back, or between
    /// endpoints. Run it again after an interruption: it goes on where it stopped.
    Migrate(Box<migrate::Args>),
    /// Read a whole stream, and report what does not decrypt, what is plain, and what is missing.
    Verify(Box<verify::Args>),
    /// Give a stream with managed keys a new data key, from the next append on. No record is rewritten.
    RotateKey(keys::RotateKey),
    /// Destroy the data keys of a stream with managed keys: nobody can decrypt its records any more, for ever.
    /// Prints the certificate on standard output.
    Shred(keys::Shred),
}

/// Runs one of the commands.
///
/// # Errors
/// When an endpoint or a file is of no use, or the stream is not as it should be.
pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Migrate(args) => block_on(migrate::run(*args)),
        Command::Verify(args) => block_on(verify::run(*args)),
        Command::RotateKey(args) => block_on(keys::rotate(args)),
        Command::Shred(args) => block_on(keys::shred(args)),
    }
}
