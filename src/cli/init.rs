//! `streamseal init`: makes the config store.

use super::{Failure, print};
use crate::{
    config::Config,
    store::{Embedded, Kind},
};

/// Makes a new, empty config store where the configuration says.
///
/// # Errors
/// When there is already a file, or it cannot be written.
pub(super) fn run(config: &Config) -> Result<(), Failure> {
    let path = &config.store.path;
    match config.store.kind {
        Kind::Embedded => {
            Embedded::init(&config.store).map_err(|error| Failure::Other(error.to_string()))?;
        }
    }
    print(&format!("made config store {}\n", path.display()))
}
