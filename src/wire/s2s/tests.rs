//! S2S frames against S2's own encoder: limits, flags, any chunking, bombs.

use http::HeaderValue;
use proptest::{collection::vec, prelude::*};
use s2_api::v1::stream::{
    proto as api,
    s2s::{self as api_s2s, CompressionAlgorithm, SessionMessage, TerminalMessage},
};

use super::*;
use crate::wire::{DecodeError, tests::bytes};

const ALGORITHMS: [(Compression, CompressionAlgorithm); 3] = [
    (Compression::None, CompressionAlgorithm::None),
    (Compression::Zstd, CompressionAlgorithm::Zstd),
    (Compression::Gzip, CompressionAlgorithm::Gzip),
];

fn decode_all(chunks: impl IntoIterator<Item = Bytes>) -> Result<Vec<Frame>, DecodeError> {
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        while let Some(frame) = decoder.next()? {
            frames.push(frame);
        }
    }
    decoder.finish()?;
    Ok(frames)
}

fn decode_one(frame: Bytes) -> Frame {
    let mut frames = decode_all([frame]).unwrap();
    assert_eq!(frames.len(), 1);
    frames.remove(0)
}

fn message(payload: impl Into<Bytes>) -> Frame {
    Frame::Message {
        payload: payload.into(),
        reconnect_advised: false,
    }
}

fn error(chunks: &[&[u8]]) -> String {
    let chunks = chunks.iter().map(|chunk| Bytes::copy_from_slice(chunk));
    match decode_all(chunks).unwrap_err() {
        DecodeError::Frame(message) => message,
        other => panic!("{other:?}"),
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut out);
    out
}

fn raw_frame(flag: u8, payload: &[u8]) -> Bytes {
    let mut out = BytesMut::new();
    put_head(&mut out, flag, payload.len());
    out.put_slice(payload);
    out.freeze()
}

/// The frame in one piece.
fn encode(
    compression: Compression,
    payload: &[u8],
    reconnect_advised: bool,
) -> Result<Bytes, FrameTooLarge> {
    let payload = Bytes::copy_from_slice(payload);
    encode_message(compression, payload, reconnect_advised).map(|frame| frame.concat().into())
}

#[test]
fn malformed_frames_are_refused_in_the_words_of_s2() {
    assert_eq!(error(&[&[0, 0, 0]]), "empty frame payload");
    assert_eq!(error(&[&[0, 0], &[0]]), "empty frame payload");
    assert_eq!(error(&[&[0, 0, 1, 0x60]]), "unknown compression algorithm");
    assert_eq!(error(&[&[0x20, 0, 1]]), "frame exceeds decode limit");
    assert_eq!(
        error(&[&[0xff], &[0xff], &[0xff]]),
        "frame exceeds decode limit"
    );
    assert_eq!(
        error(&[&[0, 0, 2, 0x80, 1]]),
        "terminal message missing status code"
    );
    assert_eq!(error(&[&[0, 0, 4, 0x80, 1, 0x90, 0xff]]), "invalid utf-8");
    assert_eq!(error(&[&[0]]), "bytes remaining on stream");
    assert_eq!(error(&[&[0, 0, 3, 0]]), "bytes remaining on stream");
    assert_eq!(error(&[&[0, 0, 3, 0x40, 1, 2]]), "unexpected end of file");
    assert!(error(&[&[0, 0, 4, 0x20, 1, 2, 3]]).len() > 5);
}

#[test]
fn reserved_bits_are_ignored_and_reconnect_is_kept() {
    assert_eq!(decode_one(raw_frame(0x0f, b"x")), message("x"));
    let advised = Frame::Message {
        payload: Bytes::from_static(b"x"),
        reconnect_advised: true,
    };
    assert_eq!(decode_one(raw_frame(0x10, b"x")), advised);
    assert_eq!(
        decode_one(encode(Compression::None, b"x", true).unwrap()),
        advised
    );
    assert_eq!(
        encode(Compression::None, b"x", true).unwrap(),
        api_s2s::advise_reconnect(encode(Compression::None, b"x", false).unwrap()),
    );
}

#[test]
fn a_whole_frame_is_a_slice_of_its_chunk() {
    let chunk = [raw_frame(0, b"one"), raw_frame(0, b"two")].concat();
    let chunk = Bytes::from(chunk);
    let range = chunk.as_ptr_range();
    for frame in decode_all([chunk]).unwrap() {
        let Frame::Message { payload, .. } = frame else {
            panic!()
        };
        assert!(range.contains(&payload.as_ptr()));
    }
}

#[test]
fn payloads_up_to_the_limit_pass() {
    let largest = noise(MAX_PAYLOAD_BYTES);
    for (ours, _) in ALGORITHMS {
        let frame = encode(ours, &largest, false).unwrap();
        assert_eq!(frame.len(), LENGTH_BYTES + MAX_FRAME_BYTES);
        assert_eq!(decode_one(frame), message(largest.clone()));
        let zeros = vec![0; MAX_PAYLOAD_BYTES];
        assert_eq!(
            decode_one(encode(ours, &zeros, false).unwrap()),
            message(zeros)
        );
    }
    let beyond = vec![0; MAX_PAYLOAD_BYTES + 1];
    assert_eq!(
        encode(Compression::Zstd, &beyond, false),
        Err(FrameTooLarge)
    );
}

