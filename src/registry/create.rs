//! Creating streams: the intent is durable before the upstream hears of it, the outcome is recorded
//! when it answers.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Asked, Basin, Outcome, Registry, probe};
use crate::{
    crypto::Cipher,
    proxy::{
        Error,
        call::{Caller, Stop, had_no_effect},
    },
    store::{
        BasinEntry, Error as StoreError, Incarnation, Origin, StreamEntry, StreamState, Versioned,
    },
    stream::{BasinName, StreamPath},
};

/// What a new incarnation of a stream will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its cipher.
    pub cipher: Option<Cipher>,
    /// The incarnation that was there before, if one is known.
    pub replaces: Option<Incarnation>,
}

/// A stream to create because a request needs it.
pub struct NewStream<'a> {
    /// What it will be.
    pub planned: Planned,
    /// The client's `s2-stream-config`: JSON.
    pub stream_config: Option<&'a str>,
}

/// A creation that a client asked for, between intent and outcome. The basin's lock is held for as
/// long as it lives.
pub struct Creation {
    path: StreamPath,
    before: Versioned<Arc<StreamEntry>>,
    planned: Planned,
    /// The entry as this creation wrote it; `before` when it wrote none.
    intent: Versioned<Arc<StreamEntry>>,
}

/// What the upstream says of a stream it created or found.
#[derive(Deserialize)]
struct Created {
    #[serde(deserialize_with = "probe::short_time")]
    created_at: String,
}

impl Registry {
    /// Records that a stream is about to be created with the cipher of this moment. The caller holds
    /// the basin's lock.
    ///
    /// Nothing is recorded for a plain stream that has no entry, or for one that lives.
    ///
    /// # Errors
    /// The store cannot answer or write; a declared basin cannot be taken over.
    pub async fn begin(&self, path: &StreamPath, caller: &Caller) -> Outcome<Creation> {
        if let Basin::Unadopted(cipher) = self.basin(&path.basin).await? {
            self.adopt(&path.basin, cipher, caller).await?;
        }
        self.settle_creation(&Asked { path, caller }).await?;
        let cipher = self.planned_cipher(path).await?;
        let before = self.store.stream(path).await?;
        let replaces = match before.entry.as_deref().map(|entry| &entry.state) {
            None => None,
            Some(StreamState::Deleting(life)) => Some(life.clone()),
            Some(StreamState::Creating { replaces, .. }) => replaces.clone(),
            Some(StreamState::Live(life)) if life.cipher.is_none() && cipher.is_some() => {
                self.is_gone(&Asked { path, caller }, life).await?
            }
            Some(StreamState::Live(_)) => None,
        };
        let lives = matches!(
            before.entry.as_deref().map(|entry| &entry.state),
            Some(StreamState::Live(_))
        ) && replaces.is_none();
        let nothing_to_remember = before.entry.is_none() && cipher.is_none();
        let planned = Planned { cipher, replaces };
        let intent = if lives || nothing_to_remember {
            before.clone()
        } else {
            self.intend(path, &before, &planned, Origin::Created)
                .await?
        };
        Ok(Creation {
            path: path.clone(),
            before,
            planned,
            intent,
        })
    }

    /// Records the outcome of a creation, and returns the cipher that the stream has now; `None` when
    /// nothing is recorded of it.
    ///
    /// # Errors
    /// The store cannot write. The intent then stays, and is settled before the next use.
    pub async fn finish(
        &self,
        creation: Creation,
        answer: &Response<Bytes>,
    ) -> Result<Option<Option<Cipher>>, Error> {
        let entry = match answer.status() {
            StatusCode::OK | StatusCode::CREATED => {
                let Ok(Created { created_at }) = serde_json::from_slice(answer.body()) else {
                    return Err(Error::Garbage("unexpected JSON"));
                };
                self.confirm_basin(&creation.path.basin).await?;
                creation.after(created_at, is_new(answer))
            }
            status if had_no_effect(status) => creation.before.entry.as_deref().cloned(),
            // Anything may have happened: the intent, if there is one, stays.
            _ => creation.intent.entry.as_deref().cloned(),
        };
        if entry.as_ref() != creation.intent.entry.as_deref() {
            let revision = creation.intent.revision;
            let recorded = self.record(&creation.path, revision, entry.clone()).await;
            let wrote_intent = revision != creation.before.revision;
            match recorded {
                // Of a stream that lived all along, somebody recorded something newer.
                Err(Error::Store(StoreError::Conflict(_))) if !wrote_intent => {}
                recorded => recorded?,
            }
        }
        Ok(entry.map(|entry| entry.state.cipher()))
    }

