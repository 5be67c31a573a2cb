//! `streamseal check-config`: is this configuration usable, and what does it come to?

use super::{Failure, block_on, checked, explain, print, tell};
use crate::{
    config::Config,
    registry::rules::Refused,
    store::{Embedded, Error, Kind, Store as _},
    stream::StreamPath,
};

/// Prints the effective configuration if it makes sense, or else what it makes of one stream. There are no
/// secrets in it, only their paths.
///
/// # Errors
/// [`Failure::Config`] with every mistake, and with what would be sealed no longer.
pub(super) fn run(config: &Config, stream: Option<&StreamPath>) -> Result<(), Failure> {
    checked(config)?;
    block_on(async {
        let store = open(config);
        if let Some(store) = &store {
            seals_no_less(config, store).await?;
        }
        match stream {
            Some(stream) => explain::run(config, store.as_ref(), stream).await,
            None => print(&config.to_toml()?),
        }
    })
}

/// The config store, if there is one that no other process uses. Nothing in it is changed.
fn open(config: &Config) -> Option<Embedded> {
    let opened = match config.store.kind {
        Kind::Embedded => Embedded::open_to_look(&config.store),
    };
    match opened {
        Ok(store) => Some(store),
        // Nothing was in force yet.
        Err(Error::Missing(_)) => None,
        Err(error) => {
            tell(&format!(
                "streamseal: whether this seals less than what was in force last cannot be known: {error}"
            ));
            None
        }
    }
}

async fn seals_no_less(config: &Config, store: &Embedded) -> Result<(), Failure> {
    let rules = config
        .rules()
        .map_err(|mistakes| Failure::Config(mistakes.join("\n")))?;
    let last = store.rules().await.map_err(Refused::from)?;
    match rules.unsaid(&last.entry.unwrap_or_default()) {
        unsaid if unsaid.is_empty() => Ok(()),
        unsaid => Err(Refused::SealsLess(unsaid).into()),
    }
}
