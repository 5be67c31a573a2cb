//! The copying itself: batches in a pipelined append session, each bound to its place.

use std::{collections::VecDeque, mem};

use futures_util::FutureExt as _;
use s2_sdk::{
    append_session::{AppendSession, AppendSessionConfig, BatchSubmitTicket},
    error::{AppendConditionFailed, AppendError, AppendSessionError},
    types::{
        AppendAck, AppendInput, AppendRecord, AppendRecordBatch, MeteredBytes as _,
        RECORD_BATCH_MAX, SequencedRecord,
    },
};

use super::{
    super::{
        Failure,
        endpoint::{ReadFault, Remote},
        progress::Progress,
        records::{Reader, moved},
    },
    place::Place,
    unreadable,
};

/// Room that a batch leaves for each of its records, so that a proxy that encrypts them need not split it:
/// more than any layout adds to a record.
const ROOM_TO_SEAL: usize = 64;

/// Why copying stopped.
pub(super) enum Trouble {
    /// For good.
    Final(Failure),
    /// For a reason that may pass. Batches may have been written of which nothing is known.
    Passing(Failure),
    /// The copy's tail is not where it was left.
    Taken,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Final(failure)
    }
}

/// Copies the records up to position `end` of the copy. `place` is moved on with each acknowledged batch.
///
/// # Errors
/// [`Trouble`].
pub(super) async fn run(
    from: &Remote,
    to: &Remote,
    place: &mut Place,
    end: u64,
    progress: &mut Progress,
) -> Result<(), Trouble> {
    let offset = place.offset;
    let mut source = Reader::new(from, place.next + offset, end + offset);
    let mut writer = Writer {
        to,
        session: to.stream.append_session(AppendSessionConfig::new()),
        pending: VecDeque::new(),
        submitted: place.next,
        place,
        progress,
    };
    let mut batch = Batch::default();
    loop {
        let next = source.next().await;
        let Some(record) = next.map_err(|fault| source_trouble(from, fault))? else {
            break;
        };
        let record = moved(record, offset);
        if !batch.has_room(&record) {
            writer.submit(mem::take(&mut batch)).await?;
        }
        let copied = copied(record).map_err(|error| from.failed("copy a record of", &error))?;
        batch.push(copied);
    }
    writer.submit(batch).await?;
    writer.settle().await
}

fn source_trouble(from: &Remote, fault: ReadFault) -> Trouble {
    Trouble::Final(unreadable(from, fault))
}

/// The same record, to be appended with its own timestamp.
fn copied(record: SequencedRecord) -> Result<AppendRecord, s2_sdk::types::ValidationError> {
    Ok(AppendRecord::new(record.body)?
        .with_headers(record.headers)?
        .with_timestamp(record.timestamp))
}

/// Records that will go together.
#[derive(Default)]
struct Batch {
    records: Vec<AppendRecord>,
    metered: usize,
}

impl Batch {
    fn has_room(&self, record: &SequencedRecord) -> bool {
        let records = self.records.len() + 1;
        let sealed = self.metered + record.metered_bytes() + records * ROOM_TO_SEAL;
        // A record that leaves no room goes alone: the proxy may still compress it.
        self.records.is_empty()
            || (records <= RECORD_BATCH_MAX.count && sealed <= RECORD_BATCH_MAX.bytes)
    }

    fn push(&mut self, record: AppendRecord) {
        self.metered += record.metered_bytes();
        self.records.push(record);
    }
}

/// A batch that is not acknowledged yet, and what its acknowledgement must say.
struct Pending {
    ticket: BatchSubmitTicket,
    start: u64,
    records: u64,
    bytes: u64,
    /// Timestamps of its first and its last record.
    timestamps: (u64, u64),
}

/// The append session, and what it owes.
struct Writer<'a> {
    to: &'a Remote,
    session: AppendSession,
    pending: VecDeque<Pending>,
    /// Where the next batch goes.
    submitted: u64,
    /// What is acknowledged.
    place: &'a mut Place,
    progress: &'a mut Progress,
}

impl Writer<'_> {
    /// Sends a batch once there is room for it, and takes the acknowledgements that have come.
    async fn submit(&mut self, batch: Batch) -> Result<(), Trouble> {
        let (Some(first), Some(last)) = (batch.records.first(), batch.records.last()) else {
            return Ok(());
        };
        let timestamp = |record: &AppendRecord| record.timestamp().unwrap_or_default();
        let timestamps = (timestamp(first), timestamp(last));
        let (records, bytes) = (batch.records.len(), batch.metered);
        let batch = AppendRecordBatch::try_from_iter(batch.records)
            .map_err(|error| self.to.failed("append to", &error))?;
        let input = AppendInput::new(batch).with_match_seq_num(self.submitted);
        let ticket = match self.session.submit(input).await {
            Ok(ticket) => ticket,
            Err(error) => return Err(self.ended(error).await),
        };
        let records = u64::try_from(records).unwrap_or(u64::MAX);
        self.pending.push_back(Pending {
            ticket,
            start: self.submitted,
            records,
            bytes: u64::try_from(bytes).unwrap_or(u64::MAX),
            timestamps,
        });
        self.submitted += records;
        while let Some(front) = self.pending.front_mut() {
            match (&mut front.ticket).now_or_never() {
                Some(answer) => self.answered(answer)?,
                None => break,
            }
        }
        Ok(())
    }

    /// Waits for every acknowledgement.
    async fn settle(&mut self) -> Result<(), Trouble> {
        while let Some(front) = self.pending.front_mut() {
            let answer = (&mut front.ticket).await;
            self.answered(answer)?;
        }
        Ok(())
    }

    /// Why the session takes no more: the first batch that failed knows.
    async fn ended(&mut self, error: AppendSessionError) -> Trouble {
        match self.settle().await {
            Ok(()) => trouble(self.to, &error),
            Err(first) => first,
        }
    }

    /// Takes the answer to the oldest batch.
    fn answered(&mut self, answer: Result<AppendAck, AppendSessionError>) -> Result<(), Trouble> {
        let Some(oldest) = self.pending.pop_front() else {
            return Ok(());
        };
        let ack = answer.map_err(|error| trouble(self.to, &error))?;
        let end = oldest.start + oldest.records;
        if (ack.start.seq_num, ack.end.seq_num) != (oldest.start, end) {
            return Err(Trouble::Taken);
        }
        if (ack.start.timestamp, ack.end.timestamp) != oldest.timestamps {
            let (start, last) = (oldest.start, end - 1);
            return Err(Trouble::Final(self.to.fault(format!(
                "it did not keep the timestamps of seq_num {start} to {last}, so this is no copy: delete \
                 it, and see that nobody else changes its configuration"
            ))));
        }
        self.place.next = end;
        self.progress.add(oldest.records, oldest.bytes);
        Ok(())
    }
}

/// What a failed append means.
fn trouble(to: &Remote, error: &AppendSessionError) -> Trouble {
    match error {
        AppendSessionError::Append(AppendError::ConditionFailed(
            AppendConditionFailed::SeqNumMismatch(_),
        )) => Trouble::Taken,
        error if error.is_retryable() || !error.has_no_side_effects() => {
            Trouble::Passing(to.failed("append to", error))
        }
        error => Trouble::Final(to.failed("append to", error)),
    }
}
