//! `streamseal quickstart`: an S2 server in memory, the proxy in front of it, and a worked example.

mod client;
mod example;
mod lite;

use std::{env, fs, net::SocketAddr, path::PathBuf};

use tokio::signal::unix::{SignalKind, signal};

use super::{Failure, print, serve};
use crate::{
    config::Config,
    crypto::Key,
    server,
    store::{self, Embedded},
    upstream,
};

/// What is logged unless the environment says otherwise: the example is for reading.
pub(super) const LOG_FILTER: &str = "warn";

/// What `quickstart` can be told.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the proxy listens.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8443")]
    address: SocketAddr,
}

/// Starts both servers, shows the example, and serves until Ctrl-C.
///
/// # Errors
/// When a server cannot start or the example does not go as it should.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let upstream = lite::start().await?;
    let files = Files::fresh(args.address)?;
    let running = serve::start(&config(&args, upstream, &files)).await?;
    let certificate = running.certificate_pem().unwrap_or_default();
    fs::write(&files.certificate, certificate)?;
    let address = running.local_addr();
    print(&format!(
        "streamseal  https://localhost:{port}   (self-signed certificate: {certificate})\n\
         upstream    http://{upstream}   (s2-lite in memory, no encryption of its own)\n\
         status page http://{admin}\n",
        port = address.port(),
        certificate = files.certificate.display(),
        admin = running
            .admin_addr()
            .map(|address| address.to_string())
            .unwrap_or_default(),
    ))?;
    let key = Key::generate().map_err(|error| Failure::Other(error.to_string()))?;
    let proxy = client::Client::tls(address, certificate)?;
    let direct = client::Client::plain(upstream);
    example::show(&proxy, &direct, &key).await?;
    print(&how_to_go_on(address, &files, &key))?;
    stop_signal().await?;
    running.stop().await;
    files.remove();
    Ok(())
}

async fn stop_signal() -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}

/// What this run writes: gone when it ends, replaced when it did not end well.
struct Files {
    directory: PathBuf,
    certificate: PathBuf,
    store: PathBuf,
}

impl Files {
    fn fresh(address: SocketAddr) -> Result<Self, Failure> {
        let name = format!("streamseal-quickstart-{}", address.port());
        let directory = env::temp_dir().join(name);
        let files = Self {
            certificate: directory.join("certificate.pem"),
            store: directory.join("streamseal.redb"),
            directory,
        };
        // A store that outlived its in-memory upstream describes streams that are gone. One that
        // is in use belongs to a quickstart that is still running.
        if files.store.exists() {
            let config = store::Config {
                path: files.store.clone(),
                ..store::Config::default()
            };
            if let Err(error @ store::Error::Locked(_)) = Embedded::open(&config) {
                return Err(Failure::Other(error.to_string()));
            }
            fs::remove_dir_all(&files.directory)?;
        }
        fs::create_dir_all(&files.directory)?;
        Ok(files)
    }

    fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            tracing::debug!(%error, "quickstart files stay behind");
        }
    }
}

fn config(args: &Args, upstream: SocketAddr, files: &Files) -> Config {
    let endpoint = format!("http://{upstream}");
    Config {
        listen: server::Config {
            address: args.address,
            tls: server::TlsConfig {
                self_signed: true,
                ..server::TlsConfig::default()
            },
            ..server::Config::default()
        },
        admin: server::admin::Config {
            // Any free port: the usual one may be taken, and the example does not need it.
            address: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
            ..server::admin::Config::default()
        },
        upstream: upstream::Config {
            account_endpoint: endpoint.clone(),
            basin_endpoint: endpoint,
            ..upstream::Config::default()
        },
        store: store::Config {
            path: files.store.clone(),
            create: true,
            ..store::Config::default()
        },
        ..Config::default()
    }
}

fn how_to_go_on(address: SocketAddr, files: &Files, key: &Key) -> String {
    let port = address.port();
    let certificate = files.certificate.display();
    let key = key.to_base64();
    let key = key.as_str();
    let basin = example::BASIN;
    let stream = example::STREAM;
    format!(
        "\nGo on with the s2 CLI, in another terminal:\n\n\
         \x20 export S2_ACCOUNT_ENDPOINT=https://localhost:{port}\n\
         \x20 export S2_BASIN_ENDPOINT=https://localhost:{port}\n\
         \x20 export S2_ACCESS_TOKEN=ignored\n\
         \x20 export SSL_CERT_FILE={certificate}\n\
         \x20 export S2_ENCRYPTION_KEY={key}\n\
         \x20 s2 read s2://{basin}/{stream} --seq-num 0 --count 2\n\n\
         (without SSL_CERT_FILE: export S2_SSL_NO_VERIFY=true)\n\n\
         or with curl:\n\n\
         \x20 curl --cacert {certificate} -H 's2-basin: {basin}' -H 's2-encryption-key: {key}' \\\n\
         \x20   'https://localhost:{port}/v1/streams/{stream}/records?seq_num=0'\n\n\
         Everything is in memory and gone when you stop it. Ctrl-C to stop.\n"
    )
}
