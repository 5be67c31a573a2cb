//! The calls that S2's v1 API has, by method and path. What is not in [`TABLE`] does not pass.
//!
//! "Client's token" are requests that go up with the `authorization` that the client sent. "Proxy's token" are
//! requests that go up with `upstream.access_token_file` or a project's token: every client that comes in would
//! act with it, so a right of the client has to allow the call. What each right is: [`Need`](super::Need).
//!
//! | path | methods | client's token | proxy's token | reason |
//! |---|---|---|---|---|
//! | `/v1/basins` | GET | yes | filtered by a right, else 403 | the list shows the whole account |
//! | | POST | yes | by a right, else 403 | a basin belongs to the account |
//! | `/v1/basins/{basin}` | GET | yes | yes | clients read settings of the basin they use |
//! | | PUT DELETE PATCH | yes | by a right, else 403 | changes what all clients of the basin get |
//! | `/v1/streams` | GET POST | yes | yes | clients list and create streams of a basin |
//! | `/v1/streams/{stream}` | GET PUT DELETE PATCH | yes | yes | clients manage streams of a basin |
//! | `/v1/streams/{stream}/records` | GET POST | sealed | sealed | read and append |
//! | `/v1/streams/{stream}/records/tail` | GET | yes | yes | moves no record |
//! | `/v1/access-tokens` | GET POST | yes | 403 | a token outlives every right that the proxy checks |
//! | `/v1/access-tokens/{id}` | DELETE | yes | 403 | so does the loss of the proxy's own |
//! | `/v1/locations` | GET | yes | 403 | about the account |
//! | `/v1/locations/default` | GET PUT | yes | 403 | about the account |
//! | `/v1/metrics` | GET | yes | 403 | about the account |
//! | `/v1/metrics/{basin}` | GET | yes | yes | as the basin's settings |
//! | `/v1/metrics/{basin}/{stream}` | GET | yes | yes | as the stream's settings |
//! | `/health`, `/ping` | GET | yes | yes, API keys 403 | tells only whether the upstream is up |
//! | any of these | OPTIONS | yes | yes | a browser asks whether a page may call |
//! | any of these | TRACE CONNECT | 405 | 405 | an echo shows the token; a tunnel holds anything |
//! | anything else | OPTIONS | answered here | answered here | S2 answers a browser about any path |
//! | anything else | any | 404 | 404 | a body could be records; a page would run as the proxy's |
//!
//! GET stands for HEAD, too. "By a right": API keys, see [`gate`](crate::proxy::gate). "Anything else" includes
//! what `s2-lite` serves beside S2's API: `/metrics` (of its own process) and `/dashboard` (a page with a script).
//! `upstream.forward_unknown` lets some of it through: see [`forward`](crate::proxy::forward).

use http::Method;

/// A path of S2's API with its calls. A `{name}` takes one segment.
pub(super) struct Row {
    pub(super) path: &'static str,
    /// By method, in the order in which S2 lists them. `GET` stands for `HEAD`, too.
    calls: &'static [(&'static str, Call)],
}

/// A call of S2's API, without the names in its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    ListBasins,
    CreateBasin,
    BasinConfiguration,
    EnsureBasin,
    DeleteBasin,
    ReconfigureBasin,
    ListStreams,
    CreateStream,
    StreamConfiguration,
    EnsureStream,
    DeleteStream,
    ReconfigureStream,
    Read,
    Append,
    Tail,
    AccessTokens,
    Account,
    BasinMetrics,
    StreamMetrics,
    Liveness,
}

#[rustfmt::skip]
pub(super) const TABLE: &[Row] = &[
    Row { path: "/v1/basins", calls: &[
        ("GET", Call::ListBasins),
        ("POST", Call::CreateBasin),
    ] },
    Row { path: "/v1/basins/{basin}", calls: &[
        ("GET", Call::BasinConfiguration),
        ("PUT", Call::EnsureBasin),
        ("DELETE", Call::DeleteBasin),
        ("PATCH", Call::ReconfigureBasin),
    ] },
    Row { path: "/v1/streams", calls: &[
        ("GET", Call::ListStreams),
        ("POST", Call::CreateStream),
    ] },
    Row { path: "/v1/streams/{stream}", calls: &[
        ("GET", Call::StreamConfiguration),
        ("PUT", Call::EnsureStream),
        ("DELETE", Call::DeleteStream),
        ("PATCH", Call::ReconfigureStream),
    ] },
    Row { path: "/v1/streams/{stream}/records", calls: &[
        ("GET", Call::Read),
        ("POST", Call::Append),
    ] },
    Row { path: "/v1/streams/{stream}/records/tail", calls: &[("GET", Call::Tail)] },
    Row { path: "/v1/access-tokens", calls: &[
        ("GET", Call::AccessTokens),
        ("POST", Call::AccessTokens),
    ] },
    Row { path: "/v1/access-tokens/{id}", calls: &[("DELETE", Call::AccessTokens)] },
    Row { path: "/v1/locations", calls: &[("GET", Call::Account)] },
    Row { path: "/v1/locations/default", calls: &[
        ("GET", Call::Account),
        ("PUT", Call::Account),
    ] },
    Row { path: "/v1/metrics", calls: &[("GET", Call::Account)] },
    Row { path: "/v1/metrics/{basin}", calls: &[("GET", Call::BasinMetrics)] },
    Row { path: "/v1/metrics/{basin}/{stream}", calls: &[("GET", Call::StreamMetrics)] },
    Row { path: "/health", calls: &[("GET", Call::Liveness)] },
    Row { path: "/ping", calls: &[("GET", Call::Liveness)] },
];

impl Row {
    /// Returns the row of a path, with the segments that stand for its names.
    pub(super) fn of(path: &str) -> Option<(&'static Self, Vec<&str>)> {
        TABLE
            .iter()
            .find_map(|row| row.names(path).map(|names| (row, names)))
    }

    /// Returns the call that this method makes, if the path has it.
    pub(super) fn call(&self, method: &Method) -> Option<Call> {
        let name = match *method {
            Method::HEAD => "GET",
            ref other => other.as_str(),
        };
        let mut calls = self.calls.iter();
        calls
            .find(|(method, _)| *method == name)
            .map(|(_, call)| *call)
    }

    /// Returns the path's methods as an `allow` header lists them.
    pub(super) fn allow(&self) -> String {
        let methods = self.calls.iter().map(|(method, _)| match *method {
            "GET" => "GET,HEAD",
            other => other,
        });
        methods.collect::<Vec<_>>().join(",")
    }

    /// Compares segment by segment on the raw path, as S2's router does. It lets a name be empty, but for the
    /// last segment.
    fn names<'a>(&self, path: &'a str) -> Option<Vec<&'a str>> {
        let mut names = Vec::new();
        let mut wanted = self.path.split('/');
        let mut segments = path.split('/').peekable();
        while let Some(segment) = segments.next() {
            match wanted.next()? {
                name if name.starts_with('{') => {
                    let is_last = segments.peek().is_none();
                    (!(is_last && segment.is_empty())).then(|| names.push(segment))?;
                }
                word if word == segment => {}
                _ => return None,
            }
        }
        wanted.next().is_none().then_some(names)
    }
}
