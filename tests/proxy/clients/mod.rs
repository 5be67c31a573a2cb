//! Client certificates have the rights that `[[clients]]` gives them, and no others.

mod lasting;
mod revoked;
mod rights;

use std::{path::Path, sync::Arc};

use rcgen::{CertificateParams, SanType};
use rustls::ClientConfig;
use serde_json::{Value, json};
use streamseal::{config::Config, keys::ClientRules, server::Authenticate};

use crate::harness::{
    Ask, Authority, BASIN, Client, Issued, KEY, Stack, meet, presenting, records,
};

/// A gateway with a token of its own that lets in who has a certificate of `people`.
struct Gateway {
    stack: Stack,
    dir: tempfile::TempDir,
    people: Authority,
    server: String,
}

/// `[[clients]]`, from JSON.
fn clients(rules: Value) -> ClientRules {
    serde_json::from_value(rules).unwrap()
}

/// One rule for a common name.
fn rule(name: &str, globs: &[&str], scopes: &[&str]) -> Value {
    json!({ "subject": format!("CN={name}"), "match": globs, "scopes": scopes })
}

/// The rule of a client that may do everything that a client can.
fn root() -> Value {
    rule("root", &["**"], &["append", "read", "manage"])
}

impl Gateway {
    /// With these rules.
    async fn new(rules: Value) -> Self {
        Self::with(rules, |_, _, _| {}).await
    }

    /// With changes to the configuration, given the clients' authority and a directory for files.
    async fn with(rules: Value, change: impl FnOnce(&mut Config, &Authority, &Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (servers, people) = (Authority::new("servers"), Authority::new("people"));
        servers.issue("server").write(dir.path(), "server");
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("ca.pem"), people.pem()).unwrap();
        std::fs::write(at("token"), "the-token-of-the-gateway").unwrap();
        let stack = Stack::with(|config| {
            let listen = &mut config.listen;
            listen.authenticate = Authenticate::Mtls;
            listen.tls = Default::default();
            listen.tls.cert_file = at("server.pem").into();
            listen.tls.key_file = at("server.key").into();
            listen.tls.client_ca_file = at("ca.pem").into();
            config.upstream.access_token_file = at("token").into();
            config.audit.file = at("audit.log");
            config.streams = serde_json::from_value(json!([
                { "match": "*/plain", "cipher": "none" },
            ]))
            .unwrap();
            config.clients = clients(rules);
            change(config, &people, dir.path());
        })
        .await;
        let server = servers.pem();
        Self {
            stack,
            dir,
            people,
            server,
        }
    }

    /// TLS of a client that presents this.
    fn presenting(&self, identity: &Issued) -> Arc<ClientConfig> {
        presenting([self.server.as_str()], Some(identity))
    }

    /// A client that presents this, over a connection of its own.
    async fn client(&self, identity: &Issued) -> Client {
        let config = self.presenting(identity);
        let (met, _) = meet(self.stack.address, &config, basins()).await.unwrap();
        met.client
    }

    /// A client with this common name.
    async fn named(&self, name: &str) -> Client {
        self.client(&self.people.issue(name)).await
    }

    /// A certificate with one URI as its name.
    fn issue_uri(&self, uri: &str) -> Issued {
        self.people
            .issue_with("", |params: &mut CertificateParams| {
                params.distinguished_name = rcgen::DistinguishedName::new();
                params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
            })
    }

    /// Makes the basin with a cipher, and streams with a record each.
    async fn make(&self, streams: &[&str]) {
        let root = self.named("root").await;
        let config = json!({ "stream_cipher": "aegis-256", "create_stream_on_append": true });
        let make = Ask::post("/v1/basins").json(&json!({ "basin": BASIN, "config": config }));
        assert_eq!(root.ask(make).await.status, 201);
        for stream in streams {
            assert_eq!(root.ask(append(stream)).await.status, 200, "{stream}");
        }
    }
}

fn basins() -> Ask {
    Ask::get("/v1/basins")
}

fn append(stream: &str) -> Ask {
    let batch = json!({ "records": [{ "body": "first" }] });
    let ask = Ask::post(records(stream)).json(&batch);
    match stream {
        "plain" => ask,
        _ => ask.key(&KEY),
    }
}
