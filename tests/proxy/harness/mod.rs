//! A whole deployment in one process: client, TLS, streamseal, recording tap, plain `s2-lite`.

mod authority;
mod client;
mod collector;
mod counts;
mod delivered;
mod encoding;
mod fake;
mod frames;
mod lite;
mod memory;
mod oracle;
mod played;
mod program;
mod projects;
mod ran;
mod raw;
mod relay;
mod tap;
mod traces;
mod transit;
mod twin;

use std::{net::SocketAddr, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use streamseal::{
    cli::serve::{self, Running},
    config::Config,
    registry::rules::{KeySource, RuleCipher},
    server::{self, admin},
    store, upstream,
};

pub use authority::{Authority, Issued, meet, presenting, roots};
pub use client::{Answer, AnyBody, Ask, Client};
pub use collector::Collector;
pub use counts::Counts;
pub use delivered::{Delivered, End, batch, delivered};
pub use encoding::{Encoding, Packed, ack, append, input, json_input, metered, read, record};
pub use fake::{Act, Call, Fake};
pub use frames::{BrokenOff, DEADLINE, Frame, Live, RECONNECT, Session, channel, gunzip, until};
pub use lite::{BodyEnd, Lite, Player, Seen};
pub use memory::{Found, Secret, connections, search};
pub use oracle::{CIPHERS, open, seal};
pub use played::{frame, heartbeat, sealed_batch, second_ack};
pub use program::{Program, terminate};
pub use projects::{Token, pepper, project};
pub use ran::Ran;
pub use raw::{
    CONTINUATION, DATA, GOAWAY, HEADERS, PUSH_PROMISE, Peer, RST_STREAM, Raw, SETTINGS, Says,
    WINDOW_UPDATE, http2_frame, literal,
};
pub use relay::{CANCEL, Fault, Goaway, Last, NO_ERROR, Place, RESET_CODES, Relay, Rule};
pub use tap::{Tap, Way, contains};
pub use traces::leaks;
pub use transit::{Transit, Vault};
pub use twin::{Twin, delete, nudge, purged, shape};

/// A basin name for tests.
pub const BASIN: &str = "test-basin";

/// The key that tests use unless they need another.
pub const KEY: [u8; 32] = *b"0123456789abcdefghijklmnopqrstuv";

/// A key as clients send it.
pub fn base64(key: &[u8]) -> String {
    STANDARD.encode(key)
}

/// Client-side view of a running deployment. Everything stops when it is dropped.
pub struct Stack {
    /// The plain upstream, for looking behind the proxy's back.
    pub lite: Arc<Lite>,
    /// What went over the wire between proxy and upstream.
    pub tap: Tap,
    /// Where the proxy listens.
    pub address: SocketAddr,
    /// The proxy's certificate.
    pub certificate: String,
    /// Where its admin listener is, if a test turned it on.
    pub admin: Option<SocketAddr>,
    /// The proxy's configuration.
    pub config: Config,
    running: Option<Running>,
    _dir: Arc<tempfile::TempDir>,
}

impl Stack {
    /// A proxy with defaults over a fresh `s2-lite`.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A proxy with changes to its configuration over a fresh `s2-lite`.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let lite = Arc::new(Lite::start().await);
        Self::over(lite, change).await
    }

    /// A proxy over an `s2-lite` that runs already.
    pub async fn over(lite: Arc<Lite>, change: impl FnOnce(&mut Config)) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let tap = Tap::start(lite.address).await;
        let endpoint = format!("http://{}", tap.address);
        let mut config = Config {
            listen: server::Config {
                address: "127.0.0.1:0".parse().unwrap(),
                tls: server::TlsConfig {
                    self_signed: true,
                    ..Default::default()
                },
                ..Default::default()
            },
            admin: admin_off(),
            upstream: upstream::Config {
                account_endpoint: endpoint.clone(),
                basin_endpoint: endpoint,
                ..Default::default()
            },
            store: store::Config {
                path: dir.path().join("store.redb"),
                create: true,
                ..Default::default()
            },
            ..Default::default()
        };
        change(&mut config);
        assert_eq!(config.check(), Vec::<String>::new());
        let running = serve::start(&config).await.unwrap();
        Self {
            lite,
            tap,
            address: running.local_addr(),
            certificate: running.certificate_pem().unwrap_or_default().to_owned(),
            admin: running.admin_addr(),
            config,
            running: Some(running),
            _dir: dir,
        }
    }

    /// Stops the proxy and starts another on the same config store and upstream.
    pub async fn restart(&mut self, change: impl FnOnce(&mut Config)) {
        self.stop().await;
        change(&mut self.config);
        self.go().await.unwrap();
    }

    /// Puts changes of the configuration in force while the proxy runs; says what waits for the next start,
    /// or why nothing was changed.
    pub fn reload(&mut self, change: impl FnOnce(&mut Config)) -> Result<Vec<String>, String> {
        let mut wanted = self.config.clone();
        change(&mut wanted);
        let running = self.running.as_ref().unwrap();
        let applied = running.reloader().apply(&wanted);
        let waiting = applied.map_err(|failure| failure.to_string())?;
        self.config = wanted;
        Ok(waiting)
    }

    /// Says `none` in every rule, so that the next configuration may seal less.
    pub fn say_none(&mut self) {
        let said = self.reload(|config| {
            for rule in &mut config.basins {
                rule.stream_cipher = RuleCipher::None;
            }
            for rule in &mut config.streams {
                rule.cipher = RuleCipher::None;
                rule.key = KeySource::Header;
                rule.key_file = Default::default();
                rule.header_overrides = false;
            }
        });
        assert_eq!(said, Ok(Vec::new()));
    }

    /// What became of the reloads.
    pub fn reloads(&self) -> &server::Reloads {
        self.running.as_ref().unwrap().reloader().reloads()
    }

    /// Stops the proxy.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// Starts the proxy again after [`Stack::stop`], or says why it does not start.
    pub async fn go(&mut self) -> Result<(), String> {
        let running = serve::start(&self.config).await;
        let running = running.map_err(|failure| failure.to_string())?;
        self.address = running.local_addr();
        self.certificate = running.certificate_pem().unwrap_or_default().to_owned();
        self.admin = running.admin_addr();
        self.running = Some(running);
        Ok(())
    }

    /// The proxy itself.
    pub fn proxy(&self) -> &Arc<streamseal::proxy::Proxy> {
        self.running.as_ref().unwrap().proxy()
    }

    /// What it keeps its records in.
    pub fn config_store(&self) -> &Arc<dyn store::Store> {
        self.running.as_ref().unwrap().store()
    }

    /// What the proxy counts and measures.
    pub fn metrics(&self) -> &streamseal::telemetry::metrics::Metrics {
        self.running.as_ref().unwrap().metrics()
    }

    /// Bytes that the proxy's budget counts now.
    pub fn inflight(&self) -> usize {
        let running = self.running.as_ref().expect("it is stopped");
        usize::try_from(running.metrics().clients.inflight.get()).unwrap()
    }

    /// Runs a command of the program with this deployment's configuration.
    pub fn command(&self, arguments: &[&str]) -> Ran {
        let file = self.config.store.path.with_file_name("command.toml");
        std::fs::write(&file, self.config.to_toml().unwrap()).unwrap();
        let config = ["--config", file.to_str().unwrap()];
        Ran::of(arguments.iter().copied().chain(config))
    }

    /// An HTTP/1.1 client of the proxy.
    pub async fn h1(&self) -> Client {
        Client::tls(self.address, &self.certificate, "http/1.1").await
    }

    /// An HTTP/2 client of the proxy.
    pub async fn h2(&self) -> Client {
        Client::tls(self.address, &self.certificate, "h2").await
    }

    /// A client of the upstream itself, past proxy and tap.
    pub async fn direct(&self) -> Client {
        Client::plain(self.lite.address).await
    }

    /// An HTTP/1.1 client of the admin listener.
    pub async fn admin(&self) -> Client {
        Client::plain_http1(self.admin.expect("the test turned it on")).await
    }

    /// The real Rust SDK, over TLS to the proxy.
    pub fn sdk(&self) -> s2_sdk::S2 {
        s2_sdk::S2::new(sdk_config(self.address)).unwrap()
    }

    /// Creates [`BASIN`] with this cipher, and auto-creation on append and read.
    pub async fn create_basin(&self, cipher: Option<&str>) {
        let config = serde_json::json!({
            "stream_cipher": cipher,
            "create_stream_on_append": true,
            "create_stream_on_read": true,
        });
        let body = serde_json::json!({ "basin": BASIN, "config": config });
        let answer = self
            .h1()
            .await
            .ask(Ask::post("/v1/basins").json(&body))
            .await;
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
}

