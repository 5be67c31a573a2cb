//! Lists for a caller that may use some streams only: pages of these alone, as if there were nothing else.

use http::{HeaderValue, Response, StatusCode, Uri, header};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::{
    Answered, Control,
    object::{Object, Page},
    with_body,
};
use crate::{
    project::Scope,
    proxy::{
        Error,
        call::{Caller, Stop},
    },
    stream::{BasinName, StreamPath},
    upstream::Target,
};

/// Most entries on a page: S2's figure.
const MAX_ENTRIES: usize = 1000;

/// Most pages of the upstream that one page is made of: 100,000 entries of others between two of one's own.
const MAX_PAGES: usize = 100;

/// `GET /v1/streams`: those that the caller may read.
pub(super) async fn streams(caller: &Caller, control: &Control, basin: &BasinName) -> Answered {
    let is_own = |name: &str| {
        let stream = name.parse().ok();
        stream.is_some_and(|stream| {
            let basin = basin.clone();
            let path = StreamPath { basin, stream };
            caller.principal().allow_stream(Scope::Read, &path).is_ok()
        })
    };
    list(caller, control, Target::Basin(basin), "streams", is_own).await
}

/// `GET /v1/basins`: those that have streams that the caller may read.
pub(super) async fn basins(caller: &Caller, control: &Control) -> Answered {
    let is_own = |name: &str| {
        let basin = name.parse().ok();
        let principal = caller.principal();
        basin.is_some_and(|basin| principal.allow_within(Scope::Read, &basin).is_ok())
    };
    list(caller, control, Target::Account, "basins", is_own).await
}

/// A page of the entries that are `is_own`. Whether another follows depends on these alone, too.
async fn list(
    caller: &Caller,
    control: &Control,
    target: Target<'_>,
    field: &str,
    is_own: impl Fn(&str) -> bool,
) -> Answered {
    let mut query = ListQuery::of(control.uri.query())?;
    let limit = query.limit;
    let mut own: Vec<Object> = Vec::new();
    let mut size = limit + 1;
    for round in 1..=MAX_PAGES {
        let answer = send(caller, control, target, &query.page(size)).await?;
        if answer.status() != StatusCode::OK {
            return Ok(answer);
        }
        let mut page = Object::of_upstream(answer.body())?;
        let (entries, has_more) = taken_apart(&page, field)?;
        let last = entries.last().map(|(name, _)| name.clone());
        let entries = entries.into_iter().filter(|(name, _)| is_own(name));
        own.extend(entries.map(|(_, entry)| entry));
        let goes_on = own.len() > limit || (has_more && round == MAX_PAGES && !own.is_empty());
        if let (true, false, Some(last)) = (has_more, goes_on, last) {
            query.go_on(last)?;
            size = MAX_ENTRIES;
            continue;
        }
        own.truncate(limit);
        page.set(field, &Page::of(own))?;
        page.set("has_more", &goes_on)?;
        return Ok(with_body(answer, page.to_json()?));
    }
    let message = "too many entries that are not yours among them: ask with a longer `prefix`";
    Err(Error::Invalid(message.into()).into())
}

/// The entries of a page with their names, and whether another page follows.
fn taken_apart(page: &Object, field: &str) -> Result<(Vec<(String, Object)>, bool), Error> {
    const NO_LIST: Error = Error::Garbage("a list that is none");
    let entries: Page = page.peek(field).ok_or(NO_LIST)?;
    let has_more = page.peek("has_more").ok_or(NO_LIST)?;
    let named = |entry: Object| Some((entry.peek::<String>("name")?, entry));
    let entries = entries.into_objects().into_iter().map(named);
    let entries: Option<Vec<_>> = entries.collect();
    Ok((entries.ok_or(NO_LIST)?, has_more))
}

async fn send(caller: &Caller, control: &Control, target: Target<'_>, query: &str) -> Answered {
    let mut request = control.to_upstream(None);
    let uri = format!("{}?{query}", control.uri.path());
    *request.uri_mut() = Uri::try_from(uri).map_err(|_| bad_query("not a URI"))?;
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::ACCEPT, json);
    Ok::<Response<_>, Stop>(caller.exchange(target, request).await?)
}

/// The query of a list, as S2 takes it: `prefix`, `start_after`, `limit`.
#[derive(Debug, PartialEq, Eq)]
struct ListQuery {
    prefix: Option<String>,
    start_after: Option<String>,
    limit: usize,
    /// Parameters that the proxy does not know.
    rest: Vec<String>,
}

impl ListQuery {
    fn of(query: Option<&str>) -> Result<Self, Error> {
        let (mut prefix, mut start_after, mut limit) = (None, None, None);
        let mut rest = Vec::new();
        let pairs = query.unwrap_or_default().split('&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match decoded(name)?.as_str() {
                "prefix" => &mut prefix,
                "start_after" => &mut start_after,
                "limit" => &mut limit,
                _ => {
                    rest.push(pair.to_owned());
                    continue;
                }
            };
            if slot.replace(decoded(value)?).is_some() {
                return Err(bad_query("duplicate field"));
            }
        }
        let limit = limit.map(|limit: String| limit.parse().map_err(|_| bad_query("limit")));
        Ok(Self {
            prefix,
            start_after,
            limit: match limit.transpose()? {
                None | Some(0) => MAX_ENTRIES,
                Some(limit) => MAX_ENTRIES.min(limit),
            },
            rest,
        })
    }

    /// From the entry after this one on.
    fn go_on(&mut self, last: String) -> Result<(), Error> {
        if self
            .start_after
            .as_ref()
            .is_some_and(|before| *before >= last)
        {
            return Err(Error::Garbage("a list that does not go on"));
        }
        self.start_after = Some(last);
        Ok(())
    }

    /// The query for a page of so many entries.
    fn page(&self, size: usize) -> String {
        let mut pairs = self.rest.clone();
        let known = [("prefix", &self.prefix), ("start_after", &self.start_after)];
        for (name, value) in known {
            if let Some(value) = value {
                let value = utf8_percent_encode(value, NON_ALPHANUMERIC);
                pairs.push(format!("{name}={value}"));
            }
        }
        pairs.push(format!("limit={}", size.min(MAX_ENTRIES)));
        pairs.join("&")
    }
}

/// Form decoding: `+` is a space, `%xx` a byte. A name is text.
fn decoded(text: &str) -> Result<String, Error> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded.map(Into::into).map_err(|_| bad_query("not UTF-8"))
}

fn bad_query(why: &str) -> Error {
    Error::BadQuery(format!("Failed to deserialize query string: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_keep_what_was_asked_for() {
        let of = |query| ListQuery::of(Some(query)).unwrap();
        let mut query = of("prefix=a%2Fb+c&x=%20y&limit=7&&start_after=");
        assert_eq!(query.limit, 7);
        assert_eq!(
            query.page(8),
            "x=%20y&prefix=a%2Fb%20c&start_after=&limit=8"
        );
        query.go_on("a/b c/é".into()).unwrap();
        assert!(query.go_on("a/b c/é".into()).is_err());
        let next = "x=%20y&prefix=a%2Fb%20c&start_after=a%2Fb%20c%2F%C3%A9&limit=1000";
        assert_eq!(query.page(1001), next);
        for all in ["", "limit=0", "limit=1001"] {
            assert_eq!(of(all).limit, 1000, "{all}");
        }
        for bad in ["limit=x", "limit=-1", "prefix=a&prefix=b", "prefix=%ff"] {
            let error = ListQuery::of(Some(bad)).unwrap_err();
            assert!(matches!(error, Error::BadQuery(_)), "{bad}");
        }
    }
}
