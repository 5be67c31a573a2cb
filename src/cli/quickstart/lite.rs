//! An in-memory `s2-lite` on loopback: the plain upstream of the quickstart.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use s2_lite::{backend::Backend, handlers};
use slatedb::{Db, Settings, object_store::memory::InMemory};
use tokio::net::TcpListener;

use crate::cli::Failure;

/// How often appends become durable: what s2-lite itself takes for an in-memory store.
const FLUSH_EVERY: Duration = Duration::from_millis(5);

/// Append bytes in flight per stream; s2-lite refuses none below it.
const APPEND_INFLIGHT: bytesize::ByteSize = bytesize::ByteSize::mib(10);

/// HTTP/2 stream window of s2-lite.
const WINDOW_BYTES: u32 = 1024 * 1024;

/// Starts the server and returns where it listens. It runs until the process ends.
///
/// # Errors
/// When it cannot listen on loopback.
pub(super) async fn start() -> Result<SocketAddr, Failure> {
    let settings = Settings {
        flush_interval: Some(FLUSH_EVERY),
        ..Settings::default()
    };
    let db = Db::builder("quickstart", Arc::new(InMemory::new()))
        .with_settings(settings)
        .build()
        .await
        .map_err(|error| Failure::Other(format!("s2-lite: {error}")))?;
    let backend = Backend::new(db, APPEND_INFLIGHT);
    s2_lite::backend::bgtasks::spawn(&backend);
    let service = TowerToHyperService::new(handlers::router().with_state(backend));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        loop {
            let Ok((io, _)) = listener.accept().await else {
                return;
            };
            // A socket without it is slower, no more.
            let _no_delay = io.set_nodelay(true);
            let service = service.clone();
            tokio::spawn(async move {
                let mut http = auto::Builder::new(TokioExecutor::new());
                http.http2().initial_stream_window_size(WINDOW_BYTES);
                let served = http.serve_connection(TokioIo::new(io), service).await;
                if let Err(error) = served {
                    tracing::debug!(error, "s2-lite connection");
                }
            });
        }
    });
    Ok(address)
}
