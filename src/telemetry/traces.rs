//! OpenTelemetry traces: a span for each request, sent to a collector over OTLP.

mod client;

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use opentelemetry::{
    Context, Key, KeyValue,
    propagation::TextMapPropagator as _,
    trace::{SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _},
};
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use serde::{Deserialize, Serialize};

use self::client::{Client, Endpoint};
use super::{label::Fault, report::Report};

/// Header beside `traceparent` with what other tracing systems need to know.
pub const TRACESTATE: &str = "tracestate";

/// The `[traces]` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// URL of a collector's OTLP over HTTP, `http://` or `https://`, with its path, which is mostly
    /// `/v1/traces`. Empty: no traces.
    pub otlp_endpoint: String,
    /// Share of the requests that are traced, from 0 to 1, where the client has not decided.
    pub sample_ratio: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            otlp_endpoint: String::new(),
            sample_ratio: 1.0,
        }
    }
}

impl Config {
    /// What is wrong with the section, each with its key.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(Err(wrong)) = self.endpoint() {
            problems.push(format!("traces.otlp_endpoint: {wrong}"));
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            problems.push("traces.sample_ratio: must be from 0 to 1".to_owned());
        }
        problems
    }

    fn endpoint(&self) -> Option<Result<Endpoint, String>> {
        let is_on = !self.otlp_endpoint.is_empty();
        is_on.then(|| Endpoint::parse(&self.otlp_endpoint))
    }
}

/// Makes spans and sends them from a thread of its own. Spans that a slow collector leaves no room for are
/// dropped; no request waits.
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

impl Traces {
    /// Starts to trace; `None` when no collector is named. Must be called on the runtime that sends.
    ///
    /// # Errors
    /// When the section makes no sense, or there are no certificates to know the collector by.
    pub fn start(config: &Config) -> Result<Option<Self>, String> {
        let Some(endpoint) = config.endpoint() else {
            return Ok(None);
        };
        let wrong = |wrong| format!("traces.otlp_endpoint: {wrong}");
        let client = Client::new(endpoint.map_err(wrong)?).map_err(wrong)?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(&config.otlp_endpoint)
            .with_http_client(client)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        let sampler = Sampler::TraceIdRatioBased(config.sample_ratio);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(sampler)))
            .with_resource(resource())
            .build();
        Ok(Some(Self {
            tracer: provider.tracer(env!("CARGO_PKG_NAME")),
            provider,
            propagator: TraceContextPropagator::new(),
        }))
    }

    /// Begins the span of a request with these headers, as a child of the client's if there is one. From
    /// now on the headers name this span, for the upstream to make its own a child of it.
    pub fn begin(&self, headers: &mut HeaderMap) -> Span {
        let parent = Context::new();
        let parent = self
            .propagator
            .extract_with_context(&parent, &HeaderExtractor(headers));
        let builder = self
            .tracer
            .span_builder("request")
            .with_kind(SpanKind::Server);
        let span = self.tracer.build_with_context(builder, &parent);
        let context = Context::new().with_span(span);
        self.propagator
            .inject_context(&context, &mut HeaderInjector(headers));
        // It is injected even when it is empty, which is no valid value.
        if headers
            .get(TRACESTATE)
            .is_some_and(|state| state.is_empty())
        {
            headers.remove(TRACESTATE);
        }
        Span(context)
    }

    /// Sends what is left, for at most this long. Nothing is traced any more.
    pub async fn close(&self, limit: Duration) {
        let provider = self.provider.clone();
        let closed = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(limit));
        match tokio::time::timeout(limit, closed).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::warn!(%error, "the last traces are lost"),
            Ok(Err(_)) | Err(_) => tracing::warn!("the last traces are lost"),
        }
    }
}

/// The span of one request.
pub struct Span(Context);

impl Span {
    /// The request is over.
    pub fn end(&self, report: &Report<'_>) {
        let span = self.0.span();
        if !span.is_recording() {
            return;
        }
        let now = SystemTime::now();
        span.update_name(report.operation.as_str());
        span.set_attributes(attributes(report));
        if let Some(after) = report.answered_after
            && let Some(at) = now.checked_sub(report.took.saturating_sub(after))
        {
            span.add_event_with_timestamp("answered", at, Vec::new());
        }
        // A server's span is no error where the client is at fault.
        if let Some(Fault::Upstream | Fault::Proxy) = report.fault {
            span.set_status(Status::error(report.code.to_owned()));
        }
        span.end_with_timestamp(now);
    }
}

/// What the process is called, unless the standard environment variables call it otherwise.
fn resource() -> Resource {
    let name = Key::from_static_str("service.name");
    let given = Resource::builder().build().get(&name);
    // How the SDK calls what has no name.
    let is_given = given.is_some_and(|name| !name.as_str().starts_with("unknown_service"));
    let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = Resource::builder().with_attribute(version);
    match is_given {
        true => resource.build(),
        false => resource.with_service_name(env!("CARGO_PKG_NAME")).build(),
    }
}

fn attributes(report: &Report<'_>) -> Vec<KeyValue> {
    let method = report.what.split(' ').next().unwrap_or_default();
    let mut attributes = vec![
        KeyValue::new("http.request.method", method.to_owned()),
        KeyValue::new("client.address", report.client.address.ip().to_string()),
        KeyValue::new("client.port", i64::from(report.client.address.port())),
        KeyValue::new("streamseal.request_id", report.id.as_str().to_owned()),
        KeyValue::new("streamseal.operation", report.operation.as_str()),
        KeyValue::new("streamseal.encoding", report.encoding.as_str()),
        KeyValue::new("streamseal.code", report.code.to_owned()),
    ];
    let mut add = |name, value: Option<String>| {
        attributes.extend(value.map(|value| KeyValue::new(name, value)));
    };
    add("s2.basin", report.basin.map(str::to_owned));
    add("s2.stream", report.stream.map(str::to_owned));
    add(
        "streamseal.fault",
        report.fault.map(|fault| fault.as_str().to_owned()),
    );
    add(
        "streamseal.cipher",
        report.key.map(|key| key.cipher.to_owned()),
    );
    let status = report.status.map(i64::from);
    attributes.extend(status.map(|status| KeyValue::new("http.response.status_code", status)));
    let records = report
        .records
        .and_then(|records| i64::try_from(records).ok());
    attributes.extend(records.map(|records| KeyValue::new("streamseal.records", records)));
    attributes
}
