//! `streamseal check-config`: is this configuration usable, and what does it come to?

use super::{Failure, checked, print};
use crate::config::Config;

/// Prints the effective configuration if it makes sense. There are no secrets in it, only their paths.
///
/// # Errors
///
/// [`Failure::Config`] with every mistake.
pub(super) fn run(config: &Config) -> Result<(), Failure> {
    checked(config)?;
    print(&config.to_toml()?)
}