    /// The cipher that a stream gets if it is created now.
    pub(super) async fn planned_cipher(&self, path: &StreamPath) -> Result<Option<Cipher>, Error> {
        let rules = self.rules();
        match rules.stream(path) {
            Some(rule) => Ok(rule.cipher),
            None => Ok(self.basin_by(&rules, &path.basin).await?.cipher()),
        }
    }

    /// Creates a stream because a request needs it. The caller holds the basin's lock and looks the
    /// stream up again afterwards.
    pub(super) async fn create_on_demand(
        &self,
        asked: &Asked<'_>,
        new: NewStream<'_>,
    ) -> Outcome<()> {
        let body = creation_body(asked.path, new.stream_config)?;
        let before = self.store.stream(asked.path).await?;
        let intent = self
            .intend(asked.path, &before, &new.planned, Origin::AutoCreated)
            .await?;
        let answer = asked
            .caller
            .post(asked.basin(), "/v1/streams", body)
            .await?;
        let created_at = match answer.status() {
            StatusCode::OK | StatusCode::CREATED => {
                serde_json::from_slice::<Created>(answer.body())
                    .map(|created| Some(created.created_at))
                    .map_err(|_| Error::Garbage("unexpected JSON"))?
            }
            // Somebody was faster. Whoever it was, the stream is sealed if the basin seals.
            StatusCode::CONFLICT => match probe::stream(asked).await? {
                Some(listed) if listed.deleted_at.is_none() => Some(listed.created_at),
                Some(_) | None => {
                    self.restore(asked.path, &intent, &before).await?;
                    return Err(Stop::relay(answer));
                }
            },
            status if had_no_effect(status) => {
                self.restore(asked.path, &intent, &before).await?;
                return Err(refused_creation(answer, new.stream_config));
            }
            _ => return Err(Stop::relay(answer)),
        };
        let entry = StreamEntry {
            state: StreamState::Live(Incarnation {
                cipher: new.planned.cipher,
                created_at,
            }),
            origin: Origin::AutoCreated,
            key_check: None,
            data_keys: before.entry.as_deref().and_then(StreamEntry::inherited),
        };
        self.record(asked.path, intent.revision, Some(entry))
            .await?;
        Ok(self.confirm_basin(&asked.path.basin).await?)
    }

    /// A stream was made in the basin, so it is there: a mark of its deletion, or of a creation whose
    /// outcome is not known, no longer lets go of its cipher.
    async fn confirm_basin(&self, basin: &BasinName) -> Result<(), Error> {
        let found = self.store.basin(basin).await?;
        match found.entry.as_deref() {
            Some(entry) if entry.deleted => {
                let entry = BasinEntry {
                    deleted: false,
                    ..entry.clone()
                };
                self.record_basin(basin, found.revision, Some(entry)).await
            }
            Some(_) | None => Ok(()),
        }
    }

    async fn intend(
        &self,
        path: &StreamPath,
        before: &Versioned<Arc<StreamEntry>>,
        planned: &Planned,
        origin: Origin,
    ) -> Result<Versioned<Arc<StreamEntry>>, Error> {
        let entry = StreamEntry {
            state: StreamState::Creating {
                cipher: planned.cipher,
                replaces: planned.replaces.clone(),
            },
            origin,
            key_check: None,
            data_keys: before
                .entry
                .as_deref()
                .and_then(|entry| entry.data_keys.clone()),
        };
        self.record(path, before.revision, Some(entry)).await?;
        Ok(self.store.stream(path).await?)
    }

    async fn restore(
        &self,
        path: &StreamPath,
        intent: &Versioned<Arc<StreamEntry>>,
        before: &Versioned<Arc<StreamEntry>>,
    ) -> Result<(), Error> {
        let entry = before.entry.as_deref().cloned();
        self.record(path, intent.revision, entry).await
    }

    /// The life of a plain stream that is not there any more; `None` while it is.
    async fn is_gone(&self, asked: &Asked<'_>, life: &Incarnation) -> Outcome<Option<Incarnation>> {
        let listed = probe::stream(asked).await?;
        let lives =
            listed.is_some_and(|listed| life.created_at.as_ref() == Some(&listed.created_at));
        Ok((!lives).then(|| life.clone()))
    }
}

