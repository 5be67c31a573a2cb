//! `/api/streams/unpin`, `admit` and `set-cipher`: what an operator says of the entry of one stream.

use std::sync::Arc;

use crate::received::ReceivedBody;
use http::StatusCode;
use serde::Deserialize;

use super::{
    Admin, answer,
    api::{Outcome, Refused, named, parse},
};
use crate::{
    registry::{Applied, rules::RuleCipher, table::Event},
    store::StreamEntry,
    stream::StreamPath,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    basin: String,
    stream: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Admit {
    basin: String,
    stream: String,
    created_at: Option<String>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetCipher {
    basin: String,
    stream: String,
    cipher: RuleCipher,
}

impl Admin {
    pub(super) async fn unpin(&self, body: ReceivedBody) -> Outcome {
        let asked: Named = parse(body, "{\"basin\":…,\"stream\":…}").await?;
        let path = named(&asked.basin, &asked.stream)?;
        match self.apply(path, Event::Unpinned).await? {
            Applied::Unchanged(None) => {
                let message = "nothing is recorded of this stream".to_owned();
                Err(Refused::new(
                    StatusCode::NOT_FOUND,
                    "stream_unknown",
                    message,
                ))
            }
            unpinned => {
                let was_pinned = matches!(unpinned, Applied::Changed { .. });
                let said = serde_json::json!({ "was_pinned": was_pinned });
                Ok(answer::json(StatusCode::OK, &said))
            }
        }
    }

    /// Records a stream as plain. With `dry_run`, says what is recorded of it.
    pub(super) async fn admit_stream(&self, body: ReceivedBody) -> Outcome {
        let form =
            "{\"basin\":…,\"stream\":…,\"created_at\":…}, or \"dry_run\":true for created_at";
        let asked: Admit = parse(body, form).await?;
        let path = named(&asked.basin, &asked.stream)?;
        let created_at = match (asked.created_at, asked.dry_run) {
            (_, true) => {
                let found = self.parts.store.stream(&path).await;
                let found = found.map_err(|error| Refused::store(&error))?;
                return Ok(changed(found.entry.as_deref(), false));
            }
            (Some(created_at), false) => created_at,
            (None, false) => return Err(Refused::invalid(format!("the body must be {form}"))),
        };
        match self.apply(path, Event::Admitted { created_at }).await? {
            Applied::Changed { before, .. } => {
                tracing::warn!(
                    stream = asked.stream,
                    basin = asked.basin,
                    "stream admitted as plain"
                );
                Ok(changed(before.as_ref(), true))
            }
            Applied::Unchanged(entry) => Ok(changed(entry.as_ref(), false)),
            Applied::Contradicted(why) => Err(Refused::new(
                StatusCode::CONFLICT,
                "conflict",
                why.to_string(),
            )),
        }
    }

    pub(super) async fn set_cipher(&self, body: ReceivedBody) -> Outcome {
        let form = "{\"basin\":…,\"stream\":…,\"cipher\":\"aegis-256\"|\"aes-256-gcm\"|\"none\"}";
        let asked: SetCipher = parse(body, form).await?;
        let path = named(&asked.basin, &asked.stream)?;
        let cipher = asked.cipher.cipher();
        match self.apply(path, Event::CipherSet { cipher }).await? {
            Applied::Changed { before, .. } => {
                let (stream, basin) = (asked.stream, asked.basin);
                tracing::warn!(stream, basin, ?cipher, "cipher set by the operator");
                Ok(changed(before.as_ref(), true))
            }
            Applied::Unchanged(entry) => Ok(changed(entry.as_ref(), false)),
            Applied::Contradicted(why) => Err(Refused::new(
                StatusCode::CONFLICT,
                "conflict",
                why.to_string(),
            )),
        }
    }

    /// Done whether or not the caller waits for it: store and cache go together.
    async fn apply(&self, path: StreamPath, event: Event) -> Result<Applied, Refused> {
        let proxy = Arc::clone(&self.parts.proxy);
        let applied = tokio::spawn(async move { proxy.apply(&path, &event).await }).await;
        let applied = applied.map_err(|error| Refused::store(&error))?;
        applied.map_err(|error| Refused::store(&error))
    }
}

/// The entry before, and whether it is another one now.
fn changed(before: Option<&StreamEntry>, changed: bool) -> http::Response<crate::upstream::Body> {
    let state = match before.map(|entry| entry.state.cipher()) {
        None => "unknown",
        Some(None) => "plain",
        Some(Some(_)) => "encrypted",
    };
    let origin = before.map(|entry| entry.origin);
    let said = serde_json::json!({ "before": state, "origin": origin, "changed": changed });
    answer::json(StatusCode::OK, &said)
}
