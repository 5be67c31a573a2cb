//! Sessions on stream `s` of which the upstream's half is written by hand.

use bytes::Bytes;
use s2_api::v1::stream::{
    proto::{AppendAck, ReadBatch, SequencedRecord, StreamPosition},
    s2s::CompressionAlgorithm,
};

use super::{
    Ask, Encoding, Frame, KEY, Live, Packed, Player, Session, Stack, append, input, read, record,
    records, seal,
};

impl Stack {
    /// A deployment with one record in stream `s`, sealed with AEGIS-256.
    pub async fn with_one_record() -> Self {
        let stack = Self::start().await;
        stack.create_basin(Some("aegis-256")).await;
        let batch = input([record(&[], "first")]);
        let first = append("s", Encoding::Proto, Packed::Not, &batch);
        assert_eq!(stack.h2().await.ask(first).await.status, 200);
        stack
    }

    /// An append session over HTTP/2.
    pub async fn append_session(&self) -> Session {
        Session::append(&self.h2().await, Ask::post(records("s")).key(&KEY)).await
    }

    /// A read session over HTTP/2 that is answered by hand.
    pub async fn played_read(&self, encoding: Encoding) -> (Player, Live) {
        let player = self.lite.play(&records("s"));
        let ask = read("s", "seq_num=0", encoding);
        (player, Live::new(self.h2().await.open(ask).await))
    }
}

/// A message in a frame that is not compressed.
pub fn frame(message: &impl prost::Message) -> Bytes {
    Frame::encode(CompressionAlgorithm::None, message)
}

/// A batch that only tells the tail.
pub fn heartbeat(seq_num: u64) -> ReadBatch {
    ReadBatch {
        records: Vec::new(),
        tail: at(seq_num),
    }
}

/// A batch of one record as the upstream stores it.
pub fn sealed_batch(body: &str) -> ReadBatch {
    let sealed = seal("aegis-256", KEY, "s", &record(&[], body.to_owned()));
    let record = SequencedRecord {
        seq_num: 0,
        timestamp: 1,
        headers: Vec::new(),
        body: sealed.body,
    };
    ReadBatch {
        records: vec![record],
        tail: None,
    }
}

/// The ack of the second record.
pub fn second_ack() -> AppendAck {
    AppendAck {
        start: at(1),
        end: at(2),
        tail: at(2),
    }
}

fn at(seq_num: u64) -> Option<StreamPosition> {
    Some(StreamPosition {
        seq_num,
        timestamp: 1,
    })
}
