//! With a client CA only its clients come in, by the CA of now, and not by remembering an earlier one.

use std::{path::Path, time::Duration};

use rcgen::{ExtendedKeyUsagePurpose, date_time_ymd};
use rustls::HandshakeKind;
use streamseal::{config::Config, server::Authenticate};

use crate::harness::{
    Ask, Authority, Encoding, Frame, Issued, Live, Stack, meet, presenting, read,
};

fn basins() -> Ask {
    Ask::get("/v1/basins")
}

/// A listener with a certificate of this authority, that lets in who has one of `ca.pem`.
fn demanding<'a>(dir: &'a Path, servers: &Authority) -> impl FnOnce(&mut Config) + use<'a> {
    servers.issue("server").write(dir, "server");
    |config| {
        let listen = &mut config.listen;
        listen.authenticate = Authenticate::Mtls;
        listen.tls = Default::default();
        listen.tls.cert_file = dir.join("server.pem").into();
        listen.tls.key_file = dir.join("server.key").into();
        listen.tls.client_ca_file = dir.join("ca.pem").into();
    }
}

fn trust(dir: &Path, authorities: &[&Authority]) {
    let pems: String = authorities
        .iter()
        .map(|authority| authority.pem())
        .collect();
    std::fs::write(dir.join("ca.pem"), pems).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_valid_certificate_of_the_client_ca_comes_in() {
    let dir = tempfile::tempdir().unwrap();
    let (servers, clients, others) = (
        Authority::new("servers"),
        Authority::new("clients"),
        Authority::new("clients"),
    );
    trust(dir.path(), &[&clients]);
    let stack = Stack::with(demanding(dir.path(), &servers)).await;
    let expired = clients.issue_with("expired", |params| {
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
    });
    let early = clients.issue_with("early", |params| {
        params.not_before = date_time_ymd(3000, 1, 1)
    });
    let server = clients.issue_with("server", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let pem = servers.pem();
    for (what, identity) in [
        ("none", None),
        (
            "of another authority with that name",
            Some(others.issue("billing")),
        ),
        ("expired", Some(expired)),
        ("not valid yet", Some(early)),
        ("not for clients", Some(server)),
    ] {
        let config = presenting([pem.as_str()], identity.as_ref());
        assert!(
            meet(stack.address, &config, basins()).await.is_err(),
            "{what}"
        );
    }
    assert!(stack.lite.seen().is_empty());
    let billing = clients.issue("billing");
    let config = presenting([pem.as_str()], Some(&billing));
    let (_, answer) = meet(stack.address, &config, basins()).await.unwrap();
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_the_new_client_ca_does_not_know_cannot_come_in_again() {
    let dir = tempfile::tempdir().unwrap();
    let (servers, old, new) = (
        Authority::new("servers"),
        Authority::new("old"),
        Authority::new("new"),
    );
    trust(dir.path(), &[&old]);
    let mut stack = Stack::with(demanding(dir.path(), &servers)).await;
    let pem = servers.pem();
    let of = |identity: &Issued| presenting([pem.as_str()], Some(identity));
    let (before, after) = (of(&old.issue("before")), of(&new.issue("after")));
    let address = stack.address;
    assert!(meet(address, &after, basins()).await.is_err());
    let (met, _) = meet(address, &before, basins()).await.unwrap();
    assert_eq!(met.kind, HandshakeKind::Full);
    // Its session is good for coming back without another look at its certificate.
    let (back, _) = meet(address, &before, basins()).await.unwrap();
    assert_eq!(back.kind, HandshakeKind::Resumed);
    let follow = Ask::post("/v1/basins").json(&serde_json::json!({
        "basin": crate::harness::BASIN,
        "config": { "stream_cipher": "aegis-256", "create_stream_on_read": true },
    }));
    assert_eq!(met.client.ask(follow).await.status, 201);
    let follow = read("s", "seq_num=0", Encoding::Frames);
    let mut live = Live::new(met.client.open(follow).await);
    assert!(live.frame().await.unwrap().is_some());

    trust(dir.path(), &[&old, &new]);
    assert_eq!(stack.reload(|_| {}), Ok(Vec::new()));
    for either in [&before, &after] {
        assert_eq!(meet(address, either, basins()).await.unwrap().1.status, 200);
    }
    let (back, _) = meet(address, &before, basins()).await.unwrap();
    assert_eq!(back.kind, HandshakeKind::Resumed);

    trust(dir.path(), &[&new]);
    assert_eq!(stack.reload(|_| {}), Ok(Vec::new()));
    assert!(meet(address, &before, basins()).await.is_err());
    assert_eq!(meet(address, &after, basins()).await.unwrap().1.status, 200);
    let listed = stack.reloads().certificates();
    let listed: Vec<_> = listed
        .iter()
        .map(|c| (c.role.name(), &*c.subject))
        .collect();
    assert_eq!(listed, [("listener", "CN=server"), ("client_ca", "CN=new")]);
    // What it has open is of no use to it.
    assert_eq!(met.client.ask(basins()).await.status, 403);
    let ended = async {
        loop {
            if let end @ Frame::Terminal { .. } = live.frame().await.unwrap().unwrap() {
                return end.failure();
            }
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(5), ended).await;
    assert_eq!(ended.unwrap(), (403, "permission_denied".to_owned()));

    std::fs::write(dir.path().join("ca.pem"), "no certificates").unwrap();
    let refused = stack.reload(|_| {}).unwrap_err();
    assert!(refused.contains("listen.tls.client_ca_file"), "{refused}");
    assert!(meet(address, &before, basins()).await.is_err());
    assert_eq!(meet(address, &after, basins()).await.unwrap().1.status, 200);
}
