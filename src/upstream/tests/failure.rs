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

fn post(body: Body) -> Request<Body> {
    Request::post("/").body(body).unwrap()
}

pub(super) fn post_in_memory() -> Request<Body> {
    let mut request = post(full("a batch"));
    request.extensions_mut().insert(InMemory);
    request
}

/// A store that answers no request, and notes each that arrives.
async fn silent() -> (Store, Arc<Notify>) {
    let arrived = Arc::new(Notify::new());
    let signal = Arc::clone(&arrived);
    let store = Store::start(100, move |_| {
        signal.notify_one();
        std::future::pending()
    });
    (store.await, arrived)
}

#[tokio::test]
async fn append_on_a_killed_connection_is_lost_and_not_repeated() {
    let (store, arrived) = silent().await;
    let upstream = store.upstream();
    let sent = tokio::spawn(async move { upstream.send(Target::Account, post_in_memory()).await });
    within(arrived.notified()).await;
    store.kill_connections().await;
    let error = within(sent).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    assert_eq!(store.connections(), 1, "it must not be tried again");
}

#[tokio::test]
async fn read_on_a_killed_connection_is_repeated_once() {
    let (store, arrived) = silent().await;
    let upstream = store.upstream();
    let sent = tokio::spawn(async move { upstream.send(Target::Account, request("/")).await });
    for _ in 0..2 {
        within(arrived.notified()).await;
        store.kill_connections().await;
    }
    let error = within(sent).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error}");
    assert_eq!(store.connections(), 2);
}

/// SETTINGS without content.
pub(super) const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// RST_STREAM of stream 1 with REFUSED_STREAM (7).
const REFUSED: [u8; 13] = [0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7];
/// GOAWAY with the last stream 0 and NO_ERROR, and with ENHANCE_YOUR_CALM (11).
const GOAWAY: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const GOAWAY_CALM: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11];
/// HEADERS of stream 1, its end: `:status: 204`.
pub(super) const NO_CONTENT: [u8; 10] = [0, 0, 1, 1, 5, 0, 0, 0, 1, 0x89];

/// A peer that answers the first request of each connection with these frames, the last of them from then on.
/// Returns its address and the number of its requests.
async fn peer(answers: Vec<&'static [u8]>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    tokio::spawn(async move {
        loop {
            let (mut io, _) = listener.accept().await.unwrap();
            io.write_all(&SETTINGS).await.unwrap();
            let (count, answers) = (Arc::clone(&count), answers.clone());
            tokio::spawn(async move {
                wait_for_headers(&mut io).await;
                let at = count.fetch_add(1, Ordering::SeqCst);
                let answer = answers.get(at).or(answers.last()).unwrap();
                io.write_all(answer).await.unwrap();
                std::future::pending::<()>().await;
            });
        }
    });
    (address, requests)
}

#[tokio::test]
async fn unprocessed_request_in_memory_is_sent_again() {
    for unprocessed in [&REFUSED[..], &GOAWAY, &GOAWAY_CALM] {
        for request in [post_in_memory(), request("/")] {
            let (address, requests) = peer(vec![unprocessed, &NO_CONTENT]).await;
            let upstream = upstream(&format!("http://{address}"));
            let answer = within(upstream.send(Target::Account, request)).await;
            assert_eq!(answer.unwrap().status(), StatusCode::NO_CONTENT);
            assert_eq!(requests.load(Ordering::SeqCst), 2);
        }
    }
}

#[tokio::test]
async fn unprocessed_request_is_certainly_without_effect() {
    for unprocessed in [&REFUSED[..], &GOAWAY, &GOAWAY_CALM] {
        for (request, sent) in [(post_in_memory(), 3), (post(full("a batch")), 1)] {
            let (address, requests) = peer(vec![unprocessed]).await;
            let upstream = upstream(&format!("http://{address}"));
            let error = within(upstream.send(Target::Account, request))
                .await
                .unwrap_err();
            assert!(matches!(error, Error::Connect { .. }), "{error:?}");
            assert_eq!(requests.load(Ordering::SeqCst), sent);
        }
    }
}

#[tokio::test]
async fn goaway_at_or_above_the_request_leaves_doubt() {
    // The last stream is 1: the peer may have processed it, and then it closes.
    const GOAWAY_ONE: [u8; 17] = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 11];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut io, _) = listener.accept().await.unwrap();
        io.write_all(&SETTINGS).await.unwrap();
        wait_for_headers(&mut io).await;
        io.write_all(&GOAWAY_ONE).await.unwrap();
        io.shutdown().await.unwrap();
    });
    let upstream = upstream(&format!("http://{address}"));
    let error = within(upstream.send(Target::Account, post_in_memory()))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error:?}");
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
pub(super) async fn wait_for_headers(io: &mut TcpStream) {
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
