//! Records, commands and batches keep S2's rules and wording.

use proptest::prelude::*;

use super::*;
use crate::wire::tests::{data, fence, header, read_batch, s2_record, trim};

fn invalid<T: fmt::Debug>(result: Result<T, DecodeError>) -> String {
    match result.unwrap_err() {
        DecodeError::Invalid(message) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn commands_keep_their_wire_form() {
    let fence = fence(b"token");
    assert_eq!(fence.headers(), [header(b"", b"fence")]);
    assert_eq!(
        (fence.body().as_ref(), fence.metered_size()),
        (&b"token"[..], 8 + 2 + 5 + 5)
    );
    let trim = trim(258);
    assert_eq!(trim.headers(), [header(b"", b"trim")]);
    assert_eq!(
        (trim.body().as_ref(), trim.metered_size()),
        (&[0, 0, 0, 0, 0, 0, 1, 2][..], 22)
    );
}

#[test]
fn invalid_parts_are_refused_in_the_words_of_s2() {
    let long = [b'x'; 37];
    for (headers, body) in [
        (vec![header(b"", b"unknown")], &b""[..]),
        (vec![header(b"", b"")], b""),
        (vec![header(b"", b"fence")], &long),
        (vec![header(b"", b"fence")], b"\xff"),
        (vec![header(b"", b"trim")], b"1234567"),
        (vec![header(b"", b"trim")], b""),
        (vec![header(b"a", b""), header(b"", b"fence")], b""),
        (vec![header(b"", b""), header(b"", b"")], b""),
    ] {
        let ours = Record::from_parts(headers.clone(), Bytes::copy_from_slice(body));
        let theirs = headers
            .into_iter()
            .map(|Header { name, value }| s2_common::record::Header { name, value });
        let theirs = s2_common::record::Record::try_from_parts(
            theirs.collect(),
            Bytes::copy_from_slice(body),
        );
        assert_eq!(invalid(ours), theirs.unwrap_err().to_string());
    }
}

fn batch(records: Vec<Record>, token: Option<&str>) -> Result<AppendInput, DecodeError> {
    let records = records.into_iter().map(|record| AppendRecord {
        timestamp: None,
        record,
    });
    AppendInput::new(records.collect(), None, token.map(str::to_owned))
}

#[test]
fn batches_beyond_the_limits_are_refused() {
    let largest = data(&[0; MAX_BATCH_BYTES - 8]);
    assert_eq!(
        batch(vec![largest.clone()], Some(&"t".repeat(36)))
            .unwrap()
            .metered_size(),
        MAX_BATCH_BYTES
    );
    assert_eq!(
        batch(vec![data(b""); 1000], None).unwrap().metered_size(),
        8000
    );
    assert_eq!(
        invalid(batch(vec![], None)),
        "record batch must not be empty"
    );
    assert_eq!(
        invalid(batch(vec![data(b""); 1001], None)),
        "record batch must not exceed 1000 records"
    );
    assert_eq!(
        invalid(batch(vec![largest, data(b"")], None)),
        "record batch must not exceed a metered size of 1 MiB"
    );
    let beyond = data(&[0; MAX_BATCH_BYTES - 7]);
    assert_eq!(
        invalid(batch(vec![beyond], None)),
        "record must have metered size less than 1 MiB"
    );
    assert_eq!(
        invalid(batch(vec![data(b"")], Some(&"t".repeat(37)))),
        "fencing token must not exceed 36 bytes in length"
    );
}

proptest! {
    #[test]
    fn metering_is_that_of_s2(batch in read_batch()) {
        use s2_common::record::MeteredSize as _;
        for record in &batch.records {
            prop_assert_eq!(record.record.metered_size(), s2_record(&record.record).metered_size());
        }
    }
}
