//! What is shipped for operators fits the program: its configurations are taken, and its dashboard and
//! alerts ask for metrics that exist, by labels that they have.

mod configurations;
mod promql;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use serde_json::Value;

use crate::{
    admin,
    harness::{Encoding, Packed, append, input, record},
};

const DASHBOARD: &str = include_str!("../../../config/deploy/grafana/streamseal.json");
const ALERTS: &str = include_str!("../../../config/deploy/prometheus/alerts.yaml");

/// Every metric and its labels, as `a_scrape_has_these_metrics_and_no_others` finds them. Histograms end in `_seconds` and have a duration in their name.
const EXPECTED: &[(&str, &[&str])] = &[
    ("streamseal_build_info", &["version"]),
    (
        "streamseal_requests_total",
        &["operation", "encoding", "code"],
    ),
    ("streamseal_requests_active", &["operation"]),
    ("streamseal_request_duration_seconds", &["operation"]),
    ("streamseal_upstream_duration_seconds", &["operation"]),
    ("streamseal_seal_duration_seconds", &["cipher"]),
    ("streamseal_open_duration_seconds", &["cipher"]),
    ("streamseal_sealed_records_total", &["cipher"]),
    ("streamseal_sealed_bytes_total", &["cipher"]),
    ("streamseal_opened_records_total", &["cipher"]),
    ("streamseal_opened_bytes_total", &["cipher"]),
    ("streamseal_decryption_failures_total", &["reason"]),
    ("streamseal_key_errors_total", &["reason"]),
    ("streamseal_key_rotations_total", &["reason"]),
    ("streamseal_api_key_refusals_total", &["reason"]),
    ("streamseal_split_batches_total", &[]),
    ("streamseal_split_parts_total", &[]),
    ("streamseal_compressed_records_total", &[]),
    ("streamseal_key_on_plain_total", &[]),
    ("streamseal_plain_appends_total", &[]),
    ("streamseal_inflight_bytes", &[]),
    ("streamseal_inflight_limit_bytes", &[]),
    ("streamseal_inflight_refused_total", &[]),
    ("streamseal_connections", &[]),
    ("streamseal_connections_limit", &[]),
    ("streamseal_connections_accepted_total", &[]),
    ("streamseal_handshake_failures_total", &["reason"]),
    ("streamseal_sessions", &["operation"]),
    (
        "streamseal_store_operations_total",
        &["operation", "outcome"],
    ),
    (
        "streamseal_store_operation_duration_seconds",
        &["operation"],
    ),
    ("streamseal_kms_requests_total", &["operation", "outcome"]),
    ("streamseal_kms_request_duration_seconds", &["operation"]),
    ("streamseal_kms_retries_total", &[]),
    ("streamseal_kms_cached_keys", &[]),
    ("streamseal_store_size_bytes", &[]),
    ("streamseal_store_entries", &["kind"]),
    ("streamseal_upstream_errors_total", &["kind"]),
    ("streamseal_upstream_connections", &["protocol"]),
    (
        "streamseal_certificate_expiry_timestamp_seconds",
        &["certificate"],
    ),
    ("streamseal_reloads_total", &["outcome"]),
    ("streamseal_last_reload_successful", &[]),
    ("streamseal_ready", &[]),
    ("streamseal_ready_check", &["check"]),
    ("streamseal_draining", &[]),
    ("streamseal_audit_lines_total", &[]),
    ("streamseal_audit_failures_total", &[]),
    (
        "streamseal_stream_records_total",
        &["basin", "stream", "direction"],
    ),
    (
        "streamseal_stream_bytes_total",
        &["basin", "stream", "direction"],
    ),
    ("process_cpu_seconds_total", &[]),
    ("process_open_fds", &[]),
    ("process_max_fds", &[]),
    ("process_resident_memory_bytes", &[]),
    ("process_start_time_seconds", &[]),
];

/// Labels that the one who scrapes puts on every sample.
const SCRAPED: [&str; 2] = ["job", "instance"];

