//! The bodies as serde decodes them. Their names appear in error texts, so they are S2's.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, SeqAccess, Visitor},
};

use crate::wire::record::{MAX_BATCH_RECORDS, command::check_token_length};

#[derive(Deserialize)]
pub(super) struct TailResponse {
    pub(super) tail: StreamPosition,
}

#[derive(Deserialize)]
pub(super) struct StreamPosition {
    pub(super) seq_num: u64,
    pub(super) timestamp: u64,
}

#[derive(Deserialize)]
pub(super) struct AppendInput<'a> {
    #[serde(borrow)]
    pub(super) records: Records<'a>,
    pub(super) match_seq_num: Option<u64>,
    pub(super) fencing_token: Option<FencingToken>,
}

#[derive(Deserialize)]
pub(super) struct AppendRecord<'a> {
    pub(super) timestamp: Option<u64>,
    #[serde(borrow, default)]
    pub(super) headers: Vec<Header<'a>>,
    #[serde(borrow, default)]
    pub(super) body: Cow<'a, str>,
}

#[derive(Deserialize)]
pub(super) struct Header<'a>(
    #[serde(borrow)] pub(super) Cow<'a, str>,
    #[serde(borrow)] pub(super) Cow<'a, str>,
);

/// All records are checked and counted; no more are kept than a batch may have.
pub(super) struct Records<'a> {
    pub(super) kept: Vec<AppendRecord<'a>>,
    pub(super) count: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Records<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RecordsVisitor)
    }
}

struct RecordsVisitor;

impl<'de> Visitor<'de> for RecordsVisitor {
    type Value = Records<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Records<'de>, A::Error> {
        let (mut kept, mut count) = (Vec::new(), 0);
        while let Some(record) = seq.next_element()? {
            if count < MAX_BATCH_RECORDS {
                kept.push(record);
            }
            count += 1;
        }
        Ok(Records { kept, count })
    }
}

/// A token of the right length: S2 counts a longer one as malformed JSON.
pub(super) struct FencingToken(pub(super) String);

impl<'de> Deserialize<'de> for FencingToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let token = String::deserialize(deserializer)?;
        check_token_length(token.len()).map_err(D::Error::custom)?;
        Ok(Self(token))
    }
}
