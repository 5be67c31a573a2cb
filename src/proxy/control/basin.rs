//! Basin calls: `stream_cipher` is taken out on the way up and put back on the way down.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::{
    Answered, Control, MAX_TOKEN_BYTES, PROVISION_RESULT, REQUEST_TOKEN, object::Object, with_body,
};
use crate::{
    crypto::Cipher,
    proxy::{
        Error,
        call::{Caller, Stop, had_no_effect},
    },
    registry::{Error as RegistryError, Registry},
    store::{BasinEntry, Revision},
    stream::BasinName,
    upstream::Target,
};

/// The field of a basin's configuration that this proxy owns.
const FIELD: &str = "stream_cipher";

/// `POST /v1/basins`
pub(super) async fn create(registry: &Registry, caller: &Caller, control: &Control) -> Answered {
    let mut request = Object::of_client(control.required_json()?)?;
    let asked = take_from_config(&mut request)?;
    let Some(name) = request
        .peek::<String>("basin")
        .and_then(|name| name.parse().ok())
    else {
        // No basin can come of it: the upstream words the refusal.
        return send(caller, control, Some(&request), None).await;
    };
    let _lock = registry.lock(&name).await?;
    let change = CipherChange::new(registry, &name, asked, WhenAbsent::Clear).await?;
    let new = change.after;
    let change = change.announce(registry, caller).await?;
    let answer = send(caller, control, Some(&request), new).await?;
    let settled = if answer.status().is_success() {
        change.after_creation(registry, &answer).await
    } else {
        change.after_refusal(registry, answer.status()).await
    };
    settled.map_err(|error| Error::from(error).after_acting())?;
    Ok(answer)
}

/// `GET /v1/basins/{basin}`
pub(super) async fn configuration(
    registry: &Registry,
    caller: &Caller,
    control: &Control,
    name: &BasinName,
) -> Answered {
    let answer = send(caller, control, None, None).await?;
    show(registry, name, answer).await
}

/// `PUT /v1/basins/{basin}`
pub(super) async fn ensure(
    registry: &Registry,
    caller: &Caller,
    control: &Control,
    name: &BasinName,
) -> Answered {
    let mut request = control
        .json()?
        .map(|json| Object::of_client(json))
        .transpose()?;
    let asked = match &mut request {
        Some(request) => take_from_config(request)?,
        None => None,
    };
    let _lock = registry.lock(name).await?;
    // Ensure replaces the whole configuration: a cipher left out is a cipher removed.
    let change = CipherChange::new(registry, name, asked, WhenAbsent::Clear).await?;
    let differs = change.before != change.after;
    let change = change.announce(registry, caller).await?;
    let mut answer = change
        .around(registry, send(caller, control, request.as_ref(), None))
        .await?;
    let headers = answer.headers_mut();
    if differs
        && headers
            .get(PROVISION_RESULT)
            .is_some_and(|result| result == "noop")
    {
        headers.insert(PROVISION_RESULT, HeaderValue::from_static("updated"));
    }
    Ok(answer)
}

/// `PATCH /v1/basins/{basin}`
pub(super) async fn reconfigure(
    registry: &Registry,
    caller: &Caller,
    control: &Control,
    name: &BasinName,
) -> Answered {
    let mut request = Object::of_client(control.required_json()?)?;
    let asked = request.take::<Option<Cipher>>(FIELD)?;
    let _lock = registry.lock(name).await?;
    let change = CipherChange::new(registry, name, asked, WhenAbsent::Keep).await?;
    let answer = change
        .around(registry, send(caller, control, Some(&request), None))
        .await?;
    show(registry, name, answer).await
}

/// `DELETE /v1/basins/{basin}`
///
/// Every stream of the basin dies with it. What is recorded of the basin stays until it is made
/// again, so that nothing turns plain while it is going.
pub(super) async fn delete(
    registry: &Registry,
    caller: &Caller,
    control: &Control,
    name: &BasinName,
) -> Answered {
    // Marking every stream is much work: not for somebody the upstream would turn away.
    if !exists(caller, name).await? {
        return send(caller, control, None, None).await;
    }
    let _lock = registry.lock(name).await?;
    let doomed = registry.begin_basin_deletion(name).await?;
    let answer = send(caller, control, None, None).await?;
    if answer.status().is_success() {
        let finished = registry.finish_basin_deletion(&doomed).await;
        finished.map_err(|error| Error::from(error).after_acting())?;
    } else if had_no_effect(answer.status()) && answer.status() != StatusCode::NOT_FOUND {
        let reverted = registry.revert_basin_deletion(doomed).await;
        reverted.map_err(|error| Error::from(error).after_acting())?;
    }
    Ok(answer)
}

