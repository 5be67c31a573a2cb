//! Reads everything, also around records that make every batch they are in fail.

use futures_util::{StreamExt as _, future::join_all};
use s2_sdk::types::{MeteredBytes as _, ReadFrom, SequencedRecord};

use super::{
    super::{
        Failure,
        endpoint::{ReadFault, Remote},
        progress::Progress,
        records::{session, session_fault},
    },
    findings::Findings,
    view::View,
};

/// Records in the first read after a batch that did not open.
const FIRST_COUNT: usize = 128;
/// Records that are asked for one by one, at the same time, where one did not open.
const FIRST_PROBES: u64 = 8;
/// Most of these.
const MAX_PROBES: u64 = 64;

/// When nothing has opened among so many records, others are tried before it goes on.
const MANY: u64 = 4096;

/// One pass through a stream.
pub(super) struct Scan<'a> {
    remote: &'a Remote,
    view: View,
    /// The next sequence number to look at.
    next: u64,
    tail: u64,
    findings: Findings,
    has_checked_key: bool,
    progress: Progress,
}

/// How a try at reading on ended.
enum Ended {
    /// At the tail.
    Tail,
    /// At a batch that does not open.
    Closed,
}

impl<'a> Scan<'a> {
    /// From `start` to before `tail`.
    pub(super) fn new(
        remote: &'a Remote,
        view: View,
        start: u64,
        tail: u64,
        progress: Progress,
    ) -> Self {
        Self {
            remote,
            view,
            next: start,
            tail,
            findings: Findings::default(),
            has_checked_key: false,
            progress,
        }
    }

    /// Reads it all.
    ///
    /// # Errors
    /// When the endpoint fails otherwise than by not opening a record.
    pub(super) async fn run(mut self) -> Result<Findings, Failure> {
        while self.next < self.tail {
            match self.session().await? {
                Ended::Tail => self.next = self.tail,
                Ended::Closed => self.around().await?,
            }
        }
        self.findings.end(self.tail);
        self.progress.finish();
        Ok(self.findings)
    }

    /// Reads on in one session.
    async fn session(&mut self) -> Result<Ended, Failure> {
        let remote = self.remote;
        let mut session = match session(remote, self.next, self.tail).await {
            Ok(session) => session,
            Err(fault) => return ended(fault),
        };
        while let Some(batch) = session.next().await {
            match batch {
                Ok(batch) => self.take(&batch.records),
                Err(error) => return ended(session_fault(remote, &error)),
            }
        }
        Ok(Ended::Tail)
    }

    /// Reads on in halves until the record is found that does not open, and past it; or until a whole read
    /// opens.
    async fn around(&mut self) -> Result<(), Failure> {
        let mut count = FIRST_COUNT;
        while self.next < self.tail {
            match self.remote.read(ReadFrom::SeqNum(self.next), count).await {
                Ok(records) if records.is_empty() => self.next = self.tail,
                Ok(records) => {
                    self.take(&records);
                    if count == FIRST_COUNT {
                        return Ok(());
                    }
                    count *= 2;
                }
                Err(ReadFault::Unwritten) => self.next = self.tail,
                Err(ReadFault::Closed(code)) if count == 1 => {
                    self.close(self.next, &code);
                    self.one_by_one().await?;
                }
                Err(ReadFault::Closed(_)) => count /= 2,
                Err(ReadFault::Failed(failure)) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Asks for the next records one by one until one opens: a range under another key may be long.
    async fn one_by_one(&mut self) -> Result<(), Failure> {
        let mut probes = FIRST_PROBES;
        let mut has_opened = false;
        while self.next < self.tail && !has_opened {
            let asked = self.next..self.tail.min(self.next + probes);
            let remote = self.remote;
            let reads = asked.map(async |at| (at, remote.read(ReadFrom::SeqNum(at), 1).await));
            for (at, read) in join_all(reads).await {
                match read {
                    Ok(records) => {
                        has_opened = true;
                        self.take(&records);
                    }
                    Err(ReadFault::Closed(code)) => self.close(at, &code),
                    Err(ReadFault::Unwritten) => {}
                    Err(ReadFault::Failed(failure)) => return Err(failure),
                }
            }
            probes = MAX_PROBES.min(probes * 2);
            self.check_key().await?;
        }
        Ok(())
    }

    /// Gives up where nothing opens at all: asking for millions of records one by one would take days and
    /// tell no more.
    async fn check_key(&mut self) -> Result<(), Failure> {
        if self.has_checked_key || self.findings.unreadable.count < MANY {
            return Ok(());
        }
        self.has_checked_key = true;
        if self.findings.records > self.findings.unreadable.count {
            return Ok(());
        }
        let (remote, next, left) = (self.remote, self.next, self.tail - self.next);
        let asked = (0..MAX_PROBES).map(|probe| next + left / MAX_PROBES * probe);
        let reads = asked.map(async |at| remote.read(ReadFrom::SeqNum(at), 1).await);
        let is_closed = |read: &Result<_, _>| matches!(read, Err(ReadFault::Closed(_)));
        if join_all(reads).await.iter().all(is_closed) {
            return Err(remote.fault(format!(
                "none of its first {MANY} records decrypts, nor any of {MAX_PROBES} others: is it the \
                 stream's key?"
            )));
        }
        Ok(())
    }

    fn take(&mut self, records: &[SequencedRecord]) {
        for record in records {
            // The same record answers for every number of a gap before it.
            if record.seq_num >= self.next && record.seq_num < self.tail {
                self.next = record.seq_num + 1;
                self.findings.record(&self.view, record);
                let bytes = u64::try_from(record.metered_bytes()).unwrap_or(u64::MAX);
                self.progress.add(1, bytes);
            }
        }
    }

    fn close(&mut self, at: u64, code: &str) {
        if at >= self.next {
            self.next = at + 1;
            self.findings.unreadable(at, reason(code));
            self.progress.add(1, 0);
        }
    }
}

fn ended(fault: ReadFault) -> Result<Ended, Failure> {
    match fault {
        ReadFault::Unwritten => Ok(Ended::Tail),
        ReadFault::Closed(_) => Ok(Ended::Closed),
        ReadFault::Failed(failure) => Err(failure),
    }
}

/// What the endpoint's code says of a record, for people.
fn reason(code: &str) -> &'static str {
    match code {
        "decryption_failed" => "another key, or damaged, or plain",
        _ => "not of the stream's cipher, or the store failed",
    }
}
