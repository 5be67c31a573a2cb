//! Which connection a request takes, and what it shares with others.

use tokio::{
    io::AsyncWriteExt as _,
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use super::{
    failure::{NO_CONTENT, SETTINGS, post_in_memory, wait_for_headers},
    *,
};

/// A request of the client with this port.
fn of(client: u16, mut request: Request<Body>) -> Request<Body> {
    let address = SocketAddr::from(([192, 0, 2, 1], client));
    request.extensions_mut().insert(ClientAddress(address));
    request
}

fn session(client: u16) -> Request<Body> {
    let mut request = of(client, request("/"));
    let frames = HeaderValue::from_static("s2s/proto");
    request
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, frames);
    request
}

/// A path that blocks the store's thread for half a second.
const BUSY: &str = "/busy";

/// A store that answers no request until it is released, and tells of each that arrives.
struct Holding {
    store: Store,
    arrivals: mpsc::UnboundedReceiver<()>,
    release: watch::Sender<bool>,
}

impl Holding {
    async fn start() -> Self {
        let (arrived, arrivals) = mpsc::unbounded_channel();
        let (release, released) = watch::channel(false);
        let store = Store::start(200, move |request| {
            let (arrived, mut released) = (arrived.clone(), released.clone());
            async move {
                if request.uri().path() == BUSY {
                    std::thread::sleep(Duration::from_millis(500));
                }
                arrived.send(()).unwrap();
                released.wait_for(|released| *released).await.unwrap();
                answer("")
            }
        })
        .await;
        Self {
            store,
            arrivals,
            release,
        }
    }

    /// Sends a request and waits until it arrived.
    async fn send(
        &mut self,
        upstream: &Upstream,
        request: Request<Body>,
    ) -> tokio::task::JoinHandle<StatusCode> {
        let upstream = upstream.clone();
        let sent = tokio::spawn(async move {
            let answer = upstream.send(Target::Account, request).await;
            answer.unwrap().status()
        });
        within(self.arrivals.recv()).await.unwrap();
        sent
    }
}

#[tokio::test]
async fn clients_and_sessions_have_connections_of_their_own() {
    let mut holding = Holding::start().await;
    let upstream = holding.store.upstream();
    let mut sent = Vec::new();
    for (request, connections) in [
        (of(1, request("/")), 1),
        (of(1, request("/")), 1),
        (of(2, request("/")), 2),
        (session(1), 3),
        (session(1), 3),
        (session(2), 4),
        (request("/"), 5),
    ] {
        sent.push(holding.send(&upstream, request).await);
        assert_eq!(holding.store.connections(), connections);
    }
    holding.release.send(true).unwrap();
    for sent in sent {
        assert_eq!(within(sent).await.unwrap(), StatusCode::OK);
    }
}

#[tokio::test]
async fn idle_connection_goes_to_the_next_client() {
    let store = Store::start(100, |_| async { answer("body") }).await;
    let upstream = store.upstream();
    for client in 0..20 {
        let sent = upstream.send(Target::Account, of(client, request("/")));
        within(sent).await.unwrap().collect().await.unwrap();
    }
    assert_eq!(store.connections(), 1);
}

#[tokio::test]
async fn many_clients_share_the_connections_there_are() {
    let mut holding = Holding::start().await;
    let upstream = holding.store.upstream();
    let mut sent = Vec::new();
    for client in 0..150 {
        sent.push(holding.send(&upstream, of(client, request("/"))).await);
    }
    assert_eq!(holding.store.connections(), 128);
    holding.release.send(true).unwrap();
    for sent in sent {
        assert_eq!(within(sent).await.unwrap(), StatusCode::OK);
    }
}

