//! One listener speaks HTTP/1.1 and HTTP/2, over TLS or in the clear on loopback, finds the basin in
//! the host name, and lets browsers read what it says.

use http::{Request, Version};
use http_body_util::BodyExt as _;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpStream;

use crate::harness::{Ask, BASIN, Client, KEY, Stack, Twin, base64, records};

fn append() -> Ask {
    Ask::post(records("s")).json(&json!({ "records": [{ "body": "x" }] }))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_share_a_tls_port() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    for (client, version) in [
        (stack.h1().await, Version::HTTP_11),
        (stack.h2().await, Version::HTTP_2),
    ] {
        for _ in 0..3 {
            let response = client.open(append().key(&KEY)).await;
            assert_eq!(
                (response.status().as_u16(), response.version()),
                (200, version)
            );
            response.into_body().collect().await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_share_a_port_in_the_clear() {
    let stack = Stack::with(|config| {
        config.listen.plaintext = true;
        config.listen.tls = Default::default();
    })
    .await;
    let client = Client::plain(stack.address).await;
    let config = json!({ "stream_cipher": "aegis-256", "create_stream_on_append": true });
    let basin = json!({ "basin": BASIN, "config": config });
    client.ask(Ask::post("/v1/basins").json(&basin)).await;
    let answer = client.ask(append().key(&KEY)).await;
    assert_eq!(answer.json()["start"]["seq_num"], 0, "{}", answer.text());
    let io = TcpStream::connect(stack.address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
    tokio::spawn(connection);
    for _ in 0..2 {
        let request = Request::get(records("s") + "?seq_num=0")
            .header("host", "localhost")
            .header("s2-basin", BASIN)
            .header("s2-encryption-key", base64(&KEY));
        sender.ready().await.unwrap();
        let request = request.body(String::new()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), response.version()),
            (200, Version::HTTP_11)
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let read: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(read["records"][0]["body"], "x");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_name_names_the_basin() {
    let stack = Stack::with(|config| config.listen.basin_domain = "b.test".to_owned()).await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h1().await;
    let at = |host: &str| append().key(&KEY).without("s2-basin").header("host", host);
    for host in [
        "test-basin.b.test",
        "test-basin.b.test:8443",
        "test-basin.B.TEST",
    ] {
        let answer = client.ask(at(host)).await;
        assert_eq!(answer.status, 200, "{host}: {}", answer.text());
        let both = client.ask(at(host).header("s2-basin", BASIN)).await;
        assert_eq!(both.status, 200, "{host}: {}", both.text());
    }
    let seen = stack.lite.last("POST").unwrap();
    assert!(
        seen.headers.contains(&format!("s2-basin: {BASIN}")),
        "{seen:?}"
    );
    let before = stack.lite.seen().len();
    let disagreeing = [
        at("test-basin.b.test").header("s2-basin", "other-basin"),
        at("other-basin.b.test").header("s2-basin", BASIN),
    ];
    let nameless = [
        "b.test",
        "test-basin",
        "test-basin.b.test.evil",
        "xb.test",
        "short.b.test",
    ];
    for ask in disagreeing.into_iter().chain(nameless.map(at)) {
        let answer = client.ask(ask.clone()).await;
        assert_eq!(
            (answer.status, &*answer.code()),
            (400, "bad_header"),
            "{ask:?}"
        );
    }
    assert_eq!(stack.lite.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn preflights_are_the_upstreams() {
    let twin = Twin::start().await;
    for path in ["/v1/basins", "/v1/streams", &*records("s"), "/v1/streams/s"] {
        let ask = Ask::new("OPTIONS", path)
            .without("s2-basin")
            .header("origin", "https://app.example")
            .header("access-control-request-method", "POST")
            .header(
                "access-control-request-headers",
                "s2-encryption-key,s2-basin",
            );
        let answer = twin.same(ask).await;
        // The upstream's allowance stays the only one.
        assert!(answer.header("access-control-allow-origin").is_none());
        let seen = twin.stack.lite.last("OPTIONS").unwrap();
        assert!(seen.line.ends_with(path), "{seen:?}");
        let asked = "access-control-request-method: POST".to_owned();
        assert!(seen.headers.contains(&asked), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn browsers_may_read_what_the_proxy_itself_answers() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    let origin = "https://app.example";
    for (ask, status) in [
        (append().key(&KEY), 200),
        (Ask::get(records("s") + "?seq_num=0").key(&KEY), 200),
        (Ask::get("/v1/streams"), 200),
        (append(), 422),
        (append().key(&[7; 32]), 400),
        (append().key(&KEY).header("content-encoding", "br"), 415),
        (Ask::get("/v1/streams/s/records?seq_num=x"), 400),
        (Ask::get("/v1/streams/s/%72ecords"), 404),
        (Ask::new("PUT", records("s")), 405),
    ] {
        let answer = client.ask(ask.clone().header("origin", origin)).await;
        assert_eq!(answer.status, status, "{ask:?}: {}", answer.text());
        let allowed: Vec<_> = answer
            .headers
            .get_all("access-control-allow-origin")
            .iter()
            .collect();
        assert_eq!(allowed, [origin], "{ask:?}");
        assert_eq!(
            answer.header("access-control-allow-credentials"),
            Some("true"),
            "{ask:?}"
        );
        let bare = client.ask(ask).await;
        assert!(bare.header("access-control-allow-origin").is_none());
    }
}
