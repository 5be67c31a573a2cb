//! What `store rebuild` asks of the upstream: its basins, their streams, and records from both ends of a
//! stream.

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    cli::Failure,
    stream::{BasinName, StreamName, StreamPath},
    upstream::{Target, Upstream},
    wire::{proto, record::StoredRecord},
};

/// Names in one page of a list: the most S2 gives.
const PAGE: usize = 1000;

/// Records that are looked at from each end of a stream.
pub(super) const SAMPLE: usize = 10;

/// Largest answer that is read: a list of 1000 names, or 1 MiB of records and what frames them.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// A stream that the upstream lists, and what was found in it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) path: StreamPath,
    pub(super) created_at: String,
    /// Records from its start and its end; at most two times [`SAMPLE`], some maybe twice.
    pub(super) records: Vec<StoredRecord>,
}

#[derive(Deserialize)]
struct Listed {
    name: String,
    created_at: String,
    #[serde(default)]
    deleted_at: Option<String>,
}

#[derive(Deserialize)]
struct Basins {
    basins: Vec<Listed>,
    has_more: bool,
}

#[derive(Deserialize)]
struct Streams {
    streams: Vec<Listed>,
    has_more: bool,
}

/// Every basin that is not being deleted.
pub(super) async fn basins(upstream: &Upstream) -> Result<Vec<BasinName>, Failure> {
    let mut names = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/basins?start_after={}&limit={PAGE}", encode(&after));
        let page: Basins = json(upstream, Target::Account, &path).await?;
        after = next_page(&after, &page.basins, page.has_more)?;
        for listed in page.basins {
            if listed.deleted_at.is_none() {
                names.push(name(&listed.name)?);
            }
        }
        if after.is_empty() {
            return Ok(names);
        }
    }
}

/// Every stream of a basin that is not being deleted, with some of its records.
pub(super) async fn streams(upstream: &Upstream, basin: &BasinName) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    let mut after = String::new();
    loop {
        let path = format!("/v1/streams?start_after={}&limit={PAGE}", encode(&after));
        let page: Streams = json(upstream, Target::Basin(basin), &path).await?;
        after = next_page(&after, &page.streams, page.has_more)?;
        for listed in page.streams {
            if listed.deleted_at.is_some() {
                continue;
            }
            let stream: StreamName = name(&listed.name)?;
            let path = StreamPath {
                basin: basin.clone(),
                stream,
            };
            let mut records = records(upstream, &path, "seq_num=0").await?;
            records.extend(self::records(upstream, &path, &format!("tail_offset={SAMPLE}")).await?);
            found.push(Found {
                path,
                created_at: listed.created_at,
                records,
            });
        }
        if after.is_empty() {
            return Ok(found);
        }
    }
}

/// What the next page starts after; empty after the last one.
fn next_page(after: &str, page: &[Listed], has_more: bool) -> Result<String, Failure> {
    match page.last() {
        _ if !has_more => Ok(String::new()),
        Some(last) if *last.name > *after => Ok(last.name.clone()),
        Some(_) | None => Err(garbage("a list that does not go on")),
    }
}

async fn records(
    upstream: &Upstream,
    path: &StreamPath,
    from: &str,
) -> Result<Vec<StoredRecord>, Failure> {
    let stream = encode(path.stream.as_str());
    let uri = format!("/v1/streams/{stream}/records?{from}&count={SAMPLE}");
    let target = Target::Basin(&path.basin);
    let (status, body) = fetch(upstream, target, &uri, "application/protobuf").await?;
    match status {
        StatusCode::OK => proto::decode_stored_batch(body)
            .map(|batch| batch.records)
            .map_err(|_| garbage("records that do not decode")),
        // Nothing is stored there.
        StatusCode::RANGE_NOT_SATISFIABLE => Ok(Vec::new()),
        _ => Err(refused(&uri, status, &body)),
    }
}

async fn json<T: DeserializeOwned>(
    upstream: &Upstream,
    target: Target<'_>,
    path: &str,
) -> Result<T, Failure> {
    let (status, body) = fetch(upstream, target, path, "application/json").await?;
    if status != StatusCode::OK {
        return Err(refused(path, status, &body));
    }
    serde_json::from_slice(&body).map_err(|_| garbage("unexpected JSON"))
}

async fn fetch(
    upstream: &Upstream,
    target: Target<'_>,
    path: &str,
    accept: &'static str,
) -> Result<(StatusCode, Bytes), Failure> {
    let request = Request::get(path)
        .header(header::ACCEPT, HeaderValue::from_static(accept))
        .body(crate::cli::serve::empty());
    let request = request.map_err(|_| garbage("a name that makes no path"))?;
    let whole = async {
        let answer = upstream.send(target, request).await;
        let (head, mut body) = answer
            .map_err(|e| Failure::Other(e.to_string()))?
            .into_parts();
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| Failure::Other(e.to_string()))?;
            whole.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
            if whole.len() > MAX_ANSWER_BYTES {
                return Err(garbage("an answer without end"));
            }
        }
        Ok((head.status, whole.freeze()))
    };
    tokio::time::timeout(super::rebuild::ANSWER_TIMEOUT, whole)
        .await
        .unwrap_or_else(|_| Err(Failure::Other(format!("no answer in time to {path}"))))
}

fn name<T: std::str::FromStr>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|_| garbage("an invalid name"))
}

fn encode(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}

fn garbage(what: &str) -> Failure {
    Failure::Other(format!("the upstream answered with {what}"))
}

fn refused(path: &str, status: StatusCode, body: &[u8]) -> Failure {
    /// Enough of an error to tell what it is about.
    const SHOWN_BYTES: usize = 300;
    let body = String::from_utf8_lossy(body.get(..SHOWN_BYTES).unwrap_or(body));
    Failure::Other(format!("the upstream refused {path} with {status}: {body}"))
}
