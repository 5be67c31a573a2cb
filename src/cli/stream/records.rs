//! Records as a copy compares and counts them: whole, and in their order.

use std::vec;

use bytes::Bytes;
use futures_util::StreamExt as _;
use s2_sdk::{
    error::ReadSessionError,
    read_session::ReadSession,
    types::{Header, ReadFrom, ReadSessionConfig, SequencedRecord},
};

use super::{
    Failure,
    endpoint::{ReadFault, Remote, input},
};

/// Reads a range of sequence numbers, each of which must be there.
pub(super) struct Reader<'a> {
    remote: &'a Remote,
    session: Option<ReadSession>,
    batch: vec::IntoIter<SequencedRecord>,
    next: u64,
    end: u64,
}

impl<'a> Reader<'a> {
    /// Will read from `start` to before `end`.
    pub(super) fn new(remote: &'a Remote, start: u64, end: u64) -> Self {
        Self {
            remote,
            session: None,
            batch: Vec::new().into_iter(),
            next: start,
            end,
        }
    }

    /// The next record; `None` at the end of the range.
    ///
    /// # Errors
    /// [`ReadFault`], and among them a record that is not there any more.
    pub(super) async fn next(&mut self) -> Result<Option<SequencedRecord>, ReadFault> {
        if self.next >= self.end {
            return Ok(None);
        }
        loop {
            if let Some(record) = self.batch.next() {
                if record.seq_num != self.next {
                    return Err(ReadFault::Failed(self.missing(record.seq_num)));
                }
                self.next += 1;
                return Ok(Some(record));
            }
            match self.batch().await? {
                Some(batch) => self.batch = batch.into_iter(),
                None => return Err(ReadFault::Failed(self.missing(self.end))),
            }
        }
    }

    async fn batch(&mut self) -> Result<Option<Vec<SequencedRecord>>, ReadFault> {
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(session(self.remote, self.next, self.end).await?),
        };
        match session.next().await {
            Some(Ok(batch)) => Ok(Some(batch.records)),
            Some(Err(error)) => Err(session_fault(self.remote, &error)),
            None => Ok(None),
        }
    }

    fn missing(&self, until: u64) -> Failure {
        let (first, last) = (self.next, until.saturating_sub(1));
        self.remote.fault(format!(
            "the records from seq_num {first} to {last} are not there: they were trimmed, or have \
             expired"
        ))
    }
}

/// A session that reads from `start` to before `end`.
///
/// # Errors
/// [`ReadFault`].
pub(super) async fn session(
    remote: &Remote,
    start: u64,
    end: u64,
) -> Result<ReadSession, ReadFault> {
    let count = usize::try_from(end.saturating_sub(start)).unwrap_or(usize::MAX);
    let input = input(ReadFrom::SeqNum(start), count);
    let session = remote
        .stream
        .read_session(input, ReadSessionConfig::new())
        .await;
    session.map_err(|error| session_fault(remote, &error))
}

/// What a failed session means.
pub(super) fn session_fault(remote: &Remote, error: &ReadSessionError) -> ReadFault {
    match error {
        ReadSessionError::Read(error) => remote.read_fault(error),
        error => ReadFault::Failed(remote.failed("read", error)),
    }
}

/// The record as it is in a stream whose sequence numbers are lower by `offset`: a trim command names the
/// same record as before, or the start of the stream if that record was not copied.
pub(super) fn moved(mut record: SequencedRecord, offset: u64) -> SequencedRecord {
    if let Some(point) = trim_point(&record.headers, &record.body) {
        let point = point.saturating_sub(offset);
        record.body = Bytes::copy_from_slice(&point.to_be_bytes());
    }
    record
}

/// The first sequence number that this trim command keeps, if it is one.
pub(super) fn trim_point(headers: &[Header], body: &[u8]) -> Option<u64> {
    match headers {
        [header] if header.name.is_empty() && header.value == "trim" => {
            Some(u64::from_be_bytes(body.try_into().ok()?))
        }
        _ => None,
    }
}

/// Whether two records are the same but for their sequence numbers.
pub(super) fn same(one: &SequencedRecord, other: &SequencedRecord) -> bool {
    one.timestamp == other.timestamp && one.headers == other.headers && one.body == other.body
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use s2_sdk::types::{Header, SequencedRecord};

    use super::{moved, trim_point};

    fn record(
        header: Option<(&'static str, &'static str)>,
        body: &'static [u8],
    ) -> SequencedRecord {
        let headers = header.map(|(name, value)| Header::new(name, value));
        SequencedRecord::from_parts(
            20,
            1,
            headers.into_iter().collect(),
            Bytes::from_static(body),
        )
    }

    #[test]
    fn only_trim_points_move() {
        let twelve = &[0, 0, 0, 0, 0, 0, 0, 12];
        for (there, here) in [(5, 7), (12, 0), (13, 0), (0, 12)] {
            let trim = moved(record(Some(("", "trim")), twelve), there);
            assert_eq!(trim_point(&trim.headers, &trim.body), Some(here));
        }
        for other in [
            record(None, twelve),
            record(Some(("", "fence")), twelve),
            record(Some(("trim", "")), twelve),
            record(Some(("name", "trim")), twelve),
            record(Some(("", "trim")), b"short"),
        ] {
            assert_eq!(moved(other.clone(), 5).body, other.body);
        }
    }
}
