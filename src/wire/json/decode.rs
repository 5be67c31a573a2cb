//! JSON bodies to records, as strict and as lenient as S2.

use super::{Format, message};
use crate::wire::{
    DecodeError,
    record::{
        AppendInput, AppendRecord, Header, MAX_BATCH_RECORDS, Position, append::too_many_records,
    },
};

/// Decodes a client's append:
/// `{"records":[{"timestamp":1,"headers":[["n","v"]],"body":"b"}],"match_seq_num":0,"fencing_token":"t"}`
/// where only `records` must be there.
///
/// # Errors
/// [`DecodeError::Json`] for another shape, [`DecodeError::Invalid`] for a record or batch that S2
/// does not take.
pub fn decode_append_input(body: &[u8], format: Format) -> Result<AppendInput, DecodeError> {
    let input: message::AppendInput<'_> =
        serde_json::from_slice(body).map_err(|e| malformed(&e))?;
    if input.records.count > MAX_BATCH_RECORDS {
        return Err(too_many_records());
    }
    let records = input
        .records
        .kept
        .into_iter()
        .map(|record| record.decode(format))
        .collect::<Result<_, _>>()?;
    let fencing_token = input.fencing_token.map(|token| token.0);
    AppendInput::new(records, input.match_seq_num, fencing_token)
}

/// Decodes `{"tail":{"seq_num":0,"timestamp":0}}`.
///
/// # Errors
/// [`DecodeError::Json`] for another shape.
pub fn decode_tail(body: &[u8]) -> Result<Position, DecodeError> {
    let message::TailResponse { tail } = serde_json::from_slice(body).map_err(|e| malformed(&e))?;
    Ok(Position {
        seq_num: tail.seq_num,
        timestamp: tail.timestamp,
    })
}

impl message::AppendRecord<'_> {
    fn decode(self, format: Format) -> Result<AppendRecord, DecodeError> {
        let headers = self
            .headers
            .into_iter()
            .map(|message::Header(name, value)| {
                Ok(Header {
                    name: format.decode(&name)?,
                    value: format.decode(&value)?,
                })
            })
            .collect::<Result<_, DecodeError>>()?;
        AppendRecord::from_parts(self.timestamp, headers, format.decode(&self.body)?)
    }
}

/// The message of serde_json, without the value that it quotes from the body:
/// `invalid type: string "…", expected u64 at line 1 column 9` loses the `"…"`.
fn malformed(error: &serde_json::Error) -> DecodeError {
    const QUOTING: [&str; 2] = ["invalid type: ", "invalid value: "];
    /// What serde calls the values that it quotes.
    const KINDS: [&str; 6] = [
        "string",
        "integer",
        "floating point",
        "boolean",
        "character",
        "byte array",
    ];
    let text = error.to_string();
    let plain = || {
        let (problem, rest) = QUOTING
            .iter()
            .find_map(|problem| Some((problem, text.strip_prefix(problem)?)))?;
        let kind = KINDS.iter().find(|kind| rest.starts_with(**kind))?;
        let expected = rest.rfind(", expected ").and_then(|at| rest.get(at..))?;
        Some(format!("{problem}{kind}{expected}"))
    };
    DecodeError::Json(plain().unwrap_or_else(|| text.clone()))
}