/// Runs a store on a thread of its own.
fn on_own_thread(
    start: impl Future<Output = Holding> + Send + 'static,
) -> std::sync::mpsc::Receiver<Holding> {
    let (started, holding) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async {
            started.send(start.await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    holding
}

#[tokio::test]
async fn requests_dropped_at_once_do_not_end_their_connection() {
    let mut holding = on_own_thread(Holding::start()).recv().unwrap();
    let upstream = holding.store.upstream();
    let kept = holding.send(&upstream, of(1, post_in_memory())).await;
    // The store is busy: it reads all of them, and their resets, at once.
    let mut busy = Box::pin(upstream.send(Target::Account, of(1, request(BUSY))));
    let late = tokio::time::timeout(Duration::from_millis(50), &mut busy);
    assert!(late.await.is_err());
    let mut dropped: Vec<_> = (0..80)
        .map(|_| Box::pin(upstream.send(Target::Account, of(1, post_in_memory()))))
        .collect();
    let all = futures_util::future::join_all(dropped.iter_mut());
    let late = tokio::time::timeout(Duration::from_millis(200), async {
        tokio::join!(busy, all)
    });
    assert!(late.await.is_err());
    drop(dropped);
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    holding.release.send(true).unwrap();
    assert_eq!(within(kept).await.unwrap(), StatusCode::OK);
    assert_eq!(holding.store.connections(), 1);
}

#[tokio::test]
async fn connection_with_many_resets_is_retired_and_ends_nothing() {
    let mut holding = Holding::start().await;
    let upstream = holding.store.upstream();
    let kept = holding.send(&upstream, of(1, post_in_memory())).await;
    for _ in 0..5 {
        let mut round = Vec::new();
        for _ in 0..60 {
            round.push(holding.send(&upstream, of(1, post_in_memory())).await);
        }
        for sent in round {
            sent.abort();
        }
        // The places are given back when the requests are reset.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    assert_eq!(holding.store.connections(), 2);
    holding.release.send(true).unwrap();
    assert_eq!(within(kept).await.unwrap(), StatusCode::OK);
}

/// A peer whose first connection says nothing after its settings. Returns its address, and notes each request there.
async fn silent_first() -> (SocketAddr, Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let arrived = Arc::new(Notify::new());
    let signal = Arc::clone(&arrived);
    tokio::spawn(async move {
        for is_silent in std::iter::once(true).chain(std::iter::repeat(false)) {
            let (mut io, _) = listener.accept().await.unwrap();
            io.write_all(&SETTINGS).await.unwrap();
            let signal = Arc::clone(&signal);
            tokio::spawn(async move {
                wait_for_headers(&mut io).await;
                match is_silent {
                    true => signal.notify_one(),
                    false => io.write_all(&NO_CONTENT).await.unwrap(),
                }
                std::future::pending::<()>().await;
            });
        }
    });
    (address, arrived)
}

#[tokio::test]
async fn read_on_a_silent_connection_is_answered_elsewhere() {
    let (address, arrived) = silent_first().await;
    let upstream = upstream(&format!("http://{address}"));
    let began = Instant::now();
    let answer = within(upstream.send(Target::Account, request("/"))).await;
    assert_eq!(answer.unwrap().status(), StatusCode::NO_CONTENT);
    within(arrived.notified()).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{began:?}");
}

#[tokio::test]
async fn silent_connection_takes_no_further_requests() {
    let (address, arrived) = silent_first().await;
    let upstream = upstream(&format!("http://{address}"));
    let stuck = upstream.clone();
    let stuck = tokio::spawn(async move { stuck.send(Target::Account, post_in_memory()).await });
    within(arrived.notified()).await;
    tokio::time::sleep(Duration::from_millis(2_700)).await;
    let began = Instant::now();
    let answer = within(upstream.send(Target::Account, post_in_memory())).await;
    assert_eq!(answer.unwrap().status(), StatusCode::NO_CONTENT);
    assert!(began.elapsed() < Duration::from_secs(1), "{began:?}");
    assert!(!stuck.is_finished(), "the outcome of an append is unknown");
}
