//! Where a copy stands: found from what the copy and its source hold, and from nothing else.

use std::ops::Range;

use futures_util::StreamExt as _;
use s2_sdk::types::{ReadFrom, ReadInput, ReadSessionConfig, ReadStart, ReadStop, SequencedRecord};

use super::{
    super::{
        Failure,
        endpoint::{ReadFault, Remote},
        records::{Reader, moved, same, session_fault},
    },
    unreadable,
};

/// How many of the copy's newest records, and of its oldest, are compared before anything is added. One tells
/// how far the copy is; the others tell a copy from a stream that only looks like one.
const COMPARED: u64 = 100;
/// Most places that are tried in a source that has lost its head.
const MAX_TRIED: usize = 16;

/// Where a copy stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// What the source's sequence numbers are higher by: the seq_num of the first record that was copied.
    pub(super) offset: u64,
    /// The copy's next sequence number.
    pub(super) next: u64,
}

/// Finds it. `first` is the oldest sequence number that the source still has, `tail` its tail.
///
/// # Errors
/// When the copy holds records that are not the source's, or when nobody can tell.
pub(super) async fn find(
    from: &Remote,
    to: &Remote,
    first: u64,
    tail: u64,
) -> Result<Place, Failure> {
    let next = to.tail().await?;
    if next == 0 {
        return Ok(Place {
            offset: first,
            next,
        });
    }
    if first == 0 {
        let place = Place { offset: 0, next };
        return match compare(from, to, place, first, tail).await? {
            Compared::Same => Ok(place),
            Compared::Other => Err(foreign(from, to)),
            Compared::Nothing => Err(untold(to)),
        };
    }
    // The source has no beginning any more, and where the copy's is, only its records tell.
    let read = to.read(ReadFrom::SeqNum(next - 1), 1).await;
    let newest = match read {
        Ok(records) => records.into_iter().next().ok_or_else(|| untold(to))?,
        Err(ReadFault::Unwritten) => return Err(untold(to)),
        Err(fault) => return Err(unreadable_copy(to, fault)),
    };
    let mut found = None;
    for offset in offsets(from, &newest, first).await? {
        let place = Place { offset, next };
        if compare(from, to, place, first, tail).await? == Compared::Same
            && found.replace(place).is_some()
        {
            return Err(untold(to));
        }
    }
    found.ok_or_else(|| foreign(from, to))
}

/// Finds it once more in the same run, after a failure: the offset is known.
///
/// # Errors
/// As [`find`].
pub(super) async fn again(from: &Remote, to: &Remote, was: Place) -> Result<Place, Failure> {
    let next = to.tail().await?;
    let place = Place { next, ..was };
    if next == was.next {
        return Ok(place);
    }
    let first = from.first().await;
    let first = first.map_err(|fault| unreadable(from, fault))?;
    let tail = from.tail().await?;
    let first = first.map_or(tail, |record| record.seq_num);
    match compare(from, to, place, first, tail).await? {
        Compared::Same => Ok(place),
        Compared::Other => Err(foreign(from, to)),
        Compared::Nothing => Err(untold(to)),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Compared {
    Same,
    Other,
    /// No record is in both.
    Nothing,
}

/// Compares the oldest and the newest records that both have, as they would be with the copy in this place.
async fn compare(
    from: &Remote,
    to: &Remote,
    place: Place,
    first: u64,
    tail: u64,
) -> Result<Compared, Failure> {
    let Place { offset, next } = place;
    if next.saturating_add(offset) > tail {
        return Ok(Compared::Other);
    }
    let oldest = to
        .first()
        .await
        .map_err(|fault| unreadable_copy(to, fault))?;
    let Some(oldest) = oldest.map(|record| record.seq_num.max(first.saturating_sub(offset))) else {
        return Ok(Compared::Nothing);
    };
    if oldest >= next {
        return Ok(Compared::Nothing);
    }
    let head = oldest..next.min(oldest + COMPARED);
    let newest = next.saturating_sub(COMPARED).max(head.end)..next;
    for range in [head, newest] {
        if !is_copied(from, to, range, offset).await? {
            return Ok(Compared::Other);
        }
    }
    Ok(Compared::Same)
}

/// Whether this range of the copy is what the source has in the same place.
async fn is_copied(
    from: &Remote,
    to: &Remote,
    range: Range<u64>,
    offset: u64,
) -> Result<bool, Failure> {
    let mut source = Reader::new(from, range.start + offset, range.end + offset);
    let mut copy = Reader::new(to, range.start, range.end);
    while let Some(record) = copy
        .next()
        .await
        .map_err(|fault| unreadable_copy(to, fault))?
    {
        let original = source.next().await;
        let original = original.map_err(|fault| unreadable(from, fault))?;
        if !original.is_some_and(|original| same(&moved(original, offset), &record)) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Every offset at which `newest` would be the copy of a record of the source.
async fn offsets(from: &Remote, newest: &SequencedRecord, first: u64) -> Result<Vec<u64>, Failure> {
    let mut stop = ReadStop::new();
    let after = newest.timestamp.checked_add(1);
    stop.until = after.map(|after| ..after);
    let input = ReadInput::new()
        .with_start(ReadStart::new().with_from(ReadFrom::Timestamp(newest.timestamp)))
        .with_stop(stop.with_wait(0));
    let session = from
        .stream
        .read_session(input, ReadSessionConfig::new())
        .await;
    let mut session = match session.map_err(|error| session_fault(from, &error)) {
        Ok(session) => session,
        Err(ReadFault::Unwritten) => return Ok(Vec::new()),
        Err(fault) => return Err(unreadable(from, fault)),
    };
    let mut found = Vec::new();
    while let Some(batch) = session.next().await {
        let batch = batch.map_err(|error| unreadable(from, session_fault(from, &error)))?;
        for record in batch.records {
            let offset = record.seq_num.checked_sub(newest.seq_num);
            // The copy began with the first record of then, which is not after the first of now.
            let Some(offset) = offset.filter(|offset| *offset <= first) else {
                continue;
            };
            if same(&moved(record, offset), newest) {
                found.push(offset);
            }
        }
        if found.len() > MAX_TRIED {
            return Err(from.fault(
                "it has lost its head since the copy began, and too many of its records are alike to tell \
                 how far the copy is: delete the copy, and start again",
            ));
        }
    }
    Ok(found)
}

fn foreign(from: &Remote, to: &Remote) -> Failure {
    to.fault(format!(
        "it holds records that are not those of {from} in the same place: nothing was copied"
    ))
}

fn untold(to: &Remote) -> Failure {
    to.fault(
        "it has had records, but what is left of them does not tell how far it is a copy: delete it, and \
         start again",
    )
}

/// What keeps the copy from being read.
pub(super) fn unreadable_copy(to: &Remote, fault: ReadFault) -> Failure {
    match fault {
        ReadFault::Failed(failure) => failure,
        ReadFault::Unwritten => untold(to),
        ReadFault::Closed(code) => to.fault(format!(
            "the records that it has do not decrypt ({code}), so nothing was copied: is --key-file the \
             stream's key?"
        )),
    }
}
