//! The worked example: what a client writes, what the upstream stores, what a client reads.

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;

use super::client::Client;
use crate::{
    cli::{Failure, print},
    crypto::Key,
};

/// The basin of the example.
pub(super) const BASIN: &str = "quickstart-basin";

/// The stream of the example.
pub(super) const STREAM: &str = "greetings";

const RECORDS: &str = r#"{"records":[{"headers":[["from","quickstart"]],"body":"hello, sealed world"},{"body":"only you can read this"}]}"#;

/// Runs the example and shows every step.
///
/// # Errors
/// When a step does not end as it should.
pub(super) async fn show(proxy: &Client, upstream: &Client, key: &Key) -> Result<(), Failure> {
    let key = key.to_base64();
    let records = format!("/v1/streams/{STREAM}/records");
    let read = format!("{records}?seq_num=0");

    let basin = format!(
        r#"{{"basin":"{BASIN}","config":{{"stream_cipher":"aegis-256","create_stream_on_append":true}}}}"#
    );
    let create = request(Method::POST, "/v1/basins", &basin, &[])?;
    expect(proxy.send(create).await?, StatusCode::CREATED)?;
    step("1. create a basin whose streams are encrypted", &basin)?;

    let append = request(
        Method::POST,
        &records,
        RECORDS,
        &[("s2-encryption-key", &key)],
    )?;
    let ack = expect(proxy.send(append).await?, StatusCode::OK)?;
    step(
        "2. append two records through the proxy",
        &format!("{RECORDS}\n-> {ack}"),
    )?;

    let raw = request(Method::GET, &read, "", &[("s2-format", "base64")])?;
    let stored = expect(upstream.send(raw).await?, StatusCode::OK)?;
    step(
        "3. what the upstream really stores (record bodies in hex)",
        &hex_bodies(&stored)?,
    )?;

    let good = request(Method::GET, &read, "", &[("s2-encryption-key", &key)])?;
    let opened = expect(proxy.send(good).await?, StatusCode::OK)?;
    if !opened.contains("hello, sealed world") {
        return Err(Failure::Other(format!("quickstart: read back {opened}")));
    }
    step("4. read back through the proxy, with the key", &opened)?;

    let wrong = Key::from_bytes([0; 32]).to_base64();
    let bad = request(Method::GET, &read, "", &[("s2-encryption-key", &wrong)])?;
    let refused = expect(proxy.send(bad).await?, StatusCode::BAD_REQUEST)?;
    step("5. read with a wrong key", &refused)
}

fn step(title: &str, text: &str) -> Result<(), Failure> {
    let indented = text.replace('\n', "\n   ");
    print(&format!("\n{title}\n   {indented}\n"))
}

fn request(
    method: Method,
    path: &str,
    json: &str,
    headers: &[(&str, &str)],
) -> Result<Request<Full<Bytes>>, Failure> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header("s2-basin", BASIN);
    if !json.is_empty() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
        .body(Full::from(json.to_owned()))
        .map_err(|error| Failure::Other(error.to_string()))
}

fn expect(answer: Response<Bytes>, status: StatusCode) -> Result<String, Failure> {
    let text = String::from_utf8_lossy(answer.body()).into_owned();
    if answer.status() == status {
        Ok(text)
    } else {
        let got = answer.status();
        Err(Failure::Other(format!(
            "quickstart: expected {status}, got {got}: {text}"
        )))
    }
}

/// The body of every stored record, in hex.
fn hex_bodies(stored: &str) -> Result<String, Failure> {
    #[derive(serde::Deserialize)]
    struct Batch {
        records: Vec<Record>,
    }
    #[derive(serde::Deserialize)]
    struct Record {
        seq_num: u64,
        body: String,
    }
    let bad = |error: &dyn std::fmt::Display| Failure::Other(format!("quickstart: {error}"));
    let batch: Batch = serde_json::from_str(stored).map_err(|error| bad(&error))?;
    let mut lines = Vec::new();
    for record in batch.records {
        let bytes = STANDARD.decode(&record.body).map_err(|error| bad(&error))?;
        let mut line = format!("seq_num {}: ", record.seq_num);
        for byte in bytes {
            // Writing to a String does not fail.
            let _ok = write!(line, "{byte:02x}");
        }
        lines.push(line);
    }
    Ok(lines.join("\n"))
}