impl Creation {
    /// What to record once the upstream says that the stream is there, and whether it is new.
    fn after(&self, created_at: String, is_new: bool) -> Option<StreamEntry> {
        let before = self.before.entry.as_deref();
        let live = |cipher, created_at| StreamEntry {
            state: StreamState::Live(Incarnation {
                cipher,
                created_at: Some(created_at),
            }),
            origin: Origin::Created,
            key_check: None,
            // The upstream alone says that it is another stream now.
            data_keys: before.and_then(StreamEntry::inherited),
        };
        let Some(before) = before else {
            // Not new and not known: made around this proxy. It stays unknown.
            let known = is_new && self.planned.cipher.is_some();
            return known.then(|| live(self.planned.cipher, created_at));
        };
        let same = |life: &Incarnation| life.created_at.as_ref() == Some(&created_at);
        match &before.state {
            // Gone and made again without this proxy: retention, or somebody else. What was sealed
            // stays sealed, whatever the upstream says of it.
            StreamState::Live(life) if self.planned.replaces.is_none() && is_new && !same(life) => {
                let entry = live(self.planned.cipher.or(life.cipher), created_at);
                // Recorded with its keys before it was there at all: an append under them may be on its way.
                let is_first = life.created_at.is_none() && entry.state.cipher() == life.cipher;
                Some(match is_first {
                    true => StreamEntry {
                        data_keys: before.data_keys.clone(),
                        ..entry
                    },
                    false => entry,
                })
            }
            // A plain stream keeps the `created_at` that it was plain with, and is refused if it has
            // another one now.
            StreamState::Live(life) if self.planned.replaces.is_none() && life.cipher.is_none() => {
                Some(before.clone())
            }
            StreamState::Live(life) if self.planned.replaces.is_none() => Some(StreamEntry {
                state: StreamState::Live(Incarnation {
                    cipher: life.cipher,
                    created_at: Some(created_at),
                }),
                ..before.clone()
            }),
            StreamState::Live(life) if same(life) => Some(before.clone()),
            StreamState::Live(_) | StreamState::Deleting(_) | StreamState::Creating { .. }
                if is_new =>
            {
                Some(live(self.planned.cipher, created_at))
            }
            StreamState::Deleting(life) if same(life) => Some(StreamEntry {
                state: StreamState::Live(life.clone()),
                ..before.clone()
            }),
            // An earlier creation of ours whose outcome was not known until now.
            StreamState::Creating { cipher, replaces } => match replaces {
                Some(old) if same(old) => Some(StreamEntry {
                    state: StreamState::Deleting(old.clone()),
                    ..before.clone()
                }),
                _ => Some(live(*cipher, created_at)),
            },
            StreamState::Live(_) | StreamState::Deleting(_) => Some(before.clone()),
        }
    }
}

/// Whether the upstream says that it made the stream just now.
fn is_new(answer: &Response<Bytes>) -> bool {
    match answer
        .headers()
        .get(crate::proxy::control::PROVISION_RESULT)
    {
        Some(result) => result == "created",
        None => answer.status() == StatusCode::CREATED,
    }
}

/// The upstream's refusal to create a stream on demand. What is wrong with the configuration is wrong
/// with the header it came in.
fn refused_creation(answer: Response<Bytes>, stream_config: Option<&str>) -> Stop {
    #[derive(Deserialize)]
    struct Info {
        message: String,
    }
    let is_about_body = matches!(
        answer.status(),
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY
    );
    let info = serde_json::from_slice::<Info>(answer.body());
    match info {
        Ok(Info { message }) if is_about_body && stream_config.is_some() => {
            Error::RefusedConfig(message).into()
        }
        _ => Stop::relay(answer),
    }
}

fn creation_body(path: &StreamPath, stream_config: Option<&str>) -> Result<Vec<u8>, Error> {
    #[derive(Serialize)]
    struct Body<'a> {
        stream: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        config: Option<&'a RawValue>,
    }
    let config = stream_config
        .map(serde_json::from_str::<&RawValue>)
        .transpose();
    let config = config
        .map_err(|error| Error::BadHeader(format!("Invalid header `s2-stream-config`: {error}")))?;
    let body = Body {
        stream: path.stream.as_str(),
        config,
    };
    serde_json::to_vec(&body).map_err(|_| Error::Invalid("stream name is not JSON text".into()))
}
