//! What `/ready` says of the key management service, and of the streams whose keys it does not unwrap.

use serde::Serialize;

use super::{ready::Check, status::time};
use crate::keys::kms::{Kms, Trouble};

/// Streams that are named. How many there are is said besides.
const MAX_NAMED: usize = 20;

/// The check of the service. It makes no proxy unready: streams whose keys are held go on, and every other proxy
/// would ask the same service.
#[derive(Debug, Serialize)]
pub(super) struct KmsCheck {
    #[serde(flatten)]
    pub(super) check: Check,
    /// Streams that cannot be decrypted now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    streams: Vec<Closed>,
}

#[derive(Debug, Serialize)]
struct Closed {
    stream: String,
    key_epoch: u32,
    /// Not the service's own words, which may name accounts: everybody may ask this. They are in the log.
    reason: String,
    since: String,
}

impl KmsCheck {
    /// As it is now. Asks the service nothing.
    pub(super) fn of(kms: &Kms) -> Self {
        let troubles = kms.troubles();
        let outcome = match kms.away() {
            Some(away) => Err(format!("{}, since {}", away.error, time(away.since))),
            None if troubles.is_empty() => Ok("no failure in the last ten minutes".to_owned()),
            None => Ok(format!(
                "it answers; data keys that it does not unwrap: {}",
                troubles.len()
            )),
        };
        Self {
            check: Check::of(outcome),
            streams: troubles.iter().take(MAX_NAMED).map(Closed::of).collect(),
        }
    }
}

impl Closed {
    fn of(trouble: &Trouble) -> Self {
        Self {
            stream: trouble.stream.to_string(),
            key_epoch: trouble.epoch,
            reason: trouble.error.to_string(),
            since: time(trouble.since),
        }
    }
}
