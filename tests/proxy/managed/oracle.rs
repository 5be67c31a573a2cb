//! A stored record opens from API key, pepper and what the config store exports, by the published derivations
//! and with other code than the product's: HKDF, AES-KW and both ciphers straight from their crates.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use aegis::aegis256::Aegis256;
use aes_gcm::{
    Aes256Gcm,
    aead::{AeadInOut as _, inout::InOutBuf},
};
use aes_kw::{KeyInit as _, KwAes256};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use hkdf::Hkdf;
use serde_json::Value;
use sha2::Sha256;

use super::setup::{CIPHERS, Managed, SECRET};
use crate::harness::{BASIN, pepper};

fn expand(salt: &[u8], material: &[u8], info: &[&[u8]]) -> [u8; 32] {
    let mut out = [0; 32];
    let hkdf = Hkdf::<Sha256>::new(Some(salt), material);
    hkdf.expand(&info.concat(), &mut out).unwrap();
    out
}

fn lp(part: &[u8]) -> Vec<u8> {
    [&u16::try_from(part.len()).unwrap().to_be_bytes(), part].concat()
}

fn unwrap(kek: [u8; 32], wrapped: &[u8]) -> [u8; 32] {
    let mut key = [0; 32];
    KwAes256::new(&kek.into())
        .unwrap_key(wrapped, &mut key)
        .unwrap();
    key
}

/// The master key in an API key.
pub fn master(token: &str, project: &str, mk_epoch: u32) -> [u8; 32] {
    let bytes = URL_SAFE_NO_PAD
        .decode(token.strip_prefix("sk-ss-").unwrap())
        .unwrap();
    assert_eq!((bytes.len(), bytes[0]), (57, 1));
    let info: [&[u8]; 3] = [
        b"streamseal/v1/token-wrap",
        &lp(project.as_bytes()),
        &mk_epoch.to_be_bytes(),
    ];
    unwrap(expand(&pepper(project), &bytes[1..17], &info), &bytes[17..])
}

pub fn stream_id(stream: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(BASIN.as_bytes()).update(&[0]);
    hasher.update(stream.as_bytes()).update(&[0]);
    hasher.finalize().into()
}

/// A data key and the key of the records of its epoch, as the exported entry of the stream has it.
pub fn keys(master: [u8; 32], project: &str, id: [u8; 32], data_key: &Value) -> [[u8; 32]; 2] {
    let number = |json: &Value| u32::try_from(json.as_u64().unwrap()).unwrap().to_be_bytes();
    let wrapped = &data_key["wrapped"]["master"];
    let (mk_epoch, epoch) = (number(&wrapped["mk_epoch"]), number(&data_key["epoch"]));
    let info: [&[u8]; 4] = [b"streamseal/v1/dek-wrap", &lp(&id), &mk_epoch, &epoch];
    let kek = expand(project.as_bytes(), &master, &info);
    let wrapped = STANDARD
        .decode(wrapped["wrapped"].as_str().unwrap())
        .unwrap();
    let dek = unwrap(kek, &wrapped);
    let (project, id) = (lp(project.as_bytes()), lp(&id));
    let derived = |label: &[u8]| {
        let info: [&[u8]; 4] = [label, &project, &id, &epoch];
        expand(b"streamseal/v1/dek", &dek, &info)
    };
    let commit = derived(b"streamseal/v1/dek-commit");
    let commit: String = commit.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(data_key.to_string().contains(&commit), "{data_key}");
    [dek, derived(b"streamseal/v1/record-key")]
}

/// The epoch that a stored record names, and its text.
fn open(stored: &[u8], id: [u8; 32], keys: &[[u8; 32]]) -> (u32, Vec<u8>) {
    let epoch = u32::from_be_bytes(stored[2..6].try_into().unwrap());
    let key = keys[epoch as usize - 1];
    let aad = [&id, &stored[..6]].concat();
    let (sealed, tag) = stored.split_last_chunk::<16>().unwrap();
    match stored[0] {
        0x81 => {
            let nonce = stored[6..38].try_into().unwrap();
            let opened = Aegis256::<16>::new(&key, nonce).decrypt(&sealed[38..], tag, &aad);
            (epoch, opened.unwrap())
        }
        0x82 => {
            let nonce: [u8; 12] = stored[6..18].try_into().unwrap();
            let mut text = sealed[18..].to_vec();
            let gcm = Aes256Gcm::new(&key.into());
            gcm.decrypt_inout_detached(
                &nonce.into(),
                &aad,
                InOutBuf::from(text.as_mut_slice()),
                &(*tag).into(),
            )
            .unwrap();
            (epoch, text)
        }
        other => panic!("format {other:#x}"),
    }
}

/// Bytes that are written on another thread.
#[derive(Clone, Default)]
struct Out(Arc<Mutex<Vec<u8>>>);

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The exported entry of a stream.
async fn exported(managed: &Managed, stream: &str) -> Value {
    let out = Out::default();
    let store = managed.stack.config_store();
    store
        .export(Box::new(out.clone()))
        .await
        .map_err(|_| ())
        .unwrap();
    let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let wanted = format!("{BASIN}/{stream}");
    let mut lines = lines.filter(|line| line.to_string().contains(&wanted));
    lines.next().unwrap_or_else(|| panic!("{wanted} in {text}"))
}

/// The object below `json` that has this key.
fn find<'a>(json: &'a Value, key: &str) -> Option<&'a Value> {
    match json {
        Value::Object(object) => {
            let mut below = object.values();
            object
                .get(key)
                .or_else(|| below.find_map(|json| find(json, key)))
        }
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_records_open_by_the_published_derivations() {
    for (rule, _) in CIPHERS {
        let managed = Managed::with(rule, |_| {}).await;
        for epoch in 1..=3 {
            managed.put("a/b ü", format!("{SECRET} {epoch}")).await;
            managed.rotate("a/b ü").await;
        }
        let line = exported(&managed, "a/b ü").await;
        let data_keys = find(&line, "data_keys").unwrap_or_else(|| panic!("{line}"));
        assert_eq!(data_keys["holder"]["project"], "payments");
        let master = master(&managed.token.text, "payments", 1);
        let id = stream_id("a/b ü");
        let found = data_keys["keys"].as_array().unwrap().iter();
        let keys: Vec<_> = found
            .map(|key| keys(master, "payments", id, key)[1])
            .collect();
        assert_eq!(keys.len(), 4);
        let stored = managed.stack.stored("a/b ü").await;
        assert_eq!(stored.len(), 3);
        for (at, stored) in stored.iter().enumerate() {
            let (epoch, text) = open(&stored.body, id, &keys);
            assert_eq!(epoch as usize, at + 1);
            // A flag that says that there are no headers, and the body.
            assert!(text.ends_with(format!("{SECRET} {epoch}").as_bytes()));
            assert_eq!(text.len(), 1 + SECRET.len() + 2);
        }
    }
}
