//! `--verify`: both streams read again, and every record compared.

use s2_sdk::types::{MeteredBytes as _, SequencedRecord};

use super::{
    super::{
        Failure,
        endpoint::Remote,
        hash::RunningHash,
        progress::Progress,
        records::{Reader, moved, same},
    },
    place::unreadable_copy,
    unreadable,
};

/// Compares what both have up to position `end` of the copy; says what it found.
///
/// # Errors
/// When they differ, or cannot be read.
pub(super) async fn run(
    from: &Remote,
    to: &Remote,
    offset: u64,
    end: u64,
) -> Result<String, Failure> {
    let source_first = from
        .first()
        .await
        .map_err(|fault| unreadable(from, fault))?;
    let copy_first = to
        .first()
        .await
        .map_err(|fault| unreadable_copy(to, fault))?;
    let (Some(source_first), Some(copy_first)) = (source_first, copy_first) else {
        return Ok("verified: there is no record left to compare\n".to_owned());
    };
    // Trims take effect a little later on one side than on the other.
    let start = copy_first
        .seq_num
        .max(source_first.seq_num.saturating_sub(offset));
    let source = Reader::new(from, start + offset, end + offset);
    let copy = Reader::new(to, start, end);
    let mut progress = Progress::new("verifying", 0, end.saturating_sub(start));
    let mut hashes = [start + offset, start].map(RunningHash::new);
    let mut pairs = Pairs { source, copy };
    while let Some([original, copied]) = pairs.next(from, to).await? {
        for (hash, record) in hashes.iter_mut().zip([&original, &copied]) {
            add(hash, record);
        }
        let seq_num = copied.seq_num;
        progress.add(1, u64::try_from(copied.metered_bytes()).unwrap_or(u64::MAX));
        if !same(&moved(original, offset), &copied) {
            return Err(to.fault(format!(
                "seq_num {seq_num} is not what {from} has: this is no copy"
            )));
        }
    }
    progress.finish();
    report(&hashes, from, to)
}

/// Both streams, side by side.
struct Pairs<'a> {
    source: Reader<'a>,
    copy: Reader<'a>,
}

impl Pairs<'_> {
    async fn next(
        &mut self,
        from: &Remote,
        to: &Remote,
    ) -> Result<Option<[SequencedRecord; 2]>, Failure> {
        let (original, copied) = tokio::join!(self.source.next(), self.copy.next());
        let original = original.map_err(|fault| unreadable(from, fault))?;
        let copied = copied.map_err(|fault| unreadable_copy(to, fault))?;
        Ok(original.zip(copied).map(<[SequencedRecord; 2]>::from))
    }
}

fn add(hash: &mut RunningHash, record: &SequencedRecord) {
    hash.add(
        record.seq_num,
        record.timestamp,
        &record.headers,
        &record.body,
    );
}

fn report(hashes: &[RunningHash; 2], from: &Remote, to: &Remote) -> Result<String, Failure> {
    let [source, copy] = hashes;
    let lines = [(source, from), (copy, to)].map(|(hash, remote)| {
        let (records, hash) = (hash.records(), hash.hex());
        format!("{hash}  {records} records  {remote}\n")
    });
    if (source.records(), source.hex()) != (copy.records(), copy.hex()) {
        return Err(to.fault(format!("counts or hashes differ: {}", lines.concat())));
    }
    Ok(format!("verified: both are the same\n{}", lines.concat()))
}
