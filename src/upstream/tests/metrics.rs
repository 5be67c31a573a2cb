//! What is measured of requests, and whose fault they are.

use http_body_util::StreamBody;

use super::*;
use crate::telemetry::label::Protocol;

fn metrics_of(upstream: &Upstream) -> &crate::telemetry::metrics::UpstreamMetrics {
    &upstream.metrics.upstream
}

#[tokio::test]
async fn an_answer_is_timed_as_the_operation_that_the_request_names() {
    let store = Store::start(100, |_| async { answer("body") }).await;
    let upstream = store.upstream();
    for operation in [Operation::Append, Operation::Tail, Operation::Append] {
        let mut request = request("/");
        request.extensions_mut().insert(operation);
        within(upstream.send(Target::Account, request))
            .await
            .unwrap();
    }
    let duration = &metrics_of(&upstream).duration;
    for (operation, count) in [
        (Operation::Append, 2),
        (Operation::Tail, 1),
        (Operation::Read, 0),
        (Operation::Unrouted, 0),
    ] {
        assert_eq!(duration.of(operation).get_sample_count(), count);
    }
    assert_eq!(
        metrics_of(&upstream).connections.of(Protocol::Http2).get(),
        1
    );
    store.kill_connections().await;
    within(async {
        while metrics_of(&upstream).connections.of(Protocol::Http2).get() != 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_whose_own_body_breaks_off_is_not_the_upstreams_fault() {
    let store = Store::start(100, |request: Request<Incoming>| async move {
        let _ = request.collect().await;
        std::future::pending().await
    })
    .await;
    let upstream = store.upstream();
    let broken = futures_util::stream::iter([
        Ok(http_body::Frame::data(Bytes::from_static(b"beginning"))),
        Err(BoxError::from("broken off")),
    ]);
    let body = BodyExt::boxed_unsync(StreamBody::new(broken));
    let request = Request::post("/").body(body).unwrap();
    let error = within(upstream.send(Target::Account, request))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error:?}");
    let errors = &metrics_of(&upstream).errors;
    assert_eq!(errors.of(UpstreamFailure::Lost).get(), 0);
}

#[tokio::test]
async fn what_is_given_up_is_a_timeout() {
    let upstream = upstream("http://127.0.0.1:1");
    let late = upstream.within(Duration::ZERO, std::future::pending::<()>());
    within(late).await.unwrap_err();
    upstream
        .within(Duration::from_secs(60), async {})
        .await
        .unwrap();
    let errors = &metrics_of(&upstream).errors;
    assert_eq!(errors.of(UpstreamFailure::Timeout).get(), 1);
}
