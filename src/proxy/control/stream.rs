//! Stream calls: every stream shows the cipher that the config store has for it.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, StatusCode, header};

use super::{
    Answered, Control,
    object::{Object, Page},
    own, with_body,
};
use crate::{
    crypto::Cipher,
    proxy::{
        Error,
        call::{Caller, Stop, had_no_effect},
        managed::Keyring,
        probe,
    },
    registry::{Registry, table::Event},
    store::Origin,
    stream::{BasinName, StreamPath},
    upstream::Target,
};

/// Longest wait for appends that are on their way to a stream with managed keys that is deleted.
const LEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// The field of a stream's description that this proxy owns.
const FIELD: &str = "cipher";

/// `POST /v1/streams`
pub(super) async fn create(
    (registry, keyring): (&Registry, &Arc<Keyring>),
    caller: &Caller,
    control: &Control,
    basin: &BasinName,
) -> Answered {
    let request = Object::of_client(control.required_json()?)?;
    let Some(stream) = request
        .peek::<String>("stream")
        .and_then(|name| name.parse().ok())
    else {
        // No stream can come of it: the upstream words the refusal.
        return send(caller, control, basin).await;
    };
    let path = StreamPath {
        basin: basin.clone(),
        stream,
    };
    provision((registry, keyring), caller, control, &path).await
}

/// `PUT /v1/streams/{stream}`
pub(super) async fn ensure(
    (registry, keyring): (&Registry, &Arc<Keyring>),
    caller: &Caller,
    control: &Control,
    path: &StreamPath,
) -> Answered {
    control.json()?;
    provision((registry, keyring), caller, control, path).await
}

/// `DELETE /v1/streams/{stream}`
pub(super) async fn delete(
    (registry, keyring): (&Registry, &Arc<Keyring>),
    caller: &Caller,
    control: &Control,
    path: &StreamPath,
) -> Answered {
    let _lock = registry.lock(&path.basin).await?;
    let doomed = registry.begin_deletion(path).await?;
    if doomed.has_managed_keys {
        // What is on its way goes before: it must not reach a stream that is created again and has other keys.
        let leases = &keyring.leases;
        leases
            .wait_until_none_below(path, u32::MAX, LEASE_TIMEOUT)
            .await;
    }
    let answer = send(caller, control, &path.basin).await?;
    let outcome = match answer.status() {
        status if status.is_success() => Event::Deleted,
        status if had_no_effect(status) && !is_gone_or_going(status) => Event::DeleteRefused,
        _ => return Ok(answer),
    };
    let finished = registry.finish_deletion(&doomed, outcome).await;
    finished.map_err(|error| Error::from(error).after_acting())?;
    Ok(answer)
}

/// Whether a refused deletion leaves it open if the stream lives: it is not there, it is being deleted
/// already, or another change was faster. The mark of the deletion stays then, and is settled before
/// the next use.
fn is_gone_or_going(status: StatusCode) -> bool {
    matches!(status, StatusCode::NOT_FOUND | StatusCode::CONFLICT)
}

/// `GET /v1/streams`
pub(super) async fn list(
    registry: &Registry,
    caller: &Caller,
    control: &Control,
    basin: &BasinName,
) -> Answered {
    let answer = match caller.principal().is_limited() {
        true => own::streams(caller, control, basin).await?,
        false => send(caller, control, basin).await?,
    };
    if answer.status() != StatusCode::OK {
        return Ok(answer);
    }
    let mut list = Object::of_upstream(answer.body())?;
    let streams: Option<Page> = list.peek("streams");
    let mut streams = streams.ok_or(Error::Garbage("a list of streams that is none"))?;
    for stream in streams.objects() {
        let name = stream
            .peek::<String>("name")
            .and_then(|name| name.parse().ok());
        let path = StreamPath {
            basin: basin.clone(),
            stream: name.ok_or(Error::Garbage("a list with an invalid stream name"))?,
        };
        show(stream, registry.shown_cipher(&path).await?)?;
    }
    list.set("streams", &streams)?;
    Ok(with_body(answer, list.to_json()?))
}

async fn provision(
    (registry, keyring): (&Registry, &Arc<Keyring>),
    caller: &Caller,
    control: &Control,
    path: &StreamPath,
) -> Answered {
    let _lock = registry.lock(&path.basin).await?;
    let creation = registry.begin(path, Origin::Created).await?;
    let answer = send(caller, control, &path.basin).await?;
    let outcome = probe::outcome(&answer)?;
    let cipher = registry
        .finish(creation, &outcome, caller)
        .await
        .map_err(Stop::after_acting)?;
    if !matches!(answer.status(), StatusCode::OK | StatusCode::CREATED) {
        return Ok(answer);
    }
    keyring.created(path, caller).await;
    let mut stream = Object::of_upstream(answer.body())?;
    show(&mut stream, cipher)?;
    Ok(with_body(answer, stream.to_json()?))
}

/// Shows the recorded cipher. A stream without a record is forwarded in clear: whatever the upstream
/// says of encryption of its own, from here it is plain.
fn show(stream: &mut Object, recorded: Option<Option<Cipher>>) -> Result<(), Error> {
    stream.set(FIELD, &recorded.flatten())
}

async fn send(caller: &Caller, control: &Control, basin: &BasinName) -> Answered {
    let body = (!control.body.is_empty()).then(|| control.body.clone());
    let mut request = control.to_upstream(body);
    request
        .headers_mut()
        .insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    Ok(caller.exchange(Target::Basin(basin), request).await?)
}
