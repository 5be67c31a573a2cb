//! OpenBao in its development mode, over TLS, and whoever administers it.

use std::{net::TcpListener, sync::Arc};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use streamseal::keys::kms::{Config, ProviderName, VaultConfig};

use super::service::Service;

const ROOT: &str = "root";

/// The server, which is killed when it is dropped.
pub struct OpenBao {
    pub dir: tempfile::TempDir,
    _service: Service,
    url: String,
    admin: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl OpenBao {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // It takes no port 0: another program could take this one in between, which the start would show.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let certificates = format!("-dev-tls-cert-dir={}", dir.path().display());
        let arguments = [
            "server",
            "-dev",
            "-dev-tls",
            &certificates,
            &format!("-dev-listen-address={address}"),
            &format!("-dev-root-token-id={ROOT}"),
            "-dev-no-store-token",
        ];
        let mut service = Service::start("bao", dir.path(), &arguments);
        service.says("Root Token: ").await;
        let admin = client(&dir);
        let bao = Self {
            dir,
            _service: service,
            url: format!("https://{address}"),
            admin,
        };
        bao.ask("sys/mounts/transit", &json!({ "type": "transit" }))
            .await;
        bao
    }

    /// A call with the root token, which must succeed.
    pub async fn ask(&self, path: &str, body: &Value) -> Value {
        self.ask_in("", path, body).await
    }

    /// The same in a namespace.
    pub async fn ask_in(&self, namespace: &str, path: &str, body: &Value) -> Value {
        self.send("POST", namespace, path, body).await
    }

    /// Deletes what is there.
    pub async fn delete(&self, path: &str) {
        self.send("DELETE", "", path, &json!({})).await;
    }

    async fn send(&self, method: &str, namespace: &str, path: &str, body: &Value) -> Value {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}/v1/{path}", self.url))
            .header("x-vault-token", ROOT)
            .header("x-vault-namespace", namespace)
            .body(Full::from(body.to_string()))
            .unwrap();
        let answer = self.admin.request(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        let text = String::from_utf8_lossy(&body);
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_slice(&body).unwrap_or_default()
    }

    /// Makes a key of this type.
    pub async fn key(&self, name: &str, kind: &str) {
        let path = format!("transit/keys/{name}");
        self.ask(&path, &json!({ "type": kind })).await;
    }

    /// A token that may encrypt and decrypt with this key, and nothing else.
    pub async fn token(&self, key: &str) -> String {
        let may = |operation| {
            format!("path \"transit/{operation}/{key}\" {{ capabilities = [\"update\"] }}\n")
        };
        let policy = may("encrypt") + &may("decrypt");
        let path = format!("sys/policies/acl/{key}");
        self.ask(&path, &json!({ "policy": policy })).await;
        let asked = json!({ "policies": [key], "no_default_policy": true });
        let answer = self.ask("auth/token/create", &asked).await;
        answer["auth"]["client_token"].as_str().unwrap().to_owned()
    }

    /// The configuration of a proxy that uses this key with this token.
    pub fn config(&self, key: &str, token: &str) -> Config {
        let at = |name: &str| self.dir.path().join(name);
        let token_file = at(&format!("token-of-{key}"));
        std::fs::write(&token_file, token).unwrap();
        Config {
            provider: ProviderName::Vault,
            vault: VaultConfig {
                address: self.url.clone(),
                key: key.to_owned(),
                token_file: token_file.into(),
                ca_file: at("vault-ca.pem").into(),
                ..VaultConfig::default()
            },
            ..Config::default()
        }
    }

    /// The same with the root token.
    pub fn config_of_root(&self, key: &str) -> Config {
        self.config(key, ROOT)
    }
}

fn client(dir: &tempfile::TempDir) -> Client<HttpsConnector<HttpConnector>, Full<Bytes>> {
    let pem = std::fs::read(dir.path().join("vault-ca.pem")).unwrap();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&pem).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_only()
        .enable_http1()
        .build();
    Client::builder(TokioExecutor::new()).build(connector)
}