/// The time series in a scrape, each with its labels.
fn scraped(text: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels.trim_end_matches('}').split("\",");
        let names = labels.filter_map(|label| label.split_once('='));
        let names = names.map(|(name, _)| name.to_owned());
        found.entry(name.to_owned()).or_default().extend(names);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_has_these_metrics_and_no_others() {
    let mut stack = admin::with(|config| config.admin.stream_metrics = true).await;
    stack.create_basin(Some("aegis-256")).await;
    let batch = input([record(&[], "text")]);
    let ask = append("s", Encoding::Json, Packed::Not, &batch);
    assert_eq!(stack.h2().await.ask(ask).await.status, 200);
    stack.reload(|_| {}).unwrap();
    let mut found = scraped(&admin::get(&stack, "/metrics").await.text());
    let own = |name: &String| names_that_exist().contains_key(name);
    found.retain(|name, _| name.starts_with("streamseal_") || own(name));
    assert_eq!(found, names_that_exist());
}

/// The time series of the table, each with its labels.
fn names_that_exist() -> BTreeMap<String, BTreeSet<String>> {
    let mut names = BTreeMap::new();
    for (name, labels) in EXPECTED {
        let labels: BTreeSet<String> = labels.iter().map(|label| (*label).to_owned()).collect();
        if name.ends_with("_duration_seconds") {
            let mut bucket = labels.clone();
            bucket.insert("le".to_owned());
            names.insert(format!("{name}_bucket"), bucket);
            names.insert(format!("{name}_sum"), labels.clone());
            names.insert(format!("{name}_count"), labels);
        } else {
            names.insert((*name).to_owned(), labels);
        }
    }
    names
}

/// Every query in the JSON below `value`: panels' and variables'.
fn queries(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                match value {
                    Value::String(text) if key == "expr" => found.push(text.clone()),
                    Value::String(text) if key == "query" => {
                        let label_values = text.strip_prefix("label_values(");
                        found.extend(label_values.and_then(|rest| {
                            let (metric, _label) = rest.rsplit_once(',')?;
                            Some(metric.to_owned())
                        }));
                    }
                    value => queries(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

/// The values of `key` in this YAML, where each is on the key's own line or a block below it.
fn yaml_values(yaml: &str, key: &str) -> Vec<String> {
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '-']).len();
    let lines: Vec<_> = yaml.lines().collect();
    let mut values = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let name = line.trim_start_matches([' ', '-']);
        let Some(value) = name
            .strip_prefix(key)
            .and_then(|rest| rest.strip_prefix(':'))
        else {
            continue;
        };
        let value = value.trim();
        if !["|", ">-"].contains(&value) {
            values.push(value.to_owned());
            continue;
        }
        let own = indent(line);
        let belongs = |line: &&&str| line.trim().is_empty() || indent(line) > own;
        let block: Vec<_> = lines[at + 1..].iter().take_while(belongs).collect();
        let shift = block.iter().filter(|line| !line.trim().is_empty());
        let shift = shift.map(|line| indent(line)).min().unwrap_or_default();
        let block = block.iter().map(|line| line.get(shift..).unwrap_or(""));
        values.push(block.collect::<Vec<_>>().join("\n"));
    }
    values
}

/// Each metric of the query exists, and each label is one of its metrics'.
fn check_query(query: &str, exist: &BTreeMap<String, BTreeSet<String>>) {
    let asked = promql::read(query);
    assert!(!asked.metrics.is_empty(), "no metric in {query}");
    let mut labels: BTreeSet<&str> = SCRAPED.into();
    for metric in &asked.metrics {
        // Prometheus makes this one up.
        if metric == "up" {
            continue;
        }
        let has = exist.get(metric);
        let has = has.unwrap_or_else(|| panic!("there is no {metric}, in {query}"));
        labels.extend(has.iter().map(String::as_str));
    }
    for label in &asked.labels {
        assert!(labels.contains(label.as_str()), "no label {label}: {query}");
    }
}

#[test]
fn dashboard_asks_for_metrics_that_exist() {
    let mut found = Vec::new();
    queries(&serde_json::from_str(DASHBOARD).unwrap(), &mut found);
    assert!(found.len() > 50, "{}", found.len());
    let exist = names_that_exist();
    for query in &found {
        check_query(query, &exist);
    }
}

#[test]
fn dashboard_shows_every_metric() {
    let mut found = Vec::new();
    queries(&serde_json::from_str(DASHBOARD).unwrap(), &mut found);
    let shown: BTreeSet<_> = found.iter().flat_map(|q| promql::read(q).metrics).collect();
    let own = EXPECTED.iter().map(|(name, _)| *name);
    let missing: Vec<_> = own
        .filter(|name| !shown.contains(*name) && !shown.contains(&format!("{name}_bucket")))
        .collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn alerts_ask_for_metrics_that_exist() {
    let found = yaml_values(ALERTS, "expr");
    assert!(found.len() > 15, "{}", found.len());
    assert_eq!(found.len(), yaml_values(ALERTS, "alert").len());
    let exist = names_that_exist();
    for query in &found {
        check_query(query, &exist);
    }
}

#[test]
fn alerts_say_how_bad_it_is_and_what_to_do() {
    for alert in ALERTS.split("- alert: ").skip(1) {
        for key in ["summary", "description", "action"] {
            let said = yaml_values(alert, key);
            assert!(said.len() == 1 && said[0].len() > 10, "{key} of {alert}");
        }
        let severity = yaml_values(alert, "severity");
        let known = [["critical"], ["warning"]];
        assert!(known.iter().any(|known| severity == known), "{alert}");
    }
}

/// Every file below `dir` whose name ends in `.extension`, with its path and text.
fn files(dir: &Path, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|is| is == extension) {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path.display().to_string(), text));
        }
    }
    found
}
