//! Questions to the upstream about streams and basins, none of which changes anything there.

use http::StatusCode;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::{Asked, Outcome, Purpose};
use crate::{
    proxy::{
        Error,
        call::{Caller, Stop, parse},
    },
    stream::{BasinName, StreamName},
    upstream::Target,
    wire::json,
};

/// Names in one page of a list: the most S2 gives.
const PAGE: usize = 1000;

/// Most pages of one listing: ten million streams. An upstream that never ends is cut off here.
const MAX_PAGES: usize = 10_000;

/// Longest point in time that is believed: S2's have 30 bytes, and the config store keeps each.
const MAX_TIME_BYTES: usize = 64;

/// A stream as the upstream lists it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Listed {
    /// Its name.
    pub(super) name: String,
    /// When this incarnation was made, as the upstream writes it.
    #[serde(deserialize_with = "short_time")]
    pub(super) created_at: String,
    /// When it was deleted, if it is being deleted.
    pub(super) deleted_at: Option<String>,
}

#[derive(Deserialize)]
struct List {
    streams: Vec<Listed>,
    has_more: bool,
}

#[derive(Deserialize)]
struct AutoCreate {
    #[serde(default)]
    create_stream_on_append: bool,
    #[serde(default)]
    create_stream_on_read: bool,
}

/// Asks whether a stream exists. A name sorts before every longer name that it starts, so a list of
/// one suffices.
pub(super) async fn stream(asked: &Asked<'_>) -> Outcome<Option<Listed>> {
    let name = asked.path.stream.as_str();
    let path = format!("/v1/streams?prefix={}&limit=1", encode(name));
    let list: List = parse(asked.caller.fetch(asked.basin(), &path).await?)?;
    Ok(list.streams.into_iter().find(|stream| stream.name == name))
}

/// The upstream's own words for a stream that is not there or is being deleted.
pub(super) async fn absence(asked: &Asked<'_>) -> Stop {
    let path = format!("/v1/streams/{}", encode(asked.path.stream.as_str()));
    match asked.caller.fetch(asked.basin(), &path).await {
        Ok(answer) if !answer.status().is_success() => Stop::relay(answer),
        Ok(_) => Error::Garbage("a stream is listed and not listed").into(),
        Err(error) => error.into(),
    }
}

/// The number that the next record of a stream gets; `None` when there is no such stream.
pub(super) async fn tail(asked: &Asked<'_>) -> Outcome<Option<u64>> {
    let name = encode(asked.path.stream.as_str());
    let path = format!("/v1/streams/{name}/records/tail");
    let answer = asked.caller.fetch(asked.basin(), &path).await?;
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

/// Whether the basin creates missing streams for this purpose.
pub(super) async fn auto_creates(asked: &Asked<'_>, purpose: Purpose) -> Outcome<bool> {
    let path = format!("/v1/basins/{}", asked.path.basin);
    let config: AutoCreate = parse(asked.caller.fetch(Target::Account, &path).await?)?;
    Ok(match purpose {
        Purpose::Append => config.create_stream_on_append,
        Purpose::Read => config.create_stream_on_read,
    })
}

/// Pages through every stream of a basin.
pub(super) struct Streams<'a> {
    basin: &'a BasinName,
    caller: &'a Caller,
    after: Option<StreamName>,
    pages: usize,
    done: bool,
}

impl<'a> Streams<'a> {
    pub(super) fn of(basin: &'a BasinName, caller: &'a Caller) -> Self {
        Self {
            basin,
            caller,
            after: None,
            pages: 0,
            done: false,
        }
    }

    /// The next page; `None` after the last, or when there is no such basin.
    pub(super) async fn page(&mut self) -> Outcome<Option<Vec<(StreamName, Listed)>>> {
        if self.done {
            return Ok(None);
        }
        if self.pages == MAX_PAGES {
            return Err(Error::Garbage("a list of streams without end").into());
        }
        self.pages += 1;
        let after = self.after.as_ref().map_or("", StreamName::as_str);
        let path = format!("/v1/streams?start_after={}&limit={PAGE}", encode(after));
        let answer = self.caller.fetch(Target::Basin(self.basin), &path).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            self.done = true;
            return Ok(None);
        }
        let list: List = parse(answer)?;
        self.done = !list.has_more;
        let mut page = Vec::with_capacity(list.streams.len());
        for listed in list.streams {
            let name: StreamName = listed
                .name
                .parse()
                .map_err(|_| Error::Garbage("a list with an invalid stream name"))?;
            if self.after.as_ref().is_some_and(|after| *after >= name) {
                return Err(Error::Garbage("a list of streams out of order").into());
            }
            self.after = Some(name.clone());
            page.push((name, listed));
        }
        if page.is_empty() && !self.done {
            return Err(Error::Garbage("an empty page of streams that is not the last").into());
        }
        Ok(Some(page))
    }
}

impl Asked<'_> {
    pub(super) fn basin(&self) -> Target<'_> {
        Target::Basin(&self.path.basin)
    }
}

/// A point in time of the upstream's, kept as it is written.
pub(super) fn short_time<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let time = String::deserialize(from)?;
    match time.len() {
        0..=MAX_TIME_BYTES => Ok(time),
        _ => Err(D::Error::custom("a point in time that is too long")),
    }
}

fn encode(text: &str) -> impl std::fmt::Display {
    utf8_percent_encode(text, NON_ALPHANUMERIC)
}
