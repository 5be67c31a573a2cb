//! `/api/streams/rotate-key` and `/api/streams/shred`: a stream's managed keys, in the hands of whoever has an API key
//! with scope `manage`, or of the operator where a key management service holds them.

use std::{sync::Arc, time::Duration};

use crate::received::ReceivedBody;
use http::StatusCode;
use serde::Deserialize;

use super::{
    Admin, answer,
    api::{Outcome, Refused, named, parse},
};
use crate::{
    proxy::{Authority, Error, gate::Pass, managed::ShredError, projects::ProjectError},
    registry, store,
};

/// How long appends on their way under keys to be shredded are waited for: less than commands wait for an answer.
const ON_THEIR_WAY: Duration = Duration::from_secs(25);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RotateKey {
    basin: String,
    stream: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Shred {
    basin: String,
    stream: String,
    before: Option<u32>,
}

impl Admin {
    /// With an API key for streams of its project, without one, as the operator, for those whose keys the key
    /// management service holds.
    pub(super) async fn rotate_key(&self, pass: Option<Arc<Pass>>, body: ReceivedBody) -> Outcome {
        let asked: RotateKey = parse(body, "{\"basin\":…,\"stream\":…}").await?;
        let path = named(&asked.basin, &asked.stream)?;
        let proxy = Arc::clone(&self.parts.proxy);
        // Done whether or not the caller waits for it.
        let rotated = tokio::spawn(async move {
            let by = authority(pass.as_ref());
            proxy.rotate_key(&path, by).await
        });
        let rotated = rotated.await.map_err(|_| ProjectError::Broken)??;
        let said = serde_json::json!({ "from": rotated.from, "to": rotated.to });
        Ok(answer::json(StatusCode::OK, &said))
    }

    /// Likewise.
    pub(super) async fn shred(&self, pass: Option<Arc<Pass>>, body: ReceivedBody) -> Outcome {
        let form = "{\"basin\":…,\"stream\":…,\"before\":2}, before being optional";
        let asked: Shred = parse(body, form).await?;
        let path = named(&asked.basin, &asked.stream)?;
        let (proxy, before) = (Arc::clone(&self.parts.proxy), asked.before);
        // Done whether or not the caller waits for it.
        let shredding = tokio::spawn(async move {
            let by = authority(pass.as_ref());
            proxy.shred(&path, before, by, ON_THEIR_WAY).await
        });
        let certificate = shredding.await.map_err(|_| ProjectError::Broken)??;
        Ok(answer::json(StatusCode::OK, &certificate))
    }
}

fn authority(pass: Option<&Arc<Pass>>) -> Authority<'_> {
    pass.map_or(Authority::Operator, Authority::Key)
}

impl From<ShredError> for Refused {
    fn from(error: ShredError) -> Self {
        let (status, code) = match error {
            ShredError::Project(error) => return error.into(),
            ShredError::Proxy(error) => return error.into(),
            ShredError::NoKeys(_) => (StatusCode::NOT_FOUND, "stream_unknown"),
            ShredError::Epoch { .. } => (StatusCode::BAD_REQUEST, "invalid"),
            ShredError::OnTheirWay(_) => (StatusCode::CONFLICT, "appends_under_way"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match &error {
            Error::Raced(_) | Error::Registry(registry::Error::OtherIncarnation(_)) => {
                Self::new(StatusCode::CONFLICT, "conflict", error.to_string())
            }
            Error::Store(unerased @ store::Error::Unerased { .. }) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Self::new(status, "not_erased", unerased.to_string())
            }
            Error::Store(error) => Self::store(error),
            other => {
                let code = other.code();
                Self::new(code.status(), code.as_str(), other.to_string())
            }
        }
    }
}
