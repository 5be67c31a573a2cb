//! What the proxy tells its operator of basins and streams, and the little that an operator may change.

use serde::Serialize;

use super::Proxy;
use crate::{
    crypto::Cipher,
    keys,
    registry::{Applied, rules::KeySource, table::Event},
    store::{self, BasinEntry, DataKeys, Holder, Origin, StreamEntry, StreamState},
    stream::{BasinName, StreamPath},
};

/// A basin that is recorded.
#[derive(Debug, Clone, Serialize)]
pub struct BasinView {
    /// Its name.
    pub basin: String,
    /// The cipher that its new streams take; none leaves them plain.
    pub stream_cipher: Option<Cipher>,
    /// Whether the configuration file declares that, so that the API cannot change it.
    pub declared: bool,
    /// Whether its deletion was sent upstream, or its first creation has no outcome yet.
    pub deleted: bool,
}

/// A stream that is recorded.
#[derive(Debug, Clone, Serialize)]
pub struct StreamView {
    /// Its basin.
    pub basin: String,
    /// Its name.
    pub stream: String,
    /// Its cipher; none for a plain stream.
    pub cipher: Option<Cipher>,
    /// Whether it is there, or what is under way.
    pub state: State,
    /// Where its key comes from; none for a plain stream.
    pub key_source: Option<KeyFrom>,
    /// Whether a key other than its own is refused; none for a plain stream.
    pub key_check: Option<KeyState>,
    /// The keys that the proxy made for it; left out where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_epochs: Option<KeyEpochs>,
    /// How it got into the config store.
    pub origin: Origin,
    /// The upstream's `created_at`, once it has been seen.
    pub created_at: Option<String>,
    /// Whether the configuration file declares another cipher than it has: it is refused then.
    pub conflict: bool,
}

/// The keys that the proxy made for a stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyEpochs {
    /// The project whose master key wraps them; none for a key management service.
    pub project: Option<String>,
    /// How many there were.
    pub count: usize,
    /// How many of them were shredded.
    pub shredded: usize,
    /// The epoch that seals; none when it was shredded.
    pub current: Option<u32>,
    /// When the newest was made, in milliseconds since the Unix epoch.
    pub created_at: Option<u64>,
    /// At most so many records were sealed under the newest.
    pub records: Option<u64>,
}

/// Whether a stream is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is.
    Live,
    /// Its creation has no outcome yet.
    Creating,
    /// Its deletion has no outcome yet.
    Deleting,
}

/// Where a stream's key comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyFrom {
    /// Clients send it.
    Header,
    /// A file of the operator's.
    File,
    /// A file of the operator's, unless a client sends one.
    FileOrHeader,
    /// The proxy made it, wrapped in the master key of the stream's project.
    Managed,
    /// The proxy made it, wrapped by a key management service.
    Kms,
}

/// Whether a key other than the stream's own is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyState {
    /// Its key is known, and any other is refused.
    Pinned,
    /// Its key is not known yet: the next good append or read pins it.
    NotPinned,
    /// Keys are not checked.
    Off,
    /// The proxy made its keys, and knows which record is under which.
    Managed,
}

impl Proxy {
    /// What there is to say of a basin with this entry.
    pub fn basin_view(&self, name: &BasinName, entry: &BasinEntry) -> BasinView {
        let rule = self.registry.rules().basin(name);
        BasinView {
            basin: name.to_string(),
            stream_cipher: rule.unwrap_or(entry.stream_cipher),
            declared: rule.is_some(),
            deleted: entry.deleted,
        }
    }

    /// What there is to say of a stream with this entry.
    pub fn stream_view(&self, path: &StreamPath, entry: &StreamEntry) -> StreamView {
        let rules = self.registry.rules();
        let rule = rules.stream(path);
        let cipher = entry.state.cipher();
        let (state, created_at) = match &entry.state {
            StreamState::Live(life) => (State::Live, life.created_at.clone()),
            StreamState::Creating { .. } => (State::Creating, None),
            StreamState::Deleting(life) => (State::Deleting, life.created_at.clone()),
        };
        let key_source = match rule.map(|rule| (rule.key_source(), rule.header_overrides())) {
            None | Some((KeySource::Header, _)) => KeyFrom::Header,
            Some((KeySource::Managed, _)) => KeyFrom::Managed,
            Some((KeySource::Kms, _)) => KeyFrom::Kms,
            Some((KeySource::File, false)) => KeyFrom::File,
            Some((KeySource::File, true)) => KeyFrom::FileOrHeader,
        };
        let is_managed = matches!(key_source, KeyFrom::Managed | KeyFrom::Kms);
        let key_check = match (self.key_check, entry.key_check) {
            _ if is_managed => KeyState::Managed,
            (keys::Check::Off, _) => KeyState::Off,
            (keys::Check::Enforce, Some(_)) => KeyState::Pinned,
            (keys::Check::Enforce, None) => KeyState::NotPinned,
        };
        StreamView {
            basin: path.basin.to_string(),
            stream: path.stream.to_string(),
            cipher,
            state,
            key_source: cipher.map(|_| key_source),
            key_check: cipher.map(|_| key_check),
            key_epochs: entry.data_keys.as_ref().map(key_epochs),
            origin: entry.origin,
            created_at,
            conflict: rule.is_some_and(|rule| rule.cipher != cipher),
        }
    }

    /// Applies an operator's command to the entry of a stream. Requests that run go on with what they looked up.
    ///
    /// # Errors
    /// The config store fails.
    pub async fn apply(&self, path: &StreamPath, event: &Event) -> Result<Applied, store::Error> {
        self.registry.apply(path, event).await
    }
}

fn key_epochs(keys: &DataKeys) -> KeyEpochs {
    let newest = keys.current().or(keys.keys.last());
    KeyEpochs {
        project: match &keys.holder {
            Holder::Project(name) => Some(name.to_string()),
            Holder::Kms => None,
        },
        count: keys.keys.len(),
        shredded: keys.keys.iter().filter(|key| key.wrapped.is_none()).count(),
        current: keys.current().map(|key| key.epoch),
        created_at: newest.map(|key| key.created_at),
        records: newest.map(|key| key.sealed.records),
    }
}
