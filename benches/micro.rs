//! One core, no I/O: sealing and opening records, and every wire codec.
//!
//! Wire figures are for a batch of 800 records of 1 KiB of text, a full session frame. Throughput counts the
//! bytes that go in: for encoders the record bodies, for decoders the encoded bytes.

#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]
#![allow(clippy::unwrap_used, reason = "fixed input, and a failure must show")]

use std::{hint::black_box, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::{BufMut as _, Bytes, BytesMut};
use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use serde_json::json;
use streamseal::{
    body::Meter,
    crypto::{Cipher, Key, StreamCipher, Text},
    stream::StreamId,
    telemetry::metrics::Metrics,
    wire::{
        compression::{RequestEncoding, ResponseEncoding, compress},
        json::{self, Format},
        proto,
        record::{AppendInput, AppendRecord, Fit, Header, ReadBatch, Record, SequencedRecord},
        s2s::{self, Compression, FrameDecoder, MAX_PAYLOAD_BYTES},
        sse,
    },
};

const RECORD_SIZES: [(usize, &str); 4] = [
    (64, "64 B"),
    (1024, "1 KiB"),
    (16 * 1024, "16 KiB"),
    (1024 * 1024, "1 MiB"),
];
const BATCH_RECORDS: u64 = 800;
const BODY_BYTES: usize = 1024;

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20);
    targets = seal_and_open, metering, protobuf, json_bodies, sse_events, s2s_frames, compression
}
criterion_main!(benches);

fn seal_and_open(criterion: &mut Criterion) {
    for cipher in Cipher::ALL {
        let stream_cipher = stream_cipher(cipher);
        let mut group = criterion.benchmark_group(cipher.as_str());
        for (size, name) in RECORD_SIZES {
            let record = vec![7; size];
            let seal = || {
                let mut arena =
                    BytesMut::with_capacity(size + stream_cipher.overhead(Text::Encoded));
                stream_cipher.seal(Text::Encoded, &mut arena, |out| out.put_slice(&record))
            };
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(format!("seal {name}"), |bencher| bencher.iter(seal));
            let sealed = seal().unwrap();
            group.bench_function(format!("open {name}"), |bencher| {
                bencher.iter(|| {
                    let mut arena = BytesMut::with_capacity(size);
                    stream_cipher.open(sealed.as_bytes(), &mut arena)
                });
            });
        }
    }
}

/// What it costs to count and time batches, beside sealing them without.
fn metering(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("metering");
    let cipher = stream_cipher(Cipher::Aegis256);
    let path = "bench-basin/micro".parse().unwrap();
    let meter = Meter::new(&Arc::new(Metrics::new().unwrap()), &path);
    let small = AppendRecord::from_parts(None, Vec::new(), Bytes::from_static(&[7; 64])).unwrap();
    let small = AppendInput::new(vec![small], None, None).unwrap();
    for (input, name) in [
        (small, "one record of 64 B"),
        (append_input(), "a full batch"),
    ] {
        let bytes = input.metered_size();
        let fit = Fit::default();
        run(&mut group, &format!("seal {name}"), bytes, || {
            input.seal_to_fit(&cipher, fit)
        });
        let metered = format!("seal {name}, counted");
        run(&mut group, &metered, bytes, || {
            meter.seal(&input, &cipher, fit)
        });
    }
}

fn protobuf(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("proto");
    let input = append_input();
    let cipher = stream_cipher(Cipher::Aegis256);
    let sealed = input.seal(&cipher).unwrap();
    run(
        &mut group,
        "encode sealed input",
        input.metered_size(),
        || proto::encode_sealed_input(&sealed),
    );
    // On the wire it is an append like any other.
    let encoded = proto::encode_sealed_input(&sealed);
    run(&mut group, "decode append input", encoded.len(), || {
        proto::decode_append_input(encoded.clone())
    });
    run(
        &mut group,
        "seal append input",
        input.metered_size(),
        || input.seal(&cipher),
    );
    let batch = read_batch();
    let encoded = proto::encode_read_batch(&batch);
    run(&mut group, "encode read batch", body_bytes(), || {
        proto::encode_read_batch(&batch)
    });
    run(&mut group, "decode stored batch", encoded.len(), || {
        proto::decode_stored_batch(encoded.clone())
    });
}

