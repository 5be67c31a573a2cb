//! The registry's questions to the upstream, as calls of S2's API in the name of one client.

use bytes::Bytes;
use http::{Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::value::RawValue;

use super::{
    Error,
    call::{Caller, Stop, had_no_effect, parse},
    control::PROVISION_RESULT,
};
use crate::{
    registry::{Absence, Created, Creating, Listed, Purpose, Questions},
    stream::StreamPath,
    upstream::Target,
    wire::{json, media::Media, proto},
};

/// Longest `created_at` that is taken: S2's have 30 bytes, and the config store keeps each.
const MAX_TIME_BYTES: usize = 64;

/// Records that are looked at: the first may be commands.
const FIRST_RECORDS: usize = 10;

#[derive(Deserialize)]
struct Stream {
    name: String,
    #[serde(deserialize_with = "short_time")]
    created_at: String,
    deleted_at: Option<String>,
}

#[derive(Deserialize)]
struct List {
    streams: Vec<Stream>,
}

#[derive(Deserialize)]
struct AutoCreate {
    #[serde(default)]
    create_stream_on_append: bool,
    #[serde(default)]
    create_stream_on_read: bool,
}

impl Questions for Caller {
    type Stop = Stop;

    /// A name sorts before every longer name that it starts, so a list of one suffices.
    async fn stream(&self, path: &StreamPath) -> Result<Option<Listed>, Stop> {
        let name = path.stream.as_str();
        let query = format!("/v1/streams?prefix={}&limit=1", encode(name));
        let list: List = parse(self.fetch(Target::Basin(&path.basin), &query).await?)?;
        let mut streams = list.streams.into_iter();
        let found = streams.find(|stream| stream.name == name);
        Ok(found.map(|stream| Listed {
            created_at: stream.created_at,
            is_going: stream.deleted_at.is_some(),
        }))
    }

    async fn tail(&self, path: &StreamPath) -> Result<Option<u64>, Stop> {
        let name = encode(path.stream.as_str());
        let tail = format!("/v1/streams/{name}/records/tail");
        let answer = self.fetch(Target::Basin(&path.basin), &tail).await?;
        match answer.status() {
            StatusCode::OK => {
                let tail = json::decode_tail(answer.body());
                let tail = tail.map_err(|_| Error::Garbage("a tail that does not decode"))?;
                Ok(Some(tail.seq_num))
            }
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(Stop::relay(answer)),
        }
    }

    async fn looks_plain(&self, path: &StreamPath) -> bool {
        let name = encode(path.stream.as_str());
        let first = format!("/v1/streams/{name}/records?seq_num=0&count={FIRST_RECORDS}");
        let target = Target::Basin(&path.basin);
        let answer = match self.fetch_as(target, &first, Media::Proto).await {
            Ok(answer) if answer.status() == StatusCode::OK => answer,
            Ok(_) | Err(_) => return false,
        };
        let Ok(batch) = proto::decode_stored_batch(answer.into_body()) else {
            return false;
        };
        let mut data = batch.records.iter().filter(|record| !record.is_command());
        data.next().is_some_and(|record| record.layout().is_none())
    }

    async fn auto_creates(&self, path: &StreamPath, purpose: Purpose) -> Result<bool, Stop> {
        let basin = format!("/v1/basins/{}", path.basin);
        let config: AutoCreate = parse(self.fetch(Target::Account, &basin).await?)?;
        Ok(match purpose {
            Purpose::Append => config.create_stream_on_append,
            Purpose::Read => config.create_stream_on_read,
        })
    }

    async fn create(&self, path: &StreamPath, config: Option<&str>) -> Result<Created<Stop>, Stop> {
        let body = creation_body(path, config)?;
        let target = Target::Basin(&path.basin);
        let answer = self.post(target, "/v1/streams", body).await?;
        let outcome = outcome(&answer)?;
        let refusal = match outcome {
            Creating::There { .. } => None,
            Creating::Refused => Some(refused(answer, config)),
            Creating::Taken | Creating::Unknown => Some(Stop::relay(answer)),
        };
        Ok(Created { outcome, refusal })
    }

    async fn absence(&self, path: &StreamPath) -> Absence<Stop> {
        let stream = format!("/v1/streams/{}", encode(path.stream.as_str()));
        let answer = self.fetch(Target::Basin(&path.basin), &stream).await;
        let (is_not_found, stop) = match answer {
            Ok(answer) if !answer.status().is_success() => (
                answer.status() == StatusCode::NOT_FOUND,
                Stop::relay(answer),
            ),
            Ok(_) => (
                false,
                Error::Garbage("a stream is listed and not listed").into(),
            ),
            Err(error) => (false, error.into()),
        };
        Absence { is_not_found, stop }
    }
}

/// What an answer to the creation of a stream says.
///
/// # Errors
/// [`Error::Garbage`] for an answer that says "created" and does not say since when.
pub(super) fn outcome(answer: &Response<Bytes>) -> Result<Creating, Error> {
    #[derive(Deserialize)]
    struct There {
        #[serde(deserialize_with = "short_time")]
        created_at: String,
    }
    Ok(match answer.status() {
        StatusCode::OK | StatusCode::CREATED => {
            let there: There = serde_json::from_slice(answer.body())
                .map_err(|_| Error::Garbage("unexpected JSON"))?;
            Creating::There {
                created_at: there.created_at,
                is_new: match answer.headers().get(PROVISION_RESULT) {
                    Some(result) => result == "created",
                    None => answer.status() == StatusCode::CREATED,
                },
            }
        }
        StatusCode::CONFLICT => Creating::Taken,
        status if had_no_effect(status) => Creating::Refused,
        _ => Creating::Unknown,
    })
}

/// The upstream's refusal to create a stream on demand. What is wrong with the configuration is wrong with the
/// header it came in.
fn refused(answer: Response<Bytes>, stream_config: Option<&str>) -> Stop {
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

/// A point in time of the upstream's, kept as it is written.
fn short_time<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let time = String::deserialize(from)?;
    match time.len() {
        0..=MAX_TIME_BYTES => Ok(time),
        _ => Err(D::Error::custom("a point in time that is too long")),
    }
}

fn encode(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}
