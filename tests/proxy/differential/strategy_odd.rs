//! How requests are drawn that no SDK would send: other methods, bad bodies, bad names, preflights.

use proptest::{prelude::*, sample::select};

use super::{
    asks,
    ops::{BASINS, Odd},
    strategy::{place, text},
};

/// One odd request.
pub fn odd() -> impl Strategy<Value = Odd> {
    prop_oneof![
        3 => (path(), text(&["OPTIONS", "TRACE", "PUT", "PATCH", "DELETE", "POST", "GET", "HEAD"]))
            .prop_map(|(path, method)| match method.as_str() {
                // What is deleted has to be waited for: there are operations for that.
                "DELETE" if !path.contains("/records") => ask("TRACE", &path),
                method => ask(method, &path),
            }),
        2 => path().prop_map(|path| preflight(&path)),
        4 => (path(), bad_body(), select(&["POST", "PUT", "PATCH"])).prop_map(|(path, (kind, body), method)| {
            let mut odd = ask(method, &path);
            odd.headers.push(("content-type".into(), kind.into()));
            odd.body = body.into();
            odd
        }),
        2 => (path(), bad_basin()).prop_map(|(path, basin)| {
            let mut odd = ask("GET", &path);
            odd.basin = basin.map(str::to_owned);
            odd
        }),
        2 => (path(), bad_header()).prop_map(|(path, (name, value))| {
            let mut odd = ask("GET", &path);
            odd.headers.push((name.into(), value.into()));
            odd
        }),
    ]
}

fn ask(method: &str, path: &str) -> Odd {
    Odd {
        method: method.into(),
        path: path.into(),
        basin: Some(BASINS[0].into()),
        headers: Vec::new(),
        body: String::new(),
    }
}

fn preflight(path: &str) -> Odd {
    let mut odd = ask("OPTIONS", path);
    odd.headers = [
        ("origin", "https://page.example"),
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "s2-encryption-key,s2-basin,content-type",
        ),
    ]
    .map(|(name, value)| (name.into(), value.into()))
    .into();
    odd
}

/// Paths of S2, and some that only look like it.
fn path() -> impl Strategy<Value = String> {
    let fixed = text(&[
        "/v1/basins",
        "/v1/basins/basin-one",
        "/v1/basins/short",
        "/v1/basins/Upper-Case",
        "/v1/streams",
        "/v1/streams/%FF",
        "/v1/streams/%2E%2E/records",
        "/v1/streams/a%00b/records",
        "/v1/streams/s/records/",
        "/v1/streams/s/records/x",
        "/v1/streams//records",
        "/v1/streams/a/b/records",
        "/v1/access-tokens",
        "/v1/locations",
        "/v1/metrics",
        "/health",
        "/nothing",
    ]);
    let stream = || place().prop_map(|at| asks::stream_path(&at));
    prop_oneof![
        5 => fixed,
        2 => stream(),
        4 => stream().prop_map(|path| path + "/records?count=3"),
        1 => stream().prop_map(|path| path + "/records/tail"),
    ]
}

fn bad_body() -> impl Strategy<Value = (&'static str, &'static str)> {
    select(&[
        ("application/json", ""),
        ("application/json", "{"),
        ("application/json", "[]"),
        ("application/json", "null"),
        ("application/json", "{}"),
        ("application/json", r#"{"records":[{"body":7}]}"#),
        (
            "application/json",
            r#"{"records":[{"timestamp":1001,"body":"ok"}],"unknown":1}"#,
        ),
        ("application/json", r#"{"records":[{"timestamp":-1}]}"#),
        ("application/json", r#"{"basin":"basin-one","config":7}"#),
        ("application/json", r#"{"basin":"no"}"#),
        ("application/json", r#"{"stream":""}"#),
        ("application/json", r#"{"stream":".."}"#),
        (
            "application/json",
            r#"{"stream":"s","config":{"storage_class":7}}"#,
        ),
        (
            "application/json",
            r#"{"stream_cipher":"aegis-256","stream_cipher":null}"#,
        ),
        (
            "application/json",
            r#"{"retention_policy":{"age":1,"infinite":{}}}"#,
        ),
        (
            "application/vnd.s2+json",
            r#"{"records":[{"timestamp":1001,"body":"ok"}]}"#,
        ),
        (
            "application/json; charset=utf-8",
            r#"{"records":[{"timestamp":1001,"body":"ok"}]}"#,
        ),
        ("text/plain", r#"{"records":[{"body":"x"}]}"#),
        ("application/protobuf", "\u{7f}"),
        ("application/x-protobuf", ""),
        ("s2s/proto", "\0"),
        ("s2s/proto", "\0\0\0"),
        ("s2s/proto", "\0\0\u{1}\u{60}"),
        ("s2s/proto", ""),
    ])
}

fn bad_basin() -> impl Strategy<Value = Option<&'static str>> {
    select(&[
        None,
        Some(""),
        Some("short"),
        Some("Upper-Case"),
        Some("basin-none"),
        Some("-basin-one"),
    ])
}

fn bad_header() -> impl Strategy<Value = (&'static str, &'static str)> {
    select(&[
        ("s2-format", "hex"),
        ("s2-format", "json-binsafe"),
        ("s2-stream-config", "{"),
        ("s2-stream-config", "{\"storage_class\":7}"),
        ("s2-request-token", ""),
        ("content-encoding", "br"),
        ("accept", "text/event-stream;q=0.1"),
        ("accept", "image/png, text/event-stream"),
        ("content-type", "nonsense"),
        ("last-event-id", "x"),
        ("s2-basin", "basin-two"),
        ("accept-encoding", "*;q=0"),
    ])
}