/// What a request without `stream_cipher` means.
enum WhenAbsent {
    Keep,
    Clear,
}

/// A basin's cipher before and after a call.
struct CipherChange<'a> {
    name: &'a BasinName,
    revision: Revision,
    recorded: Option<BasinEntry>,
    before: Option<Cipher>,
    after: Option<Cipher>,
    /// The cipher is in force before the upstream hears of the basin.
    is_announced: bool,
}

impl<'a> CipherChange<'a> {
    /// Works out what the call asks for. The caller holds the basin's lock.
    async fn new(
        registry: &Registry,
        name: &'a BasinName,
        asked: Option<Option<Cipher>>,
        absent: WhenAbsent,
    ) -> Result<Self, Error> {
        let found = registry.basin_entry(name).await?;
        let recorded = found.entry.as_deref().cloned();
        let before = recorded.as_ref().and_then(|entry| entry.stream_cipher);
        let after = match (registry.declared(name), asked) {
            (Some(declared), None) => declared,
            // In S2 `null` is the same as nothing, and clients always send it.
            (Some(declared), Some(None)) if matches!(absent, WhenAbsent::Clear) => declared,
            (Some(declared), Some(asked)) if asked == declared => declared,
            (Some(_), Some(_)) => return Err(Error::Declared(name.to_string())),
            (None, Some(asked)) => asked,
            (None, None) => match absent {
                WhenAbsent::Keep => before,
                WhenAbsent::Clear => None,
            },
        };
        Ok(Self {
            name,
            revision: found.revision,
            recorded,
            before,
            after,
            is_announced: false,
        })
    }

    /// Makes a call upstream, and records the change of cipher once the upstream says that it succeeded.
    async fn around(self, registry: &Registry, call: impl Future<Output = Answered>) -> Answered {
        let answer = call.await?;
        let settled = match answer.status().is_success() {
            true => self.commit(registry).await.map(|_| ()),
            false => self.after_refusal(registry, answer.status()).await,
        };
        settled.map_err(|error| Error::from(error).after_acting())?;
        Ok(answer)
    }

    /// Takes an announced cipher back if the upstream promises that nothing happened.
    async fn after_refusal(
        self,
        registry: &Registry,
        status: StatusCode,
    ) -> Result<(), RegistryError> {
        match self.is_announced && had_no_effect(status) {
            true => self.revert(registry).await,
            false => Ok(()),
        }
    }

    /// Records the cipher of a basin that the upstream says was created, or was there already.
    ///
    /// Its word can bring a cipher into force, never put one out of force: a basin keeps the cipher it
    /// has, unless it was deleted through this proxy, or its creation never had an answer, and no stream
    /// was created in it since.
    async fn after_creation(
        self,
        registry: &Registry,
        answer: &Response<Bytes>,
    ) -> Result<(), RegistryError> {
        let result = answer.headers().get(PROVISION_RESULT);
        let is_new = result.is_none_or(|result| result == "created");
        let was_deleted = self.recorded.as_ref().is_some_and(|entry| entry.deleted);
        let keeps_cipher = self.before.is_some() && self.after.is_none() && !was_deleted;
        // A client that asked for a cipher and is told that all is well has one.
        let first_cipher = self.before.is_none() && self.after.is_some();
        if self.is_announced || first_cipher || (is_new && !keeps_cipher) {
            self.commit(registry).await?;
        }
        Ok(())
    }

