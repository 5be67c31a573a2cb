//! A collector of OpenTelemetry traces that keeps what it gets.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1,
};
use prost::Message as _;
use tokio::net::TcpListener;

/// The collector. It stops with the test's runtime.
#[derive(Clone)]
pub struct Collector {
    address: SocketAddr,
    kept: Arc<Mutex<Kept>>,
}

#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    requests: Vec<ExportTraceServiceRequest>,
}

/// One span as it came.
#[derive(Debug, Clone)]
pub struct Span {
    pub name: String,
    pub trace_id: String,
    pub id: String,
    pub parent_id: String,
    pub status: i32,
    pub kind: i32,
    pub attributes: BTreeMap<String, String>,
}

impl Collector {
    /// Starts one that answers with this status.
    pub async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self {
            address: listener.local_addr().unwrap(),
            kept: Arc::default(),
        };
        let kept = Arc::clone(&collector.kept);
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                let service = service_fn(move |request| keep(Arc::clone(&kept), request, status));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(io), service));
            }
        });
        collector
    }

    /// Where it takes spans.
    pub fn endpoint(&self) -> String {
        format!("http://{}/v1/traces", self.address)
    }

    /// Every byte that it got.
    pub fn bytes(&self) -> Vec<u8> {
        self.kept.lock().unwrap().bytes.clone()
    }

    /// Every span that it got.
    pub fn spans(&self) -> Vec<Span> {
        let kept = self.kept.lock().unwrap();
        let resources = kept.requests.iter().flat_map(|all| &all.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| &scope.spans).map(span).collect()
    }

    /// The attributes of the process that it heard from first.
    pub fn resource(&self) -> BTreeMap<String, String> {
        let kept = self.kept.lock().unwrap();
        let resource = kept.requests[0].resource_spans[0].resource.clone();
        attributes(&resource.unwrap().attributes)
    }
}

async fn keep(
    kept: Arc<Mutex<Kept>>,
    request: Request<Incoming>,
    status: u16,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    assert_eq!(request.uri().path(), "/v1/traces");
    assert_eq!(request.headers()["content-type"], "application/x-protobuf");
    let head = format!("{:?}", request.headers());
    let body = request.into_body().collect().await?.to_bytes();
    let mut kept = kept.lock().unwrap();
    kept.bytes.extend_from_slice(head.as_bytes());
    kept.bytes.extend_from_slice(&body);
    kept.requests
        .push(ExportTraceServiceRequest::decode(body).unwrap());
    let answer = Response::builder().status(status);
    Ok(answer.body(Full::default()).unwrap())
}

fn span(span: &v1::Span) -> Span {
    Span {
        name: span.name.clone(),
        trace_id: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        status: span.status.as_ref().map_or(0, |status| status.code),
        kind: span.kind,
        attributes: attributes(&span.attributes),
    }
}

fn attributes(
    from: &[opentelemetry_proto::tonic::common::v1::KeyValue],
) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    from.iter()
        .filter_map(|pair| {
            let value = pair.value.as_ref()?.value.as_ref()?;
            Some((pair.key.clone(), text(value)))
        })
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
