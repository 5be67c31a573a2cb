//! What `store rebuild` asks of the upstream: its basins, their streams, and records from both ends of a
//! stream.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    cli::Failure,
    config::Config,
    crypto::{Cipher, Layout},
    stream::{BasinName, StreamName, StreamPath},
    telemetry::metrics::Metrics,
    upstream::{Target, Upstream},
    wire::{proto, record::StoredRecord},
};

/// Names in one page of a list: the most S2 gives.
const PAGE: usize = 1000;

/// Records that are looked at from each end of a stream.
pub(super) const SAMPLE: usize = 10;

/// Largest answer that is read: a list of 1000 names, or 1 MiB of records and what frames them.
const MAX_ANSWER_BYTES: usize = 8 * 1024 * 1024;

/// Longest point in time that is believed, as in the proxy: the config store keeps it.
const MAX_TIME_BYTES: usize = 64;

/// Most pages of one listing. An upstream that never ends is cut off here.
const MAX_PAGES: usize = 10_000;

/// Longest wait for a whole answer. The S2 CLI waits as long.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long to wait before asking again: a store that is busy for longer has to be asked another time.
const PAUSES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// A stream that the upstream lists, and what was found in it.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) path: StreamPath,
    pub(super) created_at: String,
    /// What the data records at its start and its end look like, at most two times [`SAMPLE`], some maybe
    /// twice: the cipher that each seems to be encrypted with.
    pub(super) looks: Vec<Option<Cipher>>,
    /// The key epochs that they name: those of keys that a proxy made.
    pub(super) epochs: BTreeSet<u32>,
    /// Whether some seem to be encrypted with a key that clients or files bring.
    pub(super) has_own: bool,
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
    for _ in 0..MAX_PAGES {
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
    Err(garbage("a list without end"))
}

/// How a command gets at the upstream.
#[derive(Debug, clap::Args)]
pub(super) struct Access {
    /// A file with an access token for the upstream that may list and read everything. By default that of
    /// `upstream.access_token_file`.
    #[arg(long, value_name = "FILE")]
    access_token_file: Option<PathBuf>,
}

impl Access {
    /// The upstream of this configuration.
    ///
    /// # Errors
    /// A configuration or a token that is of no use.
    pub(super) fn open(&self, mut config: Config) -> Result<Upstream, Failure> {
        if let Some(file) = &self.access_token_file {
            config.upstream.access_token_file = file.clone().into();
        }
        let metrics = Metrics::new().map_err(|error| Failure::Other(error.to_string()))?;
        Upstream::new(&config.upstream, Arc::new(metrics))
            .map_err(|error| Failure::Config(error.to_string()))
    }
}

/// The number that the next record of a stream gets.
pub(super) async fn tail(upstream: &Upstream, path: &StreamPath) -> Result<u64, Failure> {
    #[derive(Deserialize)]
    struct Tail {
        tail: Position,
    }
    #[derive(Deserialize)]
    struct Position {
        seq_num: u64,
    }
    let uri = format!("/v1/streams/{}/records/tail", encode(path.stream.as_str()));
    let tail: Tail = json(upstream, Target::Basin(&path.basin), &uri).await?;
    Ok(tail.tail.seq_num)
}

/// Every stream of a basin that is not being deleted, with some of its records.
pub(super) async fn streams(upstream: &Upstream, basin: &BasinName) -> Result<Vec<Found>, Failure> {
    streams_with(upstream, basin, "").await
}