    /// Puts the cipher of a basin that does not exist yet in force until it is created, with this cipher or, if
    /// nothing comes of this call, with another. A cipher of a basin that exists is in force once the upstream
    /// answered: before, nobody was promised anything.
    async fn announce(self, registry: &Registry, caller: &Caller) -> Result<Self, Stop> {
        let brings_cipher = self.after.is_some() && self.before != self.after;
        if !brings_cipher || exists(caller, self.name).await? {
            return Ok(self);
        }
        let announced = self.record(registry, true).await?;
        Ok(Self {
            is_announced: true,
            ..announced
        })
    }

    async fn commit(self, registry: &Registry) -> Result<Self, RegistryError> {
        self.record(registry, false).await
    }

    async fn record(self, registry: &Registry, deleted: bool) -> Result<Self, RegistryError> {
        if registry.declared(self.name).is_some() {
            // The rule is in force by itself.
            return Ok(self);
        }
        let entry = BasinEntry {
            stream_cipher: self.after,
            declared: false,
            deleted,
        };
        let nothing_to_record = self.recorded.is_none() && self.after.is_none();
        if self.recorded.as_ref() == Some(&entry) || nothing_to_record {
            return Ok(self);
        }
        registry
            .record_basin(self.name, self.revision, Some(entry))
            .await?;
        let revision = registry.basin_entry(self.name).await?.revision;
        Ok(Self { revision, ..self })
    }

    async fn revert(self, registry: &Registry) -> Result<(), RegistryError> {
        let found = registry.basin_entry(self.name).await?;
        if found.entry.as_deref() == self.recorded.as_ref() {
            return Ok(());
        }
        registry
            .record_basin(self.name, found.revision, self.recorded)
            .await
    }
}

async fn exists(caller: &Caller, name: &BasinName) -> Result<bool, Stop> {
    let answer = caller
        .fetch(Target::Account, &format!("/v1/basins/{name}"))
        .await?;
    match answer.status() {
        StatusCode::OK => Ok(true),
        StatusCode::NOT_FOUND => Ok(false),
        _ => Err(Stop::relay(answer)),
    }
}

/// Takes the cipher out of `config`; `Some(None)` is an explicit `null`.
fn take_from_config(request: &mut Object) -> Result<Option<Option<Cipher>>, Error> {
    let Some(Some(mut config)) = request.take::<Option<Object>>("config")? else {
        return Ok(None);
    };
    let cipher = config.take(FIELD)?;
    request.set("config", &config)?;
    Ok(cipher)
}

/// Sends the request with a rewritten body, and a request token that tells ciphers apart: S2 takes
/// the same token with another cipher for another request.
async fn send(
    caller: &Caller,
    control: &Control,
    body: Option<&Object>,
    cipher: Option<Cipher>,
) -> Answered {
    let body = body.map(Object::to_json).transpose()?.map(Bytes::from);
    let mut request = control.to_upstream(body);
    if let Some(cipher) = cipher
        && let Some(token) = request.headers().get(REQUEST_TOKEN)
    {
        let mut hasher = blake3::Hasher::new_derive_key("streamseal/v1/request-token");
        hasher.update(token.as_bytes()).update(&[0]);
        hasher.update(cipher.as_str().as_bytes());
        let folded = hasher.finalize().to_hex();
        let folded = folded.as_str().get(..MAX_TOKEN_BYTES).unwrap_or_default();
        let folded = HeaderValue::from_str(folded)
            .map_err(|_| Error::BadHeader("Invalid header `s2-request-token`".into()))?;
        request.headers_mut().insert(REQUEST_TOKEN, folded);
    }
    Ok(caller.exchange(Target::Account, request).await?)
}

/// Puts the basin's cipher into an answer that holds its configuration.
async fn show(registry: &Registry, name: &BasinName, answer: Response<Bytes>) -> Answered {
    if answer.status() != StatusCode::OK {
        return Ok(answer);
    }
    let recorded = registry.basin_entry(name).await?.entry;
    let cipher = match (registry.declared(name), recorded) {
        (Some(declared), _) => declared,
        (None, Some(entry)) => entry.stream_cipher,
        (None, None) => None,
    };
    let mut config = Object::of_upstream(answer.body())?;
    config.set(FIELD, &cipher)?;
    let mut answer = with_body(answer, config.to_json()?);
    answer.headers_mut().remove(header::ETAG);
    Ok(answer)
}
