//! Routing is a function of method, path, host and header: a table of what becomes what.

use http::{HeaderMap, HeaderValue, Method, Uri};

use super::*;

fn route_at(method: &str, uri: &str, basins: &[&str], domain: &str) -> Result<Route, Error> {
    let mut headers = HeaderMap::new();
    for basin in basins {
        headers.append(BASIN_HEADER, HeaderValue::from_str(basin).unwrap());
    }
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let routing = Routing {
        basin_domain: domain,
        forward_unknown: false,
    };
    Route::of(&method, &uri.parse::<Uri>().unwrap(), &headers, routing)
}

fn route(method: &str, uri: &str) -> Result<Route, Error> {
    route_at(method, uri, &["test-basin"], "")
}

fn path(stream: &str) -> StreamPath {
    StreamPath {
        basin: "test-basin".parse().unwrap(),
        stream: stream.parse().unwrap(),
    }
}

#[test]
fn s2_calls_are_told_apart() {
    let basin = || "test-basin".parse::<BasinName>().unwrap();
    for (method, uri, want) in [
        (
            "POST",
            "/v1/basins",
            Route::Control(ControlCall::CreateBasin),
        ),
        (
            "PUT",
            "/v1/basins/test-basin",
            Route::Control(ControlCall::EnsureBasin(basin())),
        ),
        (
            "PATCH",
            "/v1/basins/test-basin?x=1",
            Route::Control(ControlCall::ReconfigureBasin(basin())),
        ),
        (
            "GET",
            "/v1/streams?prefix=a",
            Route::Control(ControlCall::ListStreams(basin())),
        ),
        (
            "POST",
            "/v1/streams",
            Route::Control(ControlCall::CreateStream(basin())),
        ),
        (
            "PUT",
            "/v1/streams/a",
            Route::Control(ControlCall::EnsureStream(path("a"))),
        ),
        (
            "DELETE",
            "/v1/streams/a%2Fb",
            Route::Control(ControlCall::DeleteStream(path("a/b"))),
        ),
        ("GET", "/v1/streams/a/records", Route::Read(path("a"))),
        ("HEAD", "/v1/streams/a/records", Route::Read(path("a"))),
        (
            "POST",
            "/v1/streams/%731/records",
            Route::Append(path("s1")),
        ),
        (
            "POST",
            "/v1/streams/a+b/records",
            Route::Append(path("a+b")),
        ),
        (
            "POST",
            "/v1/streams/a%252Fb/records",
            Route::Append(path("a%2Fb")),
        ),
        ("GET", "/v1/streams/a/records/tail", Route::Tail(path("a"))),
        (
            "GET",
            "/v1/streams/a",
            Route::forward(Forwarded::StreamConfiguration(path("a"))),
        ),
        ("GET", "/v1/basins", Route::forward(Forwarded::Basins)),
        ("GET", "/health", Route::forward(Forwarded::Liveness)),
        ("HEAD", "/ping", Route::forward(Forwarded::Liveness)),
        (
            "POST",
            "/v1/access-tokens",
            Route::forward(Forwarded::AccessTokens),
        ),
        (
            "DELETE",
            "/v1/access-tokens/a%2Fb",
            Route::forward(Forwarded::AccessTokens),
        ),
        (
            "PUT",
            "/v1/locations/default",
            Route::forward(Forwarded::Account),
        ),
        ("GET", "/v1/metrics", Route::forward(Forwarded::Account)),
        (
            "PATCH",
            "/v1/streams/a%2Fb",
            Route::forward(Forwarded::ReconfigureStream(path("a/b"))),
        ),
        (
            "HEAD",
            "/v1/metrics/test-basin",
            Route::forward(Forwarded::BasinMetrics(basin())),
        ),
        (
            "GET",
            "/v1/metrics/test-basin/a%2Fb?set=x",
            Route::forward(Forwarded::StreamMetrics(path("a/b"))),
        ),
        (
            "OPTIONS",
            "/v1/streams/a",
            Route::forward(Forwarded::Options(Some(basin()))),
        ),
        (
            "DELETE",
            "/v1/streams/a/records",
            Route::WrongMethod("GET,HEAD,POST".into()),
        ),
        (
            "PATCH",
            "/v1/locations/default",
            Route::WrongMethod("GET,HEAD,PUT".into()),
        ),
        (
            "TRACE",
            "/v1/basins/test-basin",
            Route::WrongMethod("GET,HEAD,PUT,DELETE,PATCH".into()),
        ),
        ("TRACE", "/nothing", Route::NotFound),
        ("OPTIONS", "/nothing", Route::Preflight),
        ("GET", "/metrics", Route::NotFound),
    ] {
        assert_eq!(route(method, uri).unwrap(), want, "{method} {uri}");
    }
}

#[test]
fn metrics_take_one_basin_and_one_stream() {
    for uri in [
        "/v1/metrics/",
        "/v1/metrics/test-basin/",
        "/v1/metrics/test-basin/a/b",
    ] {
        assert_eq!(route("GET", uri).unwrap(), Route::NotFound, "{uri}");
    }
    for uri in [
        "/v1/metrics/test-basin%2Fa",
        "/v1/metrics/test-basin/%ff",
        "/v1/metrics//a",
        "/v1/metrics/short",
    ] {
        let error = route("GET", uri).unwrap_err();
        assert!(matches!(error, Error::BadPath(_)), "{uri}");
    }
}

