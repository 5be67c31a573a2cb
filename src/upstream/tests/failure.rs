//! What is known of a request that got no response, and that leaving early cancels it.

use http::Method;
use http_body_util::StreamBody;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
};

use super::*;

#[tokio::test]
async fn refused_connection_means_nothing_was_sent() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let upstream = upstream(&format!("http://{address}"));
    let error = within(upstream.send(Target::Account, request("/")))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
}

#[tokio::test]
async fn peer_without_http2_means_nothing_was_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut io, _) = listener.accept().await.unwrap();
            io.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap();
        }
    });
    let upstream = upstream(&format!("http://{address}"));
    let error = within(upstream.send(Target::Account, request("/")))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
}

#[tokio::test]
async fn connection_killed_after_sending_is_lost() {
    let arrived = Arc::new(Notify::new());
    let signal = Arc::clone(&arrived);
    let store = Store::start(100, move |_| {
        signal.notify_one();
        std::future::pending()
    })
    .await;
    let upstream = store.upstream();
    let sent = tokio::spawn(async move { upstream.send(Target::Account, request("/")).await });
    within(arrived.notified()).await;
    store.kill_connections().await;
    let error = within(sent).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    assert_eq!(store.connections(), 1, "it must not be tried again");
}

#[tokio::test]
async fn refused_stream_means_nothing_was_done() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut io, _) = listener.accept().await.unwrap();
        // SETTINGS without content.
        io.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        wait_for_headers(&mut io).await;
        // RST_STREAM of stream 1 with REFUSED_STREAM (7).
        let reset = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7];
        io.write_all(&reset).await.unwrap();
        std::future::pending::<()>().await;
    });
    let upstream = upstream(&format!("http://{address}"));
    let error = within(upstream.send(Target::Account, request("/")))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

/// A response that never ends, and a way to see that the store dropped it.
fn endless() -> (
    Answer,
    mpsc::Sender<Result<http_body::Frame<Bytes>, Infallible>>,
) {
    let (frames, queue) = mpsc::channel(1);
    let stream = futures_util::stream::unfold(queue, |mut queue| async move {
        let frame = queue.recv().await?;
        Some((frame, queue))
    });
    let body = BodyExt::boxed_unsync(StreamBody::new(stream));
    (typed(body), frames)
}

#[tokio::test]
async fn dropping_the_response_body_cancels_both_directions() {
    let (outcomes, mut outcome) = mpsc::unbounded_channel();
    let (bodies, mut frames) = mpsc::unbounded_channel();
    let store = Store::start(100, move |request: Request<Incoming>| {
        let outcomes = outcomes.clone();
        tokio::spawn(async move { outcomes.send(request.collect().await.is_err()) });
        let (response, sender) = endless();
        bodies.send(sender).unwrap();
        async { response }
    })
    .await;
    // An append session: its request body never ends by itself.
    let open_end = futures_util::stream::pending::<Result<http_body::Frame<Bytes>, BoxError>>();
    let session = Request::builder()
        .method(Method::POST)
        .uri("/")
        .body(BodyExt::boxed_unsync(StreamBody::new(open_end)))
        .unwrap();
    let response = within(store.upstream().send(Target::Account, session))
        .await
        .unwrap();
    drop(response);
    let sender = frames.recv().await.unwrap();
    within(sender.closed()).await;
    let was_reset = within(outcome.recv()).await.unwrap();
    assert!(was_reset, "the request must not look complete");
}

#[tokio::test]
async fn dropping_the_request_cancels_it() {
    let arrived = Arc::new(Notify::new());
    let (alive, mut dropped) = mpsc::channel::<()>(1);
    let signal = Arc::clone(&arrived);
    let alive = Mutex::new(Some(alive));
    let alive = Arc::new(alive);
    let store = Store::start(100, move |_| {
        let held = alive.lock().unwrap().take();
        signal.notify_one();
        async move {
            std::future::pending::<()>().await;
            drop(held);
            answer("")
        }
    })
    .await;
    let upstream = store.upstream();
    let sent = tokio::spawn(async move { upstream.send(Target::Account, request("/")).await });
    within(arrived.notified()).await;
    sent.abort();
    assert_eq!(within(dropped.recv()).await, None);
}

#[tokio::test]
async fn untrusted_certificate_means_nothing_was_sent() {
    let (address, _) = http1_store(Arc::default()).await;
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let mut ca = tempfile::NamedTempFile::new().unwrap();
    ca.write_all(other.cert.pem().as_bytes()).unwrap();
    let mut config = config(&format!("https://{address}"));
    config.tls.ca_file = ca.path().into();
    let upstream = connect(&config);
    let error = within(upstream.send(Target::Account, request("/")))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error}");
}

/// Reads the client's preface and frames up to and including the first HEADERS (type 1).
async fn wait_for_headers(io: &mut TcpStream) {
    let mut preface = [0; 24];
    io.read_exact(&mut preface).await.unwrap();
    loop {
        let mut head = [0; 9];
        io.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        io.read_exact(&mut payload).await.unwrap();
        if head[3] == 1 {
            return;
        }
    }
}