#[test]
fn bombs_stop_at_the_limit() {
    let bomb = vec![0; 64 << 20];
    for (flag, payload) in [(0x20, zstd(&bomb).unwrap()), (0x40, gzip(&bomb).unwrap())] {
        assert!(payload.len() < MAX_PAYLOAD_BYTES);
        assert_eq!(
            error(&[&raw_frame(flag, &payload)]),
            "decompressed payload exceeds limit"
        );
        let just_beyond = vec![0; MAX_PAYLOAD_BYTES + 1];
        let payload = if flag == 0x20 {
            zstd(&just_beyond)
        } else {
            gzip(&just_beyond)
        };
        assert_eq!(
            error(&[&raw_frame(flag, &payload.unwrap())]),
            "decompressed payload exceeds limit"
        );
    }
}

#[test]
fn frames_are_those_of_s2() {
    for size in [0, 1, 900, 1100, 500_000] {
        let batch = api::SequencedRecord {
            body: vec![7; size].into(),
            ..Default::default()
        };
        let payload = prost::Message::encode_to_vec(&batch);
        for (ours, theirs) in ALGORITHMS {
            let theirs = SessionMessage::regular(theirs, &batch).unwrap().encode();
            let ours_frame = encode(ours, &payload, false).unwrap();
            assert_eq!(decode_one(theirs.clone()), message(payload.clone()));
            assert_eq!(decode_one(ours_frame.clone()), message(payload.clone()));
            assert_eq!(ours_frame[LENGTH_BYTES], theirs[LENGTH_BYTES]);
            if ours != Compression::Zstd {
                assert_eq!(ours_frame, theirs);
            }
        }
    }
    let json = r#"{"code":"decryption_failed"}"#;
    let theirs = TerminalMessage {
        status: 400,
        body: json.to_owned(),
    };
    let ours = encode_terminal(400, json);
    assert_eq!(ours, SessionMessage::Terminal(theirs).encode());
    assert_eq!(
        decode_one(ours),
        Frame::Terminal {
            status: 400,
            body: json.to_owned()
        }
    );
}

#[test]
fn what_does_not_shrink_is_sent_as_it_is() {
    let frame = encode(Compression::Gzip, &noise(5000), false).unwrap();
    assert_eq!(frame[LENGTH_BYTES], 0);
}

#[test]
fn compression_is_chosen_as_in_s2() {
    for accept in [
        vec![],
        vec!["gzip, zstd, br"],
        vec!["gzip;q=0.8, deflate"],
        vec!["zstd;q=0, gzip"],
        vec!["zstd; q=0.0, gzip;q=0.5"],
        vec!["gzip;q=0"],
        vec!["gzip;Q=0.000, zstd;q=0"],
        vec!["zstd;q=0.001"],
        vec!["*"],
        vec!["ZSTD"],
        vec!["gzip", "zstd"],
        vec!["gzip", "gzip;q=0"],
        vec!["gzip;x=1;q=0e5"],
        vec!["gzip; q = 0"],
        vec!["gzip;q"],
        vec![",,;"],
    ] {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(ACCEPT_ENCODING, HeaderValue::from_static(value));
        }
        let ours = Compression::from_accept_encoding(&headers);
        let theirs = CompressionAlgorithm::from_accept_encoding(&headers);
        assert!(
            ALGORITHMS.contains(&(ours, theirs)),
            "{headers:?}: {ours:?} but {theirs:?}"
        );
    }
}

#[test]
fn a_slow_sender_costs_one_copy_of_each_byte() {
    // A frame in single bytes: quadratic copying would take minutes.
    let payload = noise(MAX_PAYLOAD_BYTES);
    let frame = encode(Compression::None, &payload, false).unwrap();
    let chunks = (0..frame.len()).map(|at| frame.slice(at..at + 1));
    assert_eq!(decode_all(chunks).unwrap(), [message(payload)]);
}

proptest! {
    #[test]
    fn frames_survive_any_chunking(
        payloads in vec(bytes(0..300), 1..6),
        compression in 0usize..3,
        cuts in vec(1usize..50, 1..40),
        hold in any::<bool>(),
    ) {
        let mut body = BytesMut::new();
        for payload in &payloads {
            body.put_slice(&encode(ALGORITHMS[compression].0, payload, false).unwrap());
        }
        body.put_slice(&encode_terminal(503, "{}"));
        let mut body = body.freeze();
        let mut chunks = Vec::new();
        for cut in cuts.iter().cycle() {
            if body.is_empty() {
                break;
            }
            chunks.push(body.split_to((*cut).min(body.len())));
        }
        let mut expected: Vec<_> = payloads.into_iter().map(message).collect();
        expected.push(Frame::Terminal { status: 503, body: "{}".to_owned() });
        if hold {
            // All pushed before any is taken.
            let mut decoder = FrameDecoder::new();
            chunks.into_iter().for_each(|chunk| decoder.push(chunk));
            for frame in expected {
                prop_assert_eq!(decoder.next(), Ok(Some(frame)));
            }
            prop_assert_eq!((decoder.next(), decoder.finish()), (Ok(None), Ok(())));
        } else {
            prop_assert_eq!(decode_all(chunks), Ok(expected));
        }
    }
}