/// No admin listener. Tests that want one ask for port 0.
fn admin_off() -> admin::Config {
    admin::Config {
        address: admin::OptionalAddress::NONE,
        ..Default::default()
    }
}

/// How the real Rust SDK gets to a proxy over TLS.
pub fn sdk_config(proxy: SocketAddr) -> s2_sdk::types::S2Config {
    let endpoint = format!("https://localhost:{}", proxy.port());
    let endpoints = s2_sdk::types::S2Endpoints::new(
        s2_sdk::types::AccountEndpoint::new(&endpoint).unwrap(),
        s2_sdk::types::BasinEndpoint::new(&endpoint).unwrap(),
    )
    .unwrap();
    s2_sdk::types::S2Config::new("ignored")
        .with_endpoints(endpoints)
        .with_insecure_skip_cert_verification(true)
}

/// The path of a stream's records.
pub fn records(stream: &str) -> String {
    let name = percent_encoding::utf8_percent_encode(stream, percent_encoding::NON_ALPHANUMERIC);
    format!("/v1/streams/{name}/records")
}

/// Asks until the answer is as wanted, for at most ten seconds.
pub async fn ask_until(client: &Client, ask: Ask, wanted: impl Fn(&Answer) -> bool) -> Answer {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(10);
    let mut pause = tokio::time::interval(std::time::Duration::from_millis(10));
    loop {
        pause.tick().await;
        let answer = client.ask(ask.clone()).await;
        if wanted(&answer) {
            return answer;
        }
        let late = tokio::time::Instant::now() > deadline;
        assert!(!late, "still {} {}", answer.status, answer.text());
    }
}

/// These bytes in gzip.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, bytes).unwrap();
    gzip.finish().unwrap()
}

/// These bytes in zstd.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}
