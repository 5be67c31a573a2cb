//! The names of metrics are those that dashboards and alerts rely on, their number stays bounded
//! whatever clients send, and no stream is named unless asked for.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::json;
use streamseal::{
    body::Budget,
    drain::Drain,
    proxy::{Parts, Proxy},
    registry::rules::Rules,
    server::Server,
    store::{Embedded, Measured},
    telemetry::metrics::Metrics,
    telemetry::sinks::Sinks,
    upstream::Upstream,
    wire::record::Fit,
};

use crate::harness::{
    Answer, Ask, BASIN, Client, Counts, Encoding, KEY, Packed, Stack, append, input, metered, read,
    record, records,
};

/// Every family, its type and its labels; those without a value yet until their owner gives one.
const FAMILIES: [(&str, &str, &[&str]); 43] = [
    ("build_info", "gauge", &["version"]),
    (
        "requests_total",
        "counter",
        &["code", "encoding", "operation"],
    ),
    ("requests_active", "gauge", &["operation"]),
    ("request_duration_seconds", "histogram", &["operation"]),
    ("upstream_duration_seconds", "histogram", &["operation"]),
    ("seal_duration_seconds", "histogram", &["cipher"]),
    ("open_duration_seconds", "histogram", &["cipher"]),
    ("sealed_records_total", "counter", &["cipher"]),
    ("sealed_bytes_total", "counter", &["cipher"]),
    ("opened_records_total", "counter", &["cipher"]),
    ("opened_bytes_total", "counter", &["cipher"]),
    ("decryption_failures_total", "counter", &["reason"]),
    ("key_errors_total", "counter", &["reason"]),
    ("api_key_refusals_total", "counter", &["reason"]),
    ("key_rotations_total", "counter", &["reason"]),
    ("split_batches_total", "counter", &[]),
    ("split_parts_total", "counter", &[]),
    ("compressed_records_total", "counter", &[]),
    ("key_on_plain_total", "counter", &[]),
    ("plain_appends_total", "counter", &[]),
    ("inflight_bytes", "gauge", &[]),
    ("inflight_limit_bytes", "gauge", &[]),
    ("inflight_refused_total", "counter", &[]),
    ("connections", "gauge", &[]),
    ("connections_limit", "gauge", &[]),
    ("connections_accepted_total", "counter", &[]),
    ("handshake_failures_total", "counter", &["reason"]),
    ("sessions", "gauge", &["operation"]),
    (
        "store_operations_total",
        "counter",
        &["operation", "outcome"],
    ),
    (
        "store_operation_duration_seconds",
        "histogram",
        &["operation"],
    ),
    ("kms_requests_total", "counter", &["operation", "outcome"]),
    ("kms_request_duration_seconds", "histogram", &["operation"]),
    ("kms_cached_keys", "gauge", &[]),
    ("store_size_bytes", "gauge", &[]),
    ("store_entries", "gauge", &["kind"]),
    ("upstream_errors_total", "counter", &["kind"]),
    ("upstream_connections", "gauge", &["protocol"]),
    ("last_reload_successful", "gauge", &[]),
    ("ready", "gauge", &[]),
    ("draining", "gauge", &[]),
    ("audit_lines_total", "counter", &[]),
    ("audit_failures_total", "counter", &[]),
    ("process_open_fds", "gauge", &[]),
];

/// Named so that it cannot be missed.
const STREAM: &str = "telling-name-of-a-stream";

