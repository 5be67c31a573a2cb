//! A record that was compressed is stored in the documented layout, which other code opens and seals; and one
//! that opens to more than any record can be is refused before it takes memory.

use std::io::Write as _;

use aegis::aegis256::Aegis256;
use aes_gcm::{
    Aes256Gcm, KeyInit as _,
    aead::{Aead as _, Payload},
};
use s2_api::v1::stream::proto::AppendRecord;
use serde_json::json;

use crate::{
    harness::{
        Ask, BASIN, CIPHERS, Client, Encoding, End, KEY, Lite, Packed, Program, Stack, ack, append,
        delivered, input, read, record,
    },
    oversize::{LIMIT, full, send, text},
};

/// Bit 0 of the flags: the plaintext is a zstd frame.
const ZSTD: u8 = 1;

/// What opening may produce at most.
const MOST: usize = LIMIT + 64 * 1024;

/// The stream's id, then what stands before the nonce.
fn aad(stream: &str, prefix: [u8; 2]) -> Vec<u8> {
    let names = [BASIN.as_bytes(), &[0], stream.as_bytes(), &[0]].concat();
    let id = *blake3::hash(&names).as_bytes();
    [&id[..], &prefix].concat()
}

/// Seals in the extended layout: `[format id] [flags] [nonce] [ciphertext] [tag]`.
fn seal_extended(cipher: &str, flags: u8, text: &[u8]) -> AppendRecord {
    let nonce: [u8; 32] = rand::random();
    let body = match cipher {
        "aegis-256" => {
            let aad = aad("s", [0x81, flags]);
            let (sealed, tag) = Aegis256::<16>::new(&KEY, &nonce).encrypt(text, &aad);
            [&[0x81, flags], &nonce[..], &sealed, &tag].concat()
        }
        _ => {
            let aad = aad("s", [0x82, flags]);
            let nonce: [u8; 12] = nonce[..12].try_into().unwrap();
            let payload = Payload {
                msg: text,
                aad: &aad,
            };
            let sealed = Aes256Gcm::new(&KEY.into()).encrypt(&nonce.into(), payload);
            [&[0x82, flags], &nonce[..], &sealed.unwrap()].concat()
        }
    };
    record(&[], body)
}

/// Opens the extended layout and returns the body of a record without headers.
fn open_extended(cipher: &str, stored: &[u8]) -> Vec<u8> {
    let frame = match cipher {
        "aegis-256" => {
            assert_eq!(stored[..2], [0x81, ZSTD]);
            let (nonce, sealed) = stored[2..].split_at(32);
            let (sealed, tag) = sealed.split_at(sealed.len() - 16);
            let aegis = Aegis256::<16>::new(&KEY, nonce.try_into().unwrap());
            let tag = tag.try_into().unwrap();
            aegis.decrypt(sealed, tag, &aad("s", [0x81, ZSTD])).unwrap()
        }
        _ => {
            assert_eq!(stored[..2], [0x82, ZSTD]);
            let (nonce, sealed) = stored[2..].split_at(12);
            let nonce: [u8; 12] = nonce.try_into().unwrap();
            let aad = aad("s", [0x82, ZSTD]);
            let payload = Payload {
                msg: sealed,
                aad: &aad,
            };
            Aes256Gcm::new(&KEY.into())
                .decrypt(&nonce.into(), payload)
                .unwrap()
        }
    };
    encoded_body(&zstd::decode_all(&*frame).unwrap())
}

/// The body in the encoding of a record without headers: a zero, then the body.
fn encoded_body(encoded: &[u8]) -> Vec<u8> {
    let (&flag, body) = encoded.split_first().unwrap();
    assert_eq!(flag, 0);
    body.to_vec()
}

