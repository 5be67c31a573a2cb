//! The proxy proves to the upstream who it is, with the certificate and the token of now.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use rustls::{ServerConfig, server::WebPkiClientVerifier};
use streamseal::{certificate, config::Config, server::Authenticate};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::harness::{
    Ask, Authority, BASIN, Encoding, Issued, KEY, Lite, Live, Session, Stack, frame, input, read,
    record, records, roots, until,
};

/// TLS in front of an `s2-lite`, for those who have a certificate of the right authority.
struct Front {
    address: SocketAddr,
    tls: Arc<Mutex<Arc<ServerConfig>>>,
    /// Whose certificate came in, one after the other.
    came: Arc<Mutex<Vec<String>>>,
    open: Arc<AtomicUsize>,
}

impl Front {
    async fn start(lite: SocketAddr, own: &Issued, clients: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let front = Self {
            address: listener.local_addr().unwrap(),
            tls: Arc::new(Mutex::new(server_config(own, clients))),
            came: Arc::default(),
            open: Arc::default(),
        };
        let (tls, came, open) = (
            Arc::clone(&front.tls),
            Arc::clone(&front.came),
            Arc::clone(&front.open),
        );
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                let acceptor = TlsAcceptor::from(Arc::clone(&*tls.lock().unwrap()));
                let (came, open) = (Arc::clone(&came), Arc::clone(&open));
                tokio::spawn(async move {
                    let Ok(mut io) = acceptor.accept(io).await else {
                        return;
                    };
                    let chain = io.get_ref().1.peer_certificates().unwrap();
                    let who = certificate::subject(&chain[0]).unwrap();
                    came.lock().unwrap().push(who.to_string());
                    open.fetch_add(1, Ordering::SeqCst);
                    let mut lite = TcpStream::connect(lite).await.unwrap();
                    let _ended = copy_bidirectional(&mut io, &mut lite).await;
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        front
    }

    fn came(&self) -> Vec<String> {
        self.came.lock().unwrap().clone()
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Makes it the upstream of a proxy that knows its authority.
    fn aim(&self, dir: &Path, config: &mut Config) {
        let endpoint = format!("https://localhost:{}", self.address.port());
        config.upstream.account_endpoint = endpoint.clone();
        config.upstream.basin_endpoint = endpoint;
        config.upstream.tls.ca_file = dir.join("upstream-ca.pem").into();
    }
}

fn server_config(own: &Issued, clients: &Authority) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let roots = Arc::new(roots([clients.pem().as_str()]));
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
    let (chain, key) = own.identity();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

fn present(dir: &Path, config: &mut Config) {
    config.upstream.tls.client_cert_file = dir.join("client.pem").into();
    config.upstream.tls.client_key_file = dir.join("client.key").into();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_wants_a_certificate_gets_the_configured_one() {
    let dir = tempfile::tempdir().unwrap();
    let (stores, proxies, others) = (
        Authority::new("stores"),
        Authority::new("proxies"),
        Authority::new("others"),
    );
    std::fs::write(dir.path().join("upstream-ca.pem"), stores.pem()).unwrap();
    let lite = Arc::new(Lite::start().await);
    let front = Front::start(lite.address, &stores.issue("store"), &proxies).await;
    let mut stack = Stack::over(Arc::clone(&lite), |config| front.aim(dir.path(), config)).await;
    let client = stack.h2().await;
    let status = async || client.ask(Ask::get("/v1/basins")).await.status;
    assert_eq!(status().await, 502);
    others.issue("other").write(dir.path(), "client");
    assert_eq!(
        stack.reload(|config| present(dir.path(), config)),
        Ok(Vec::new())
    );
    assert_eq!(status().await, 502);
    assert_eq!(front.came(), Vec::<String>::new());
    proxies.issue("proxy").write(dir.path(), "client");
    assert_eq!(stack.reload(|_| {}), Ok(Vec::new()));
    assert_eq!(status().await, 200);
    assert_eq!(front.came(), ["CN=proxy"]);
    let listed = stack.reloads().certificates();
    let listed: Vec<_> = listed
        .iter()
        .map(|c| (c.role.name(), &*c.subject))
        .collect();
    assert_eq!(
        listed[1..],
        [
            ("upstream_ca", "CN=stores"),
            ("upstream_client", "CN=proxy")
        ]
    );
    // The proxy asks for a certificate of the upstream's, too.
    std::fs::write(dir.path().join("upstream-ca.pem"), others.pem()).unwrap();
    assert_eq!(stack.reload(|_| {}), Ok(Vec::new()));
    assert_eq!(status().await, 502);
    assert_eq!(front.came(), ["CN=proxy"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_makes_new_connections_and_ends_old_ones_after_their_requests() {
    let dir = tempfile::tempdir().unwrap();
    let (stores, first, second) = (
        Authority::new("stores"),
        Authority::new("first"),
        Authority::new("second"),
    );
    std::fs::write(dir.path().join("upstream-ca.pem"), stores.pem()).unwrap();
    first.issue("one").write(dir.path(), "client");
    let own = stores.issue("store");
    let lite = Arc::new(Lite::start().await);
    let front = Front::start(lite.address, &own, &first).await;
    let mut stack = Stack::over(Arc::clone(&lite), |config| {
        front.aim(dir.path(), config);
        present(dir.path(), config);
    })
    .await;
    stack.create_basin(Some("aegis-256")).await;
    let client = stack.h2().await;
    let mut session = Session::append(&client, Ask::post(records("s")).key(&KEY)).await;
    let append = |body: &str| frame(&input([record(&[], body.to_owned())]));
    session.send(append("before")).await;
    session.live.frame().await.unwrap().unwrap().ack();
    let follow = read("s", "seq_num=0", Encoding::Frames);
    let mut live = Live::new(client.open(follow).await);
    assert!(live.frame().await.unwrap().is_some());
    // Nothing new: the connection is kept.
    assert_eq!(stack.reload(|_| {}), Ok(Vec::new()));
    assert_eq!(client.ask(Ask::get("/v1/basins")).await.status, 200);
    // One for sessions, one for other calls.
    assert_eq!(
        (front.came(), front.open()),
        (vec!["CN=one".to_owned(); 2], 2)
    );
    *front.tls.lock().unwrap() = server_config(&own, &second);
    second.issue("two").write(dir.path(), "client");
    assert_eq!(stack.reload(|_| {}), Ok(Vec::new()));
    assert_eq!(client.ask(Ask::get("/v1/basins")).await.status, 200);
    assert_eq!(front.came(), ["CN=one", "CN=one", "CN=two"]);
    for body in ["after", "and on"] {
        session.send(append(body)).await;
        session.live.frame().await.unwrap().unwrap().ack();
    }
    assert_eq!(front.open(), 2);
    session.finish();
    assert_eq!(session.live.frame().await.unwrap(), None);
    drop(live);
    until("the old connection is closed", async || front.open() == 1).await;
    let answer = client
        .ask(Ask::get(records("s") + "?seq_num=0").key(&KEY))
        .await;
    assert_eq!(answer.json()["records"][2]["body"], "and on");
    assert_eq!(front.came().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_access_token_is_read_again_on_the_same_connections() {
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    std::fs::write(&token, "first-token").unwrap();
    let mut stack = Stack::with(|config| {
        config.listen.authenticate = Authenticate::None;
        config.upstream.access_token_file = token.clone().into();
    })
    .await;
    let client = stack.h2().await;
    let sent = async || {
        let ask = Ask::get("/health").header("authorization", "Bearer the-clients");
        assert_eq!(client.ask(ask).await.status, 200);
        let last = stack.lite.last("GET").unwrap();
        let sent = last.headers.into_iter();
        sent.filter(|h| h.starts_with("authorization"))
            .collect::<Vec<_>>()
    };
    assert_eq!(sent().await, ["authorization: Bearer first-token"]);
    std::fs::write(&token, "second-token\n").unwrap();
    assert_eq!(stack.reload(|_| {}), Ok(Vec::new()));
    let sent = async || {
        let ask = Ask::get("/health").basin(BASIN);
        assert_eq!(client.ask(ask).await.status, 200);
        let last = stack.lite.last("GET").unwrap();
        let sent = last.headers.into_iter();
        sent.filter(|h| h.starts_with("authorization"))
            .collect::<Vec<_>>()
    };
    assert_eq!(sent().await, ["authorization: Bearer second-token"]);
    std::fs::write(&token, "two tokens").unwrap();
    let refused = stack.reload(|_| {}).unwrap_err();
    assert!(refused.contains("upstream.access_token_file"), "{refused}");
    assert!(!refused.contains("two tokens"), "{refused}");
    stack.stop().await;
    stack.tap.idle().await;
    assert_eq!(stack.tap.drain().len(), 2, "one connection, both ways");
}