async fn traffic(client: &Client) {
    let batch = input([record(&[(b"a", b"b")], "text")]);
    for encoding in Encoding::APPENDS {
        let answer = client
            .ask(append(STREAM, encoding, Packed::Not, &batch))
            .await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    for encoding in Encoding::READS {
        client
            .ask(read(STREAM, "seq_num=0&count=4", encoding))
            .await;
        let wrong = read(STREAM, "seq_num=0", encoding).without("s2-encryption-key");
        client.ask(wrong.key(&[1; 32])).await;
    }
    client.ask(Ask::get(records(STREAM) + "/tail")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_family_is_there_from_the_start_and_follows_the_conventions() {
    let stack = Stack::start().await;
    for after_traffic in [false, true] {
        if after_traffic {
            stack.create_basin(Some("aegis-256")).await;
            traffic(&stack.h2().await).await;
        }
        let text = stack.metrics().render();
        let types: BTreeMap<&str, &str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
            .collect();
        for (name, kind, labels) in FAMILIES {
            // The first of them comes with the first request.
            if name == "requests_total" && !after_traffic {
                continue;
            }
            let name = match name.starts_with("process_") {
                true => name.to_owned(),
                false => format!("streamseal_{name}"),
            };
            assert_eq!(types.get(&*name), Some(&kind), "{name} in\n{text}");
            assert!(text.contains(&format!("# HELP {name} ")), "{name}");
            let is_of = |line: &&str| {
                let series = line.split([' ', '{']).next().unwrap();
                let plain = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|end| series.strip_suffix(end));
                series == name || (kind == "histogram" && plain == Some(&*name))
            };
            for line in text.lines().filter(is_of) {
                for label in labels {
                    assert!(line.contains(&format!("{label}=\"")), "{label}: {line}");
                }
            }
        }
        for (name, kind) in types {
            let is_total = name.ends_with("_total");
            assert_eq!(is_total, kind == "counter", "{name} is a {kind}");
            for unit in ["_ms", "_us", "_millis", "_kb", "_kib", "_minutes"] {
                assert!(!name.contains(unit), "{name} is not in a base unit");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stream_and_no_basin_is_named() {
    let stack = Stack::start().await;
    stack.create_basin(Some("aegis-256")).await;
    traffic(&stack.h2().await).await;
    let text = stack.metrics().render();
    assert!(!text.contains(STREAM) && !text.contains(BASIN), "{text}");
}

async fn nonsense(client: &Client, seed: &str) -> Vec<Answer> {
    let paths = ["/", "/v1/", "/v1/streams/", "/v1/basins/", "/v2/"];
    let methods = [
        "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW",
    ];
    let mut answers = Vec::new();
    for method in methods {
        for path in paths {
            for end in ["", "/records", "/records/tail", "/x"] {
                let ask = Ask::new(method, format!("{path}{seed}{end}?{seed}={seed}"));
                let ask = ask
                    .basin(&format!("basin-{seed}"))
                    .header("content-type", format!("application/{seed}"))
                    .header("accept", seed)
                    .header("s2-format", seed)
                    .header("s2-encryption-key", seed)
                    .raw(seed.to_owned());
                answers.push(client.ask(ask).await);
            }
        }
    }
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn nonsense_makes_no_series() {
    let stack = Stack::start().await;
    let client = stack.h2().await;
    nonsense(&client, "first-nonsense").await;
    let settled = |before: &Counts| before.only(&["requests_total"]).names();
    stack.moved(&stack.counts(), &["requests_total"], &[]).await;
    let before = stack.counts();
    let answers = nonsense(&client, "second-nonsense").await;
    crate::harness::until("all are counted", async || {
        let now = stack.counts().only(&["requests_total"]).sum();
        now - before.only(&["requests_total"]).sum() == answers.len() as f64
    })
    .await;
    let now = stack.counts();
    assert_eq!(settled(&now), settled(&before));
    let text = stack.metrics().render();
    for secret in ["first-nonsense", "second-nonsense", "BREW"] {
        assert!(!text.contains(secret), "{text}");
    }
}

/// A proxy on the store and the upstream of `stack`, which must be stopped, that names streams.
async fn naming_streams(stack: &Stack, max_series: usize) -> (Arc<Metrics>, Client) {
    let metrics = Arc::new(Metrics::with_streams(max_series).unwrap());
    let config = &stack.config;
    let store = Embedded::open(&config.store).unwrap();
    let proxy = Proxy::new(Parts {
        store: Arc::new(Measured::new(store, Arc::clone(&metrics))),
        rules: Rules::compile(&[], &[]).unwrap(),
        registry: (&config.store).into(),
        on_plain: config.keys.on_plain,
        rotate_after: streamseal::keys::RotateAfter::default(),
        kms: None,
        takes_api_keys: false,
        clients: streamseal::keys::Clients::Any,
        key_check: config.keys.check,
        upstream: Upstream::new(&config.upstream, Arc::clone(&metrics)).unwrap(),
        basin_domain: String::new(),
        fit: Fit::default(),
        budget: Budget::new(config.limits.max_inflight_bytes.as_u64(), &metrics),
        metrics: Arc::clone(&metrics),
        drain: Drain::new(),
        sinks: Arc::new(Sinks::new(None, None)),
    });
    let server = Server::bind(&config.listen, &config.limits, Arc::clone(&metrics)).unwrap();
    let address = server.local_addr();
    let certificate = server.tls().self_signed_pem().unwrap();
    tokio::spawn(server.serve(Arc::new(proxy), Drain::new()));
    let client = Client::tls(address, &certificate, "h2").await;
    (metrics, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_named_where_that_is_turned_on_and_only_so_many() {
    let mut stack = Stack::start().await;
    stack.create_basin(Some("aes-256-gcm")).await;
    stack.stop().await;
    let (metrics, client) = naming_streams(&stack, 8).await;
    let one = record(&[(b"a", b"b")], "text");
    let size = metered(&one.headers, &one.body) as f64;
    for stream in ["first", "second", "third", "fourth", "first"] {
        for encoding in Encoding::APPENDS {
            let batch = input([one.clone(), one.clone()]);
            let answer = client
                .ask(append(stream, encoding, Packed::Not, &batch))
                .await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        for encoding in [Encoding::Proto, Encoding::Frames] {
            let answer = client
                .ask(read(stream, "seq_num=0&count=8", encoding))
                .await;
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    let plain = Ask::post("/v1/streams").json(&json!({ "stream": "idle" }));
    client.ask(plain.key(&KEY)).await;
    let counts = Counts::parse(&metrics.render());
    let of = |family: &str, basin: &str, stream: &str, direction: &str| {
        counts.of(&format!(
            r#"stream_{family}_total{{basin="{basin}",direction="{direction}",stream="{stream}"}}"#
        ))
    };
    for (basin, stream, appended) in [
        (BASIN, "first", 16.0),
        (BASIN, "second", 8.0),
        ("other", "other", 16.0),
    ] {
        for (direction, records) in [("sealed", appended), ("opened", 2.0 * appended)] {
            assert_eq!(
                of("records", basin, stream, direction),
                records,
                "{stream} {direction}"
            );
            assert_eq!(of("bytes", basin, stream, direction), records * size);
        }
    }
    let named = ["stream_records_total", "stream_bytes_total"];
    assert_eq!(counts.only(&named).names().len(), 12);
}
