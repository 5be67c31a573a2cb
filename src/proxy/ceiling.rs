//! AES-256-GCM with random nonces allows 2^32 records under one key: a stream of that cipher takes
//! no data record beyond sequence number 2^32 − 1, as in S2.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::StatusCode;
use quick_cache::sync::Cache;

use super::{
    Error,
    call::{Caller, Stop},
};
use crate::{
    crypto::Cipher,
    registry::SealedStream,
    stream::StreamPath,
    upstream::Target,
    wire::{
        json,
        record::{AppendAck, AppendInput, Record},
    },
};

/// The last sequence number that a data record of an AES-256-GCM stream may take (S2's rule).
const LAST_SEQ_NUM: u64 = u32::MAX as u64;

/// Streams whose tail is remembered.
const KNOWN_TAILS: usize = 100_000;

type Tails = Cache<StreamPath, Arc<Tail>>;

/// What is known of the tails of AES-256-GCM streams.
pub struct Ceiling {
    tails: Arc<Tails>,
}

/// Where the next record of a stream may go at the latest: the tail that the upstream told last, and
/// the records on their way.
#[derive(Debug, Default)]
struct Tail(Mutex<Estimate>);

#[derive(Debug, Default)]
struct Estimate {
    tail: u64,
    on_their_way: u64,
    /// How often the tail was moved other than by asking for it.
    moves: u64,
}

/// The ceiling of one stream for one unary append or one session; nothing for a cipher that has none.
/// What it reserved and saw no ack for counts as appended when it is dropped.
pub struct StreamCeiling(Option<Known>);

struct Known {
    path: StreamPath,
    /// The records' path as the client wrote it.
    records: String,
    tail: Arc<Tail>,
    reserved: Mutex<u64>,
    caller: Caller,
    /// Where the tail is forgotten if no ack confirms it: it is taken for 0 because the append goes up only as the
    /// stream's first.
    assumed: Mutex<Option<Arc<Tails>>>,
}

impl Ceiling {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self {
            tails: Arc::new(Cache::new(KNOWN_TAILS)),
        }
    }

    /// Returns the ceiling of a stream. The first time it asks the upstream for the tail, unless the append goes up
    /// only as the stream's first (`is_first`). `records` is the path of the stream's records.
    ///
    /// # Errors
    /// The upstream does not tell the tail: then nothing may be appended.
    pub async fn of(
        &self,
        (stream, is_first): (&SealedStream, bool),
        records: &str,
        caller: &Caller,
    ) -> Result<StreamCeiling, Stop> {
        let path = &stream.path;
        match stream.cipher {
            Cipher::Aegis256 => return Ok(StreamCeiling(None)),
            Cipher::Aes256Gcm => {}
        }
        let known = |tail| Known {
            path: path.clone(),
            records: records.to_owned(),
            tail,
            reserved: Mutex::new(0),
            caller: caller.clone(),
            assumed: Mutex::new(is_first.then(|| Arc::clone(&self.tails))),
        };
        // One asks and the others wait: with a tail each they would not count each other's records.
        let ask = async {
            let first = known(Arc::default());
            if !is_first {
                first.refresh().await?;
            }
            Ok::<_, Stop>(first.tail)
        };
        let tail = self.tails.get_or_insert_async(path, ask).await?;
        Ok(StreamCeiling(Some(known(tail))))
    }
}

impl StreamCeiling {
    /// No ceiling: another key takes over long before one has sealed so much.
    pub fn none() -> Self {
        Self(None)
    }

    /// Takes room for the records of one input.
    ///
    /// # Errors
    /// [`Error::Exhausted`] when a data record could pass the ceiling; whatever the upstream answers
    /// when it has to be asked whether it really would.
    pub async fn reserve(&self, input: &AppendInput) -> Result<(), Stop> {
        let Some(known) = &self.0 else { return Ok(()) };
        let records = input.records();
        let last_data = records
            .iter()
            .rposition(|record| matches!(record.record, Record::Data(_)));
        let data_end = last_data.map_or(0, |at| at as u64 + 1);
        let count = records.len() as u64;
        if known.reserve(count, data_end).is_ok() {
            return Ok(());
        }
        // Appends that failed without effect were counted, too: ask before refusing.
        known.refresh().await?;
        known.reserve(count, data_end).map_err(|attempted| {
            Error::Exhausted {
                limit: LAST_SEQ_NUM,
                attempted,
            }
            .into()
        })
    }

    /// Learns from an ack.
    pub fn learn(&self, ack: &AppendAck) {
        let Some(known) = &self.0 else { return };
        lock(&known.assumed).take();
        // In the order of `Known::reserve`: the two halves of a session do both at once.
        let mut estimate = lock(&known.tail.0);
        let mut reserved = lock(&known.reserved);
        let appended = ack.end.seq_num.saturating_sub(ack.start.seq_num);
        let appended = appended.min(*reserved);
        *reserved -= appended;
        estimate.on_their_way = estimate.on_their_way.saturating_sub(appended);
        estimate.tail = estimate.tail.max(ack.tail.seq_num);
        estimate.moves += 1;
    }
}

impl Drop for StreamCeiling {
    fn drop(&mut self) {
        let Some(known) = &self.0 else { return };
        if let Some(tails) = lock(&known.assumed).take() {
            tails.remove(&known.path);
            return;
        }
        let reserved = *lock(&known.reserved);
        let mut estimate = lock(&known.tail.0);
        estimate.on_their_way = estimate.on_their_way.saturating_sub(reserved);
        estimate.tail = estimate.tail.saturating_add(reserved);
        estimate.moves += 1;
    }
}

impl Known {
    /// Takes room for `count` records of which `data_end` end with the last data record, or tells the
    /// sequence number that would be too high.
    fn reserve(&self, count: u64, data_end: u64) -> Result<(), u64> {
        let mut estimate = lock(&self.tail.0);
        let start = estimate.tail.saturating_add(estimate.on_their_way);
        let last = start.saturating_add(data_end).saturating_sub(1);
        if data_end > 0 && last > LAST_SEQ_NUM {
            return Err(last);
        }
        estimate.on_their_way = estimate.on_their_way.saturating_add(count);
        *lock(&self.reserved) += count;
        Ok(())
    }

    /// Asks the upstream for the tail. A stream that is not there holds nothing: the append may create
    /// it, or hears from the upstream that it does not.
    async fn refresh(&self) -> Result<(), Stop> {
        let target = Target::Basin(&self.path.basin);
        let moves = lock(&self.tail.0).moves;
        let answer = self
            .caller
            .fetch(target, &format!("{}/tail", self.records))
            .await?;
        let tail = match answer.status() {
            StatusCode::OK => {
                let tail = json::decode_tail(answer.body());
                let tail = tail.map_err(|_| Error::Garbage("a tail that does not decode"))?;
                tail.seq_num
            }
            StatusCode::NOT_FOUND => 0,
            _ => return Err(Stop::relay(answer)),
        };
        let mut estimate = lock(&self.tail.0);
        estimate.tail = match estimate.moves == moves {
            true => tail,
            // What was learned meanwhile may be newer than the answer.
            false => estimate.tail.max(tail),
        };
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The numbers stay consistent whoever panics: each is set in one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
