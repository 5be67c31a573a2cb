//! The admin API: what the proxy is and does, what the config store records, and the little to change.

use std::time::SystemTime;

use crate::received::ReceivedBody;
use http::{Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::{Admin, answer, answer::Info, export, query::ListQuery, status};
use crate::{
    store::Listed,
    stream::{NameError, StreamPath},
    upstream::Body,
};

/// Largest body of a request: the longest names take 600 bytes, six-fold escaped.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Why a call has no answer of its own.
pub(super) struct Refused(StatusCode, &'static str, String);

impl Refused {
    pub(super) fn new(status: StatusCode, code: &'static str, why: impl Into<String>) -> Self {
        Self(status, code, why.into())
    }

    pub(super) fn invalid(why: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, "invalid", why.into())
    }

    pub(super) fn store(error: &impl std::fmt::Display) -> Self {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        Self(status, "store_unavailable", error.to_string())
    }

    /// The same within an answer that has begun.
    pub(super) fn info(&self) -> Info<'_> {
        Info {
            code: self.1,
            message: &self.2,
        }
    }

    pub(super) fn answer(&self) -> Response<Body> {
        let mut response = answer::error(self.0, self.1, &self.2);
        if self.0 == StatusCode::UNAUTHORIZED {
            super::challenge(&mut response);
        }
        response
    }
}

#[derive(Serialize)]
pub(super) struct Rows<T> {
    pub(super) rows: Vec<T>,
    /// What to send as `after` for the rows that follow.
    pub(super) next: Option<String>,
}

#[derive(Serialize)]
struct ErrorRow {
    time: String,
    code: String,
    fault: &'static str,
    operation: &'static str,
    request_id: Option<String>,
    stream: Option<String>,
    message: String,
}

pub(super) type Outcome = Result<Response<Body>, Refused>;

/// The stream of these names.
pub(super) fn named(basin: &str, stream: &str) -> Result<StreamPath, Refused> {
    let wrong = |what, error| Refused::invalid(format!("{what}: {error}"));
    Ok(StreamPath {
        basin: basin
            .parse()
            .map_err(|error: NameError| wrong("basin", error))?,
        stream: stream
            .parse()
            .map_err(|error: NameError| wrong("stream", error))?,
    })
}

/// What a request asks for in its body. What is wrong with it is not quoted.
pub(super) async fn parse<T: DeserializeOwned>(
    body: ReceivedBody,
    form: &str,
) -> Result<T, Refused> {
    let body = Limited::new(body, MAX_BODY_BYTES).collect();
    let body = match timeout(super::BODY_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Err(Refused::invalid("the body is too large or broke off")),
        Err(_) => return Err(Refused::invalid("the body did not come in time")),
    };
    serde_json::from_slice(&body).map_err(|_| Refused::invalid(format!("the body must be {form}")))
}

impl Admin {
    pub(super) async fn basins(&self, query: Option<&str>) -> Outcome {
        let ListQuery { page, basin } = ListQuery::parse(query)?;
        if basin.is_some() {
            return Err(Refused::invalid("basin: lists of basins take no basin"));
        }
        // Never closed, so there always is a turn in the end.
        let _turn = self.lists.acquire().await;
        let listed = self.parts.store.basins_page(page).await;
        let Listed { found, next } = listed.map_err(|error| Refused::store(&error))?;
        let rows = found.iter().filter_map(|(name, found)| {
            Some(self.parts.proxy.basin_view(name, found.entry.as_ref()?))
        });
        let rows = rows.collect();
        Ok(answer::json(StatusCode::OK, &Rows { rows, next }))
    }

    pub(super) async fn streams(&self, query: Option<&str>) -> Outcome {
        let ListQuery { page, basin } = ListQuery::parse(query)?;
        let _turn = self.lists.acquire().await;
        let listed = self.parts.store.streams_page(basin, page).await;
        let Listed { found, next } = listed.map_err(|error| Refused::store(&error))?;
        let rows = found.iter().filter_map(|(path, found)| {
            Some(self.parts.proxy.stream_view(path, found.entry.as_ref()?))
        });
        let rows = rows.collect();
        Ok(answer::json(StatusCode::OK, &Rows { rows, next }))
    }

    pub(super) fn errors(&self) -> Outcome {
        let errors = self.parts.recent.snapshot();
        let rows = errors.into_iter().map(|failed| ErrorRow {
            time: failed.time,
            code: failed.code,
            fault: failed.fault,
            operation: failed.operation,
            request_id: Some(failed.request_id),
            stream: match (failed.basin, failed.stream) {
                (Some(basin), Some(stream)) => Some(format!("{basin}/{stream}")),
                (basin, stream) => basin.or(stream),
            },
            message: failed.cause,
        });
        let (rows, next) = (rows.collect(), None);
        Ok(answer::json(StatusCode::OK, &Rows { rows, next }))
    }

    pub(super) async fn status(&self) -> Outcome {
        let look = self.parts.readiness.look().await;
        let report = self.parts.readiness.report().await;
        let status = status::Status::of(self, look.as_deref(), &report, SystemTime::now());
        Ok(answer::json(StatusCode::OK, &status))
    }

    pub(super) async fn export(&self) -> Outcome {
        let turn = std::sync::Arc::clone(&self.exports).try_acquire_owned();
        let turn = turn.map_err(|_| {
            let message = "another export is running".to_owned();
            Refused(StatusCode::TOO_MANY_REQUESTS, "busy", message)
        })?;
        let store = std::sync::Arc::clone(&self.parts.store);
        let body = export::begin(store, turn).await;
        let body = body.map_err(|error| Refused::store(&error))?;
        Ok(answer::answer(StatusCode::OK, "application/jsonl", body))
    }
}