/// The same of the streams whose names start with `prefix`.
pub(super) async fn streams_with(
    upstream: &Upstream,
    basin: &BasinName,
    prefix: &str,
) -> Result<Vec<Found>, Failure> {
    let mut found = Vec::new();
    let mut after = String::new();
    let prefix = encode(prefix).to_string();
    for _ in 0..MAX_PAGES {
        let after_name = encode(&after).to_string();
        let path = format!("/v1/streams?prefix={prefix}&start_after={after_name}&limit={PAGE}");
        let page: Streams = json(upstream, Target::Basin(basin), &path).await?;
        after = next_page(&after, &page.streams, page.has_more)?;
        for listed in page.streams {
            if listed.deleted_at.is_some() {
                continue;
            }
            if listed.created_at.len() > MAX_TIME_BYTES {
                return Err(garbage("a point in time that is none"));
            }
            let stream: StreamName = name(&listed.name)?;
            let path = StreamPath {
                basin: basin.clone(),
                stream,
            };
            let start = layouts(upstream, &path, "seq_num=0").await?;
            let end = layouts(upstream, &path, &format!("tail_offset={SAMPLE}")).await?;
            // Gone since it was listed.
            let (Some(mut layouts), Some(end)) = (start, end) else {
                continue;
            };
            layouts.extend(end);
            found.push(Found {
                path,
                created_at: listed.created_at,
                looks: layouts
                    .iter()
                    .map(|layout| layout.map(|layout| layout.cipher))
                    .collect(),
                epochs: layouts
                    .iter()
                    .flatten()
                    .filter_map(|layout| layout.epoch)
                    .collect(),
                has_own: layouts
                    .iter()
                    .flatten()
                    .any(|layout| layout.epoch.is_none()),
            });
        }
        if after.is_empty() {
            return Ok(found);
        }
    }
    Err(garbage("a list without end"))
}

/// What the next page starts after; empty after the last one.
fn next_page(after: &str, page: &[Listed], has_more: bool) -> Result<String, Failure> {
    match page.last() {
        _ if !has_more => Ok(String::new()),
        Some(last) if *last.name > *after => Ok(last.name.clone()),
        Some(_) | None => Err(garbage("a list that does not go on")),
    }
}

/// What some data records of a stream look like; `None` when the stream is gone.
async fn layouts(
    upstream: &Upstream,
    path: &StreamPath,
    from: &str,
) -> Result<Option<Vec<Option<Layout>>>, Failure> {
    let stream = encode(path.stream.as_str());
    let uri = format!("/v1/streams/{stream}/records?{from}&count={SAMPLE}");
    let target = Target::Basin(&path.basin);
    let (status, body) = fetch(upstream, target, &uri, "application/protobuf").await?;
    match status {
        StatusCode::OK => {
            let batch = proto::decode_stored_batch(body);
            let batch = batch.map_err(|_| garbage("records that do not decode"))?;
            let data = batch.records.iter().filter(|record| !record.is_command());
            Ok(Some(data.map(StoredRecord::layout).collect()))
        }
        // Nothing is stored there.
        StatusCode::RANGE_NOT_SATISFIABLE => Ok(Some(Vec::new())),
        StatusCode::NOT_FOUND | StatusCode::CONFLICT => Ok(None),
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

/// Asks, and asks again where that may help.
async fn fetch(
    upstream: &Upstream,
    target: Target<'_>,
    path: &str,
    accept: &'static str,
) -> Result<(StatusCode, Bytes), Failure> {
    for pause in PAUSES {
        match fetch_once(upstream, target, path, accept).await {
            Ok((StatusCode::TOO_MANY_REQUESTS, _)) | Err(_) => {}
            Ok((status, _)) if status.is_server_error() => {}
            Ok(answer) => return Ok(answer),
        }
        tokio::time::sleep(pause).await;
    }
    fetch_once(upstream, target, path, accept).await
}

async fn fetch_once(
    upstream: &Upstream,
    target: Target<'_>,
    path: &str,
    accept: &'static str,
) -> Result<(StatusCode, Bytes), Failure> {
    let request = Request::get(path)
        .header(header::ACCEPT, HeaderValue::from_static(accept))
        .body(crate::cli::open::empty());
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
    tokio::time::timeout(ANSWER_TIMEOUT, whole)
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
