//! A request reaches the upstream only as the call that the proxy took it for: lookalikes, bad names
//! and smuggled requests do not.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{Ask, BASIN, KEY, Stack, Twin, records};

async fn plaintext_stack() -> Stack {
    let stack = Stack::with(|config| {
        config.listen.plaintext = true;
        config.listen.tls = Default::default();
        // Requests that end in the middle, and connections that are done, are closed soon.
        config.limits.header_timeout = std::time::Duration::from_millis(500);
    })
    .await;
    let direct = stack.direct().await;
    direct
        .ask(Ask::post("/v1/basins").json(&json!({ "basin": BASIN })))
        .await;
    stack
}

#[tokio::test(flavor = "multi_thread")]
async fn lookalikes_of_routes_are_not_found_and_go_nowhere() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let before = stack.lite.seen().len();
    for client in [stack.h1().await, stack.h2().await] {
        for path in [
            "/v1/streams/%zz/records",
            "/v1/streams/%/records",
            "/v1/streams/%4/records",
            "/v1/streams/s/%72ecords",
            "/v1/stre%61ms/s/records",
            "/%76%31/streams/s/records",
            "/V1/streams/s/records",
            "/v1/Streams/s/records",
            "/v1/streams/s/RECORDS",
            "/v1/streams/s/records/",
            "/v1//streams/s/records",
            "//v1/streams/s/records",
            "/./v1/streams/s/records",
            "/v1/./streams/s/records",
            "/x/../v1/streams/s/records",
            "/v1/streams/../streams/s/records",
            "/v1/streams/./records",
            "/v1/streams/../records",
            "/v1/streams/..",
            "/v1/streams/.",
            "/v1/streams/a/b/records",
            "/v1/streams/a/../s/records",
            "/x/%2e%2e/v1/streams/s/records",
            "/x/%252e%252e/v1/streams/s/records",
            "/v1%2Fstreams%2Fs%2Frecords",
            "/v1/%2573treams/s/records",
            "/v1\\streams\\s\\records",
            "/v1;x/streams/s/records",
            "/v1/streams/s/records/x",
            "/v1/streams/s/records/tail/",
            "/v1/streams/",
            "/v1/basins/",
            "/v1/%62asins",
            "/v1/BASINS/test-basin",
            "/v1/basins/test-basin/",
            "/v1/basins/%zz",
        ] {
            if path.parse::<http::Uri>().is_err() {
                continue;
            }
            for ask in [
                Ask::get(path),
                Ask::post(path).json(&json!({ "records": [{ "body": "x" }] })),
                Ask::new("PUT", path),
                Ask::new("DELETE", path),
            ] {
                let answer = client.ask(ask.key(&KEY)).await;
                // A basin's route has methods before it has a name.
                let is_basin = path.starts_with("/v1/basins/%");
                assert!(
                    answer.status == 404 || is_basin && answer.status == 405,
                    "{path}"
                );
                assert!(answer.body.is_empty(), "{path}");
            }
        }
    }
    assert_eq!(stack.lite.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_a_route_does_not_have_are_answered_with_those_it_has() {
    let twin = Twin::start().await;
    let before = twin.stack.lite.seen().len();
    for (path, has) in [
        ("/v1/basins", "GET HEAD POST"),
        ("/v1/basins/test-basin", "GET HEAD PUT PATCH DELETE"),
        ("/v1/streams", "GET HEAD POST"),
        ("/v1/streams/s", "GET HEAD PUT PATCH DELETE"),
        ("/v1/streams/s/records", "GET HEAD POST"),
        ("/v1/streams/s/records/tail", "GET HEAD"),
    ] {
        for method in [
            "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW",
        ] {
            if !has.contains(method) {
                let answer = twin.same(Ask::new(method, path)).await;
                assert_eq!(
                    (answer.status, answer.body.len()),
                    (405, 0),
                    "{method} {path}"
                );
            }
        }
    }
    assert_eq!(twin.stack.lite.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_out_of_range_are_refused_as_in_s2() {
    let twin = Twin::start().await;
    twin.same_code(Ask::post("/v1/basins").json(&json!({ "basin": BASIN })))
        .await;
    let before = twin.stack.lite.seen().len();
    for tail in ["/records", "/records/tail"] {
        let answer = twin.same(Ask::get(format!("/v1/streams/{tail}"))).await;
        assert_eq!(answer.code(), "bad_path", "{tail}");
    }
    let long = "x".repeat(513);
    for stream in ["%2E", "%2e%2E", "a%00b", "%FF", "%C3%28", &*long] {
        for tail in ["/records", "/records/tail"] {
            let answer = twin
                .same(Ask::get(format!("/v1/streams/{stream}{tail}")))
                .await;
            assert_eq!(answer.code(), "bad_path", "{stream}{tail}");
        }
        let answer = twin
            .same_code(Ask::new("PUT", format!("/v1/streams/{stream}")))
            .await;
        assert_eq!(answer.code(), "bad_path", "{stream}");
    }
    for basin in [
        "short",
        "UPPERCASE",
        "-leading-hyphen",
        "under_score",
        "%FF%FF%FF%FF",
        &long,
    ] {
        let answer = twin
            .same_code(Ask::get(format!("/v1/basins/{basin}")))
            .await;
        assert_eq!(answer.code(), "bad_path", "{basin}");
    }
    for basin in ["short", "UPPERCASE", "", "a b c d e f g"] {
        let ask = Ask::get("/v1/streams")
            .without("s2-basin")
            .header("s2-basin", basin);
        assert_eq!(twin.same_code(ask).await.code(), "bad_header", "{basin}");
    }
    for path in ["/v1/streams", "/v1/streams/s", "/v1/streams/s/records"] {
        let ask = Ask::get(path).without("s2-basin");
        assert_eq!(twin.same_code(ask).await.code(), "bad_header", "{path}");
    }
    assert_eq!(twin.stack.lite.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_name_has_one_stream_however_it_is_encoded() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    let batch = json!({ "records": [{ "body": "x" }] });
    let spellings = ["a%2Fb+c%25", "a%2fb+c%25", "%61%2F%62%2B%63%25"];
    for (at, name) in spellings.iter().enumerate() {
        let path = format!("/v1/streams/{name}/records");
        let appended = client.ask(Ask::post(path).json(&batch).key(&KEY)).await;
        assert_eq!(appended.json()["start"]["seq_num"], at, "{name}");
    }
    let read = client
        .ask(Ask::get(records("a/b+c%") + "?seq_num=0").key(&KEY))
        .await;
    assert_eq!(read.json()["records"].as_array().unwrap().len(), 3);
    // The upstream gets the path as it was spelled.
    let raw = |seen: &crate::harness::Seen| seen.line.contains("%61%2F%62%2B%63%25/records");
    assert!(stack.lite.seen().iter().any(raw));
}

/// Sends bytes on a fresh connection and reads until the other side closes or is silent.
async fn raw(stack: &Stack, bytes: &[u8]) -> String {
    let mut io = TcpStream::connect(stack.address).await.unwrap();
    io.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let reading = io.read_to_end(&mut answer);
    let closed = tokio::time::timeout(crate::harness::DEADLINE, reading).await;
    let _reset = closed.expect("the connection stays open");
    String::from_utf8_lossy(&answer).into_owned()
}

fn statuses(answer: &str) -> Vec<u16> {
    let heads = answer.split("HTTP/1.1 ").skip(1);
    heads.map(|head| head[..3].parse().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_refused_and_go_nowhere() {
    let stack = plaintext_stack().await;
    let before = stack.lite.seen().len();
    let head = "POST /v1/streams/s/records HTTP/1.1\r\nhost: x\r\ns2-basin: test-basin\r\n";
    for rest in [
        "content-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
        "content-length: 2, 3\r\n\r\n{}x",
        "content-length: +2\r\n\r\n{}",
        "content-length: -2\r\n\r\n{}",
        "content-length: 0x2\r\n\r\n{}",
        "content-length : 2\r\n\r\n{}",
        "transfer-encoding : chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: \u{b}chunked\r\n\r\n0\r\n\r\n",
        "x: a\rtransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "x: a\0b\r\n\r\n",
        "x\r\n\r\n",
        ": x\r\n\r\n",
        "x y: z\r\n\r\n",
    ] {
        let answer = raw(&stack, format!("{head}{rest}").as_bytes()).await;
        assert_eq!(statuses(&answer), [400], "{rest:?}: {answer}");
    }
    for line in [
        "GET /v1/basins HTTP/1.1 x",
        "GET /v1/basins HTTP/2.0",
        "GET  /v1/basins HTTP/1.1",
        "GET v1/basins HTTP/1.1",
        "GET /v1/ba sins HTTP/1.1",
        "G@T /v1/basins HTTP/1.1",
    ] {
        let answer = raw(&stack, format!("{line}\r\nhost: x\r\n\r\n").as_bytes()).await;
        assert!(
            statuses(&answer).iter().all(|status| *status >= 400),
            "{line}: {answer}"
        );
    }
    assert_eq!(stack.lite.seen().len(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_lengths_make_one_request() {
    let stack = plaintext_stack().await;
    let before = stack.lite.seen().len();
    let inner = "0\r\n\r\nDELETE /v1/basins/test-basin HTTP/1.1\r\nhost: x\r\n\r\n";
    let outer = format!(
        "POST /v1/streams HTTP/1.1\r\nhost: x\r\ns2-basin: test-basin\r\n\
         content-type: application/json\r\ncontent-length: {}\r\ntransfer-encoding: chunked\r\n\r\n{inner}",
        inner.len()
    );
    let answer = raw(&stack, outer.as_bytes()).await;
    // RFC 9112 section 6.3: refuse it, or take the chunks and answer nothing further.
    assert!(statuses(&answer).len() <= 1, "{answer}");
    let smuggled = stack.lite.seen()[before..]
        .iter()
        .any(|seen| seen.line.contains("DELETE"));
    assert!(!smuggled);
}

#[tokio::test(flavor = "multi_thread")]
async fn absolute_targets_and_second_basins_change_nothing() {
    let stack = plaintext_stack().await;
    let request = "GET http://elsewhere.example/v1/streams HTTP/1.1\r\nhost: x\r\n\
                   S2-Basin: test-basin\r\ns2-basin: other-basin\r\nconnection: close\r\n\r\n";
    let answer = raw(&stack, request.as_bytes()).await;
    assert_eq!(statuses(&answer), [200], "{answer}");
    let seen = stack.lite.seen().pop().unwrap();
    assert!(!format!("{seen:?}").contains("elsewhere"), "{seen:?}");
    let basins = seen
        .headers
        .iter()
        .filter(|header| header.starts_with("s2-basin"));
    assert_eq!(basins.collect::<Vec<_>>(), ["s2-basin: test-basin"]);
    let before = stack.lite.seen().len();
    let asterisk = raw(&stack, b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(statuses(&asterisk), [404], "{asterisk}");
    let tunnel = raw(
        &stack,
        b"CONNECT elsewhere.example:443 HTTP/1.1\r\nhost: x\r\n\r\n",
    )
    .await;
    assert_eq!(statuses(&tunnel), [404], "{tunnel}");
    assert_eq!(stack.lite.seen().len(), before);
}