fn json_bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("json");
    let batch = read_batch();
    for (format, name) in [(Format::Raw, "raw"), (Format::Base64, "base64")] {
        let text = |text: &[u8]| match format {
            Format::Raw => String::from_utf8_lossy(text).into_owned(),
            Format::Base64 => STANDARD.encode(text),
        };
        let record =
            |at| json!({"headers": [[text(b"kind"), text(b"log")]], "body": text(&body(at))});
        let records: Vec<_> = (0..BATCH_RECORDS).map(record).collect();
        let encoded = json!({ "records": records }).to_string();
        let decode = format!("decode append input, {name}");
        run(&mut group, &decode, encoded.len(), || {
            json::decode_append_input(encoded.as_bytes(), format)
        });
        let encode = format!("encode read batch, {name}");
        run(&mut group, &encode, body_bytes(), || {
            json::encode_read_batch(&batch, format)
        });
    }
}

fn sse_events(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sse");
    let batch = read_batch();
    let id = sse::LastEventId {
        seq_num: BATCH_RECORDS - 1,
        count: batch.records.len(),
        bytes: body_bytes(),
    };
    for (format, name) in [(Format::Raw, "raw"), (Format::Base64, "base64")] {
        run(&mut group, &format!("batch, {name}"), body_bytes(), || {
            sse::batch(&batch, format, &id)
        });
    }
}

fn s2s_frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("s2s");
    let payload = proto::encode_read_batch(&read_batch());
    for (compression, name) in [
        (Compression::None, "none"),
        (Compression::Zstd, "zstd"),
        (Compression::Gzip, "gzip"),
    ] {
        let encode = || s2s::encode_message(compression, payload.clone(), false);
        run(
            &mut group,
            &format!("encode frame, {name}"),
            payload.len(),
            encode,
        );
        let frame = Bytes::from(encode().unwrap().concat());
        run(
            &mut group,
            &format!("decode frame, {name}"),
            payload.len(),
            || {
                let mut decoder = FrameDecoder::new();
                decoder.push(frame.clone());
                decoder.next()
            },
        );
    }
    // As it arrives from the network: in the pieces that HTTP/2 cuts it into.
    let frame = s2s::encode_message(Compression::None, payload.clone(), false).unwrap();
    let frame = Bytes::from(frame.concat());
    run(
        &mut group,
        "decode frame, none, in 16 KiB pieces",
        payload.len(),
        || {
            let mut decoder = FrameDecoder::new();
            for start in (0..frame.len()).step_by(16 * 1024) {
                decoder.push(frame.slice(start..frame.len().min(start + 16 * 1024)));
            }
            decoder.next()
        },
    );
}

fn compression(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compression");
    let body = json::encode_read_batch(&read_batch(), Format::Raw);
    for (response, request, name) in [
        (ResponseEncoding::Gzip, RequestEncoding::Gzip, "gzip"),
        (ResponseEncoding::Zstd, RequestEncoding::Zstd, "zstd"),
    ] {
        run(&mut group, &format!("compress, {name}"), body.len(), || {
            compress(response, &body)
        });
        let compressed = Bytes::from(compress(response, &body).unwrap());
        run(
            &mut group,
            &format!("decompress, {name}"),
            body.len(),
            || request.decompress(compressed.clone(), MAX_PAYLOAD_BYTES),
        );
    }
}

fn run<T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    bytes: usize,
    mut work: impl FnMut() -> T,
) {
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function(name, |bencher| bencher.iter(|| black_box(work())));
}

fn stream_cipher(cipher: Cipher) -> StreamCipher {
    let key = Key::from_bytes(*b"micro benchmark, not secret, 32b");
    let (basin, stream) = ("bench-basin".parse().unwrap(), "micro".parse().unwrap());
    StreamCipher::new(cipher, &key, StreamId::new(&basin, &stream))
}

fn append_input() -> AppendInput {
    let record = |at| AppendRecord::from_parts(Some(at), headers(), body(at)).unwrap();
    AppendInput::new((0..BATCH_RECORDS).map(record).collect(), None, None).unwrap()
}

fn read_batch() -> ReadBatch {
    let record = |at| SequencedRecord {
        seq_num: at,
        timestamp: 1_700_000_000_000 + at,
        record: Record::from_parts(headers(), body(at)).unwrap(),
    };
    ReadBatch {
        records: (0..BATCH_RECORDS).map(record).collect(),
        tail: None,
    }
}

fn headers() -> Vec<Header> {
    vec![Header {
        name: Bytes::from_static(b"kind"),
        value: Bytes::from_static(b"log"),
    }]
}

/// Text that compresses about as well as logs do.
fn body(at: u64) -> Bytes {
    let mut text = String::new();
    for line in 0.. {
        if text.len() >= BODY_BYTES {
            break;
        }
        let id = (at * 31 + line).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        text += &format!("level=info request={id:016x} status=200 path=\"/v1/orders/{line}\"\n");
    }
    text.truncate(BODY_BYTES);
    text.into()
}

fn body_bytes() -> usize {
    BATCH_RECORDS as usize * BODY_BYTES
}
