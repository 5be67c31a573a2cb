//! Which headers reach the store, and which come back.

use http::{HeaderMap, Method};
use tokio::sync::mpsc;

use super::*;

/// Sends one request and returns its head as the store received it.
async fn head_at_store(
    target: Target<'_>,
    sent: Request<Body>,
    adjust: impl FnOnce(&mut Config),
) -> http::request::Parts {
    let (seen, mut heads) = mpsc::unbounded_channel();
    let store = Store::start(100, move |request| {
        seen.send(request.into_parts().0).unwrap();
        async { answer("") }
    })
    .await;
    let mut config = config(&format!("http://{}", store.address));
    adjust(&mut config);
    let upstream = connect(&config);
    within(upstream.send(target, sent)).await.unwrap();
    heads.recv().await.unwrap()
}

#[tokio::test]
async fn only_clean_headers_leave() {
    let sent = Request::builder()
        .method(Method::POST)
        .uri("https://elsewhere:1/v1/streams/a%2Fb%41/records?x=%20;/../")
        .header("s2-encryption-key", "c2VjcmV0")
        .header("S2-Encryption-Key", "YWdhaW4=")
        .header("s2-basin", "not-this-one")
        .header("host", "elsewhere")
        .header("connection", "close, x-private")
        .header("x-private", "1")
        .header("keep-alive", "timeout=5")
        .header("te", "trailers")
        .header("expect", "100-continue")
        .header("proxy-authorization", "Basic c2VjcmV0")
        .header("upgrade", "h2c")
        .header("http2-settings", "AAMAAABkAAQAAP__")
        .header("content-length", "99")
        .header("authorization", "Bearer theirs")
        .header("x-custom", "stays")
        .body(full("four"))
        .unwrap();
    let name = basin();
    let head = head_at_store(Target::Basin(&name), sent, |_| {}).await;
    assert_eq!(
        head.uri.path_and_query().unwrap(),
        "/v1/streams/a%2Fb%41/records?x=%20;/../"
    );
    let expected: HeaderMap = [
        ("authorization", "Bearer theirs"),
        ("content-length", "4"),
        ("s2-basin", "test-basin"),
        ("x-custom", "stays"),
    ]
    .into_iter()
    .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
    .collect();
    assert_eq!(head.headers, expected);
}

#[tokio::test]
async fn account_calls_name_no_basin_and_carry_the_configured_token() {
    let mut token = tempfile::NamedTempFile::new().unwrap();
    token.write_all(b"ours\n").unwrap();
    let mut sent = request("/v1/basins");
    for name in ["s2-basin", "authorization"] {
        sent.headers_mut()
            .insert(name, HeaderValue::from_static("theirs-00"));
    }
    let head = head_at_store(Target::Account, sent, |config| {
        config.access_token_file = token.path().into();
    })
    .await;
    assert_eq!(head.headers.get("authorization").unwrap(), "Bearer ours");
    assert!(!head.headers.contains_key("s2-basin"));
}

#[tokio::test]
async fn basin_goes_into_the_host_name_where_the_endpoint_says_so() {
    let mut config = config("http://127.0.0.1:1");
    config.basin_endpoint = "https://{basin}.b.example:8443/".to_owned();
    let upstream = connect(&config);
    let mut headers = HeaderMap::new();
    headers.insert("s2-basin", HeaderValue::from_static("test-basin"));
    let name = basin();
    let to = upstream
        .live
        .load()
        .prepare(Target::Basin(&name), &mut headers, None)
        .unwrap();
    assert_eq!(to.authority, "test-basin.b.example:8443");
    assert!(to.tls);
    assert!(headers.is_empty());
}

#[tokio::test]
async fn response_loses_its_hop_by_hop_headers() {
    let store = Store::start(100, |_| async {
        let mut response = answer("body");
        response
            .headers_mut()
            .insert("x-kept", HeaderValue::from_static("1"));
        response.headers_mut().insert(
            "proxy-authenticate",
            HeaderValue::from_static("Basic realm=x"),
        );
        response
    })
    .await;
    let response = within(store.upstream().send(Target::Account, request("/")))
        .await
        .unwrap();
    assert!(response.headers().contains_key("x-kept"));
    assert!(!response.headers().contains_key("proxy-authenticate"));
    assert_eq!(response.collect().await.unwrap().to_bytes(), "body");
}

#[tokio::test]
async fn a_requests_own_credential_wins_over_the_configured_token() {
    let mut token = tempfile::NamedTempFile::new().unwrap();
    token.write_all(b"configured\n").unwrap();
    let mut sent = request("/v1/basins");
    let theirs = HeaderValue::from_static("Bearer theirs");
    sent.headers_mut().insert("authorization", theirs);
    let ours = HeaderValue::from_static("Bearer the-projects");
    sent.extensions_mut().insert(Credential::new(ours));
    let head = head_at_store(Target::Account, sent, |config| {
        config.access_token_file = token.path().into();
    })
    .await;
    let values: Vec<_> = head.headers.get_all("authorization").iter().collect();
    assert_eq!(values, ["Bearer the-projects"]);
}

#[tokio::test]
async fn no_request_with_an_api_key_in_it_leaves() {
    let store = Store::start(100, |_| async { panic!("it was sent") }).await;
    let upstream = store.upstream();
    let key = format!("sk-ss-{}", "Aq3_-".repeat(15));
    for name in ["authorization", "x-api-key", "s2-encryption-key", "cookie"] {
        for value in [format!("Bearer {key}"), key.clone(), format!("a={key}; b")] {
            let mut sent = request("/v1/basins");
            let value = HeaderValue::from_str(&value).unwrap();
            sent.headers_mut().insert(name, value);
            let ours = HeaderValue::from_static("Bearer ours");
            sent.extensions_mut().insert(Credential::new(ours));
            let refused = within(upstream.send(Target::Account, sent)).await;
            assert!(matches!(refused, Err(Error::Request(_))), "{name}");
        }
    }
    for path in [format!("/{key}"), format!("/v1/basins?x={key}")] {
        let refused = within(upstream.send(Target::Account, request(&path))).await;
        assert!(matches!(refused, Err(Error::Request(_))), "{path}");
    }
}