/// A zstd frame of this many zeros: a record of that size less one.
fn zeros(length: usize, window_log: u32) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(window_log).unwrap();
    let chunk = vec![0; 1 << 20];
    for at in (0..length).step_by(chunk.len()) {
        encoder
            .write_all(&chunk[..chunk.len().min(length - at)])
            .unwrap();
    }
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn other_code_opens_what_was_compressed() {
    for cipher in CIPHERS {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let batch = full(37, text);
        ack(Encoding::Proto, &send(&stack, &batch).await);
        let stored = stack.stored("s").await;
        assert_eq!(stored.len(), 37);
        for (stored, sent) in stored.iter().zip(&batch.records) {
            assert!(stored.headers.is_empty());
            assert!(open_extended(cipher, &stored.body) == sent.body);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_code_compressed_is_read() {
    for cipher in CIPHERS {
        let stack = Stack::start().await;
        stack.create_basin(Some(cipher)).await;
        let first = append(
            "s",
            Encoding::Proto,
            Packed::Not,
            &input([record(&[], "first")]),
        );
        ack(Encoding::Proto, &stack.h2().await.ask(first).await);
        // The largest that is taken.
        let frame = zeros(MOST, 20);
        stack
            .store("s", [seal_extended(cipher, ZSTD, &frame)])
            .await;
        let ask = read("s", "seq_num=1&count=1", Encoding::Frames);
        let got = delivered(Encoding::Frames, &stack.h2().await.ask(ask).await);
        assert_eq!(got.end, End::Clean);
        assert!(got.records()[0].body == vec![0; MOST - 1]);
    }
}

/// What must not open, though its key is right.
fn refused(cipher: &str, bombs: &[Vec<u8>; 2]) -> Vec<(&'static str, AppendRecord)> {
    let seal = |flags, frame: &[u8]| seal_extended(cipher, flags, frame);
    let small = zstd::encode_all(&b"\0small"[..], 1).unwrap();
    vec![
        ("a byte too many", seal(ZSTD, &zeros(MOST + 1, 20))),
        ("a bomb", seal(ZSTD, &bombs[0])),
        ("a bomb with a large window", seal(ZSTD, &bombs[1])),
        ("no flag", seal(0, b"\0small")),
        ("a key epoch", seal(2, b"\0small")),
        ("a reserved flag", seal(ZSTD | 4, &small)),
        ("no zstd", seal(ZSTD, b"\0small")),
        ("half a frame", seal(ZSTD, &small[..small.len() / 2])),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_is_refused_and_takes_no_memory() {
    let bombs = [20, 27].map(|window_log| zeros(256 << 20, window_log));
    for cipher in CIPHERS {
        let dir = tempfile::tempdir().unwrap();
        let lite = Lite::start().await;
        let streams = json!([{ "match": format!("{BASIN}/*"), "cipher": cipher }]);
        let program = Program::start(dir.path(), lite.address, &streams, "warn");
        let client = program.client("h2").await;
        let direct = Client::plain(lite.address).await;
        let config = json!({ "basin": BASIN, "config": { "create_stream_on_append": true } });
        let made = client.ask(Ask::post("/v1/basins").json(&config)).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let first = append("s", Encoding::Proto, Packed::Not, &full(37, text));
        ack(Encoding::Proto, &client.ask(first).await);
        let before = program.peak_memory();
        for (at, (what, bad)) in (37..).zip(refused(cipher, &bombs)) {
            let raw = append("s", Encoding::Proto, Packed::Not, &input([bad]))
                .without("s2-encryption-key");
            ack(Encoding::Proto, &direct.ask(raw).await);
            let query = format!("seq_num={at}&count=1");
            let answer = client.ask(read("s", &query, Encoding::Proto)).await;
            let refusal = (answer.status, answer.code());
            assert_eq!(refusal, (400, "decryption_failed".to_owned()), "{what}");
            let answer = client.ask(read("s", &query, Encoding::Frames)).await;
            let got = delivered(Encoding::Frames, &answer);
            assert!(got.batches.is_empty(), "{what}");
            let (status, code) = (400, "decryption_failed".to_owned());
            assert_eq!(got.end, End::Failed { status, code }, "{what}");
        }
        let grown = program.peak_memory() - before;
        assert!(grown < 64 << 20, "{grown} bytes");
    }
}