#[test]
fn every_path_of_the_table_is_known_and_unlike_the_others() {
    for row in table::TABLE {
        let named = |segment: &str| match segment.starts_with('{') {
            true => "some-name".to_owned(),
            false => segment.to_owned(),
        };
        let segments: Vec<String> = row.path.split('/').map(named).collect();
        let path = segments.join("/");
        let (found, _) = Row::of(&path).unwrap();
        assert_eq!(found.path, row.path);
    }
}

#[test]
fn unknown_paths_pass_only_where_nothing_is_intercepted() {
    let routing = Routing {
        basin_domain: "",
        forward_unknown: true,
    };
    let routed = |method: &Method, uri: &str| {
        let headers = HeaderMap::new();
        Route::of(method, &uri.parse().unwrap(), &headers, routing).unwrap()
    };
    for uri in ["/v1/schemas", "/metrics", "/v2/teams/streaming", "/"] {
        assert_eq!(routed(&Method::POST, uri), Route::Unknown(None), "{uri}");
        let trace = routed(&Method::TRACE, uri);
        assert_eq!(trace, Route::NotFound, "{uri}");
    }
    for uri in [
        "/v2/streams",
        "/a/b/STREAMS/c",
        "/v2/e/records:append",
        "/v2/strea%256ds/x",
        "/v2/basins%00/x",
        "/v2/x%2Frecords",
        "*",
    ] {
        assert_eq!(routed(&Method::POST, uri), Route::NotFound, "{uri}");
    }
}

#[test]
fn paths_that_another_router_might_take_for_records_are_not_found() {
    for uri in [
        "/v1/streams/a/%72ecords",
        "/v1/stre%61ms/a/records",
        "/v1/streams/a/records/",
        "/v1//streams/a/records",
        "//v1/streams/a/records",
        "/v1/streams/a//records",
        "/v1/x/../streams/a/records",
        "/v1/./streams/a/records",
        "/x/%2e%2e/v1/streams/a/records",
        "/v1%2Fstreams%2Fa%2Frecords",
        "/v1/stre%2561ms/a/records",
        "/V1/Streams/a/records",
        "/v1;x=1/streams/a/records",
        "/v1\\streams\\a\\records",
        "/v1/streams/a/records/extra",
        "/v1/streams/",
        "/v1/basins/",
        "/v1/streams/./records",
        "/v1/streams/../records",
        "/v1/streams/%zz/records",
        "/v1/streams/%4/records",
        "/v1/other/%zz",
    ] {
        if let Ok(uri) = uri.parse::<Uri>() {
            let got = Route::of(&Method::POST, &uri, &HeaderMap::new(), Routing::default());
            assert_eq!(got.unwrap(), Route::NotFound, "{uri}");
        }
    }
}

#[test]
fn bad_names_are_bad_paths() {
    for uri in [
        "/v1/streams/%FF/records",
        "/v1/streams/%2e%2E/records",
        "/v1/streams/a%00b/records",
        "/v1/basins/Short",
    ] {
        assert!(matches!(route("GET", uri), Err(Error::BadPath(_))), "{uri}");
    }
}

#[test]
fn basin_from_header_or_host() {
    let uri = "http://other-basin.b.test:8443/v1/streams/a/records";
    let got = route_at("GET", uri, &[], "b.test").unwrap();
    assert!(matches!(got, Route::Read(path) if path.basin.as_str() == "other-basin"));
    for (basins, domain, bad) in [
        (["test-basin"].as_slice(), "b.test", true),
        (&["other-basin"], "b.test", false),
        (&["test-basin"], "", false),
        (&["test-basin"], "elsewhere.test", false),
        (&[], "elsewhere.test", true),
        (&["short"], "", true),
        (&["test-basin", "other-basin"], "", false),
    ] {
        let got = route_at("GET", uri, basins, domain);
        assert_eq!(
            matches!(got, Err(Error::BadHeader(_))),
            bad,
            "{basins:?} {domain}"
        );
    }
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("Other-basin.B.test:8443"));
    let got = Route::of(
        &Method::GET,
        &"/v1/streams".parse().unwrap(),
        &headers,
        Routing {
            basin_domain: "b.test",
            forward_unknown: false,
        },
    );
    assert!(
        matches!(got, Err(Error::BadHeader(_))),
        "upper case is no basin name"
    );
}

#[test]
fn a_key_in_the_query_string_is_refused_everywhere() {
    for uri in [
        "/v1/streams/a/records?s2-encryption-key=AAAA",
        "/health?x=1&S2-Encryption-Key=AAAA",
        "/v1/basins?%73%32-encryption-key=AAAA",
    ] {
        let error = route("GET", uri).unwrap_err();
        assert!(matches!(error, Error::BadQuery(_)));
        assert!(!error.to_string().contains("AAAA"));
    }
}
