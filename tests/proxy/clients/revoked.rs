//! Revocation lists: a certificate that one names is of no use, neither in a new handshake nor on an open
//! connection.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rcgen::{CrlDistributionPoint, CrlIssuingDistributionPoint, date_time_ymd};
use rustls::HandshakeKind;
use serde_json::json;

use super::{Gateway, append, basins};
use crate::{
    gate_sessions::{Bare, Open, STREAMS, append_one, appending},
    harness::{Authority, Issued, meet},
};

impl Gateway {
    /// A gateway that lets every certificate use everything, but for those that this list names.
    async fn listing(list: impl FnOnce(&Authority) -> String) -> Self {
        let everything =
            json!([{ "subject": "CN=*", "match": ["**"], "scopes": ["append", "read", "manage"] }]);
        Self::with(everything, |config, people, dir| {
            config.listen.tls.client_crl_file = dir.join("crl.pem").into();
            std::fs::write(dir.join("crl.pem"), list(people)).unwrap();
        })
        .await
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn reload_list(&mut self, pem: &str) -> Result<Vec<String>, String> {
        std::fs::write(self.at("crl.pem"), pem).unwrap();
        self.stack.reload(|_| {})
    }

    fn numbered(&self, name: &str, serial: u64) -> Issued {
        self.people
            .issue_with(name, |params| params.serial_number = Some(serial.into()))
    }

    /// Whether a fresh client comes in with this.
    async fn admits(&self, identity: &Issued) -> bool {
        let config = self.presenting(identity);
        meet(self.stack.address, &config, basins()).await.is_ok()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn list_that_is_read_at_start_keeps_revoked_clients_out() {
    let gateway = Gateway::listing(|people| people.revoke(&[7])).await;
    assert!(!gateway.admits(&gateway.numbered("revoked", 7)).await);
    assert!(gateway.admits(&gateway.numbered("good", 8)).await);
    let listed = gateway.stack.reloads().certificates();
    let list = listed
        .iter()
        .find(|c| c.role.name() == "client_crl")
        .unwrap();
    assert_eq!(
        (&*list.subject, list.not_after),
        ("CN=people", 32_503_680_000)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reload_with_a_list_ends_what_a_revoked_client_has_open() {
    let mut gateway = Gateway::listing(|people| people.revoke(&[])).await;
    gateway.make(&STREAMS).await;
    let (revoked, good) = (gateway.numbered("revoked", 7), gateway.numbered("good", 8));
    let config = gateway.presenting(&revoked);
    let address = gateway.stack.address;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let (met, _) = meet(address, &config, basins()).await.unwrap();
        clients.push(met.client);
    }
    let (back, _) = meet(address, &config, basins()).await.unwrap();
    assert_eq!(back.kind, HandshakeKind::Resumed);
    let sessions = Open::over(clients, &Bare).await;
    let good = gateway.client(&good).await;
    let mut kept = appending(&good, &Bare, "sealed").await;
    let list = gateway.people.revoke(&[7]);
    assert_eq!(gateway.reload_list(&list), Ok(Vec::new()));
    let refused = back.client.ask(append("sealed")).await;
    assert_eq!(refused.status, 403);
    assert!(
        refused.text().contains("not accepted any more"),
        "{}",
        refused.text()
    );
    sessions.end(403, "permission_denied").await;
    assert!(meet(address, &config, basins()).await.is_err(), "resumed");
    assert!(!gateway.admits(&revoked).await);
    append_one(&mut kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_list_refuses_the_clients_of_its_issuer_alone() {
    let others = Authority::new("others");
    let mut gateway = Gateway::listing(|people| {
        people.revoke_with(&[], |params| params.next_update = date_time_ymd(2025, 1, 1))
    })
    .await;
    let both = gateway.people.pem() + &others.pem();
    std::fs::write(gateway.at("ca.pem"), both).unwrap();
    assert_eq!(gateway.stack.reload(|_| {}), Ok(Vec::new()));
    assert!(!gateway.admits(&gateway.numbered("late", 8)).await);
    assert!(gateway.admits(&others.issue("others")).await);
    let fresh = gateway.people.revoke(&[]);
    assert_eq!(gateway.reload_list(&fresh), Ok(Vec::new()));
    assert!(gateway.admits(&gateway.numbered("late", 8)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn list_of_a_part_makes_unknown_certificates_unwelcome() {
    let others = Authority::new("others");
    let part = |people: &Authority| {
        people.revoke_with(&[], |params| {
            let uris = vec!["http://crl.example.org/1".to_owned()];
            params.issuing_distribution_point = Some(CrlIssuingDistributionPoint {
                distribution_point: CrlDistributionPoint { uris },
                scope: None,
            });
        })
    };
    let mut gateway = Gateway::listing(part).await;
    let of_part = |uri: &str| {
        let uris = vec![uri.to_owned()];
        gateway.people.issue_with("part", |params| {
            params.crl_distribution_points = vec![CrlDistributionPoint { uris }];
        })
    };
    let covered = of_part("http://crl.example.org/1");
    let uncovered = of_part("http://crl.example.org/2");
    let both = gateway.people.pem() + &others.pem();
    std::fs::write(gateway.at("ca.pem"), both).unwrap();
    assert_eq!(gateway.stack.reload(|_| {}), Ok(Vec::new()));
    assert!(gateway.admits(&covered).await);
    assert!(!gateway.admits(&uncovered).await);
    assert!(!gateway.admits(&others.issue("others")).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn newest_list_of_an_issuer_counts_wherever_it_stands() {
    let gateway = Gateway::listing(|people| {
        let newer = |params: &mut rcgen::CertificateRevocationListParams| {
            params.this_update = date_time_ymd(2025, 1, 1);
        };
        let (old, new) = (people.revoke(&[]), people.revoke_with(&[7], newer));
        old + &new
    })
    .await;
    assert!(!gateway.admits(&gateway.numbered("revoked", 7)).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn mistake_in_a_list_leaves_the_one_before_in_force() {
    let mut gateway = Gateway::listing(|people| people.revoke(&[7])).await;
    let (revoked, good) = (gateway.numbered("revoked", 7), gateway.numbered("good", 8));
    let whole = gateway.people.revoke(&[]);
    let cut = whole.replacen("MI", "MM", 1);
    // Of another authority by the same name.
    let forged = Authority::new("people").revoke(&[]);
    for bad in [
        &forged,
        "",
        "no list",
        &gateway.people.pem(),
        &cut,
        &whole[..whole.len() / 2],
    ] {
        let refused = gateway.reload_list(bad).unwrap_err();
        assert!(
            refused.contains("listen.tls.client_crl_file: "),
            "{refused}"
        );
        assert!(!gateway.admits(&revoked).await);
        assert!(gateway.admits(&good).await);
    }
    std::fs::remove_file(gateway.at("crl.pem")).unwrap();
    let refused = gateway.stack.reload(|_| {}).unwrap_err();
    assert!(
        refused.contains("listen.tls.client_crl_file: cannot read"),
        "{refused}"
    );
    assert!(!gateway.admits(&revoked).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn resumed_session_of_an_expired_certificate_has_no_rights() {
    let gateway = Gateway::listing(|people| people.revoke(&[])).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let soon = now + Duration::from_secs(3);
    let brief = gateway.people.issue_with("brief", |params| {
        params.not_after = date_time_ymd(1970, 1, 1) + soon;
    });
    let config = gateway.presenting(&brief);
    let address = gateway.stack.address;
    let (met, answer) = meet(address, &config, basins()).await.unwrap();
    assert_eq!(answer.status, 200);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let (back, answer) = meet(address, &config, basins()).await.unwrap();
    assert_eq!((back.kind, answer.status), (HandshakeKind::Resumed, 403));
    // What is open lasts: its handshake was in time.
    assert_eq!(met.client.ask(basins()).await.status, 200);
}
