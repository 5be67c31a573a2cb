//! What a line of the audit log says.

use std::time::SystemTime;

use humantime_serde::re::humantime::format_rfc3339_millis;
use serde::Serialize;

use crate::telemetry::{label::Fault, report::Report};

/// A line, with its end.
pub(super) fn of(report: &Report<'_>) -> Result<Vec<u8>, serde_json::Error> {
    let mut line = serde_json::to_vec(&Line {
        time: format_rfc3339_millis(SystemTime::now()).to_string(),
        request_id: report.id.as_str(),
        upstream_request_id: report.upstream_id.map(|id| id.as_str()),
        who: Who {
            token: report.client.token,
            project: report.client.project,
            api_key: report.client.api_key,
            certificate: report.client.certificate,
            address: report.client.address.to_string(),
        },
        request: report.what,
        operation: report.operation.as_str(),
        encoding: report.encoding.as_str(),
        basin: report.basin,
        stream: report.stream,
        status: report.status,
        code: report.code,
        fault: report.fault.map(Fault::as_str),
        cipher: report.key.map(|key| key.cipher),
        key: report.key.map(|key| &*key.check),
        records: report.records,
        duration_ms: report.duration_ms(),
    })?;
    line.push(b'\n');
    Ok(line)
}

/// The fields of a line, which are documented for users.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_request_id: Option<&'a str>,
    who: Who<'a>,
    request: &'a str,
    operation: &'a str,
    encoding: &'a str,
    basin: Option<&'a str>,
    stream: Option<&'a str>,
    status: Option<u16>,
    code: &'a str,
    fault: Option<&'a str>,
    cipher: Option<&'a str>,
    key: Option<&'a str>,
    records: Option<u64>,
    duration_ms: f64,
}

#[derive(Serialize)]
struct Who<'a> {
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
    certificate: Option<&'a str>,
    address: String,
}
