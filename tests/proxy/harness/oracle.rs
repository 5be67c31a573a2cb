//! The upstream's records behind the proxy's back, and S2's own encryption to judge them by.

use bytes::Bytes;
use prost::Message as _;
use s2_api::v1::stream::proto::{AppendInput, AppendRecord, Header, SequencedRecord};
use s2_common::{
    encryption::EncryptionSpec,
    record::{self, MeteredExt as _, Record},
};
use s2_storage::{
    bash::Bash,
    record::{
        EncryptedRecord, RecordDecryptionError, StoredRecord, decrypt_stored_record,
        encode_stored_record, encrypt_record,
    },
};

use super::{Ask, BASIN, Stack, records};

/// The two ciphers.
pub const CIPHERS: [&str; 2] = ["aegis-256", "aes-256-gcm"];

/// `s2-storage`'s record type of an encrypted envelope, in the low bits of its first byte.
const ENCRYPTED_ENVELOPE: u8 = 3;

fn spec(cipher: &str, key: [u8; 32]) -> EncryptionSpec {
    match cipher {
        "aegis-256" => EncryptionSpec::aegis256(key),
        "aes-256-gcm" => EncryptionSpec::aes256_gcm(key),
        other => panic!("{other}"),
    }
}

/// What S2 authenticates with each record of a stream.
fn aad(stream: &str) -> Bash {
    Bash::delimited(&[BASIN.as_bytes(), stream.as_bytes()], 0)
}

/// Encrypts a record as S2 itself does.
pub fn seal(cipher: &str, key: [u8; 32], stream: &str, clear: &AppendRecord) -> AppendRecord {
    let headers = clear.headers.iter().map(|header| record::Header {
        name: header.name.clone(),
        value: header.value.clone(),
    });
    let inner = Record::try_from_parts(headers.collect(), clear.body.clone()).unwrap();
    let stored = encrypt_record(inner.metered(), &spec(cipher, key), aad(stream).as_ref());
    // [type and width of the size: 1] [metered size] [encrypted record]
    let encoded = encode_stored_record(stored.as_ref());
    assert_eq!(encoded[0] & 0b111, ENCRYPTED_ENVELOPE);
    let width = usize::from(encoded[0] >> 3) + 1;
    AppendRecord {
        timestamp: clear.timestamp,
        headers: Vec::new(),
        body: encoded.slice(1 + width..),
    }
}

/// Decrypts a record as S2 itself does.
pub fn open(
    cipher: &str,
    key: [u8; 32],
    stream: &str,
    sealed: &SequencedRecord,
) -> Result<(Vec<Header>, Bytes), RecordDecryptionError> {
    assert!(sealed.headers.is_empty());
    let decrypt = |metered_size| {
        let record = EncryptedRecord::try_from(sealed.body.clone())?;
        let stored = StoredRecord::Encrypted {
            metered_size,
            record,
        };
        decrypt_stored_record(stored, &spec(cipher, key), aad(stream).as_ref())
    };
    // S2 keeps the size in clear beside the record. Here only the record tells it.
    let opened = match decrypt(0) {
        Err(RecordDecryptionError::MeteredSizeMismatch { actual, .. }) => decrypt(actual),
        other => other,
    };
    let (headers, body) = opened?.into_inner().into_parts();
    let header = |header: record::Header| Header {
        name: header.name,
        value: header.value,
    };
    Ok((headers.into_iter().map(header).collect(), body))
}

impl Stack {
    /// What the upstream has stored from the start of a stream, past the proxy: at most one answer.
    pub async fn stored(&self, stream: &str) -> Vec<SequencedRecord> {
        let ask = Ask::get(records(stream) + "?seq_num=0").header("accept", "application/protobuf");
        let answer = self.direct().await.ask(ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let batch = s2_api::v1::stream::proto::ReadBatch::decode(answer.body).unwrap();
        batch.records
    }

    /// Appends to the upstream as it is, past the proxy.
    pub async fn store(&self, stream: &str, raw: impl IntoIterator<Item = AppendRecord>) {
        let input = AppendInput {
            records: raw.into_iter().collect(),
            ..AppendInput::default()
        };
        let ask = Ask::post(records(stream)).body("application/protobuf", input.encode_to_vec());
        let answer = self.direct().await.ask(ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}
