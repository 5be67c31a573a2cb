//! `streamseal stream migrate`: a stream copied into another one, without a duplicate or a gap, whatever
//! interrupts it.
//!
//! There is no state file. What the copy holds says how far it is: its tail is the next position, and its
//! newest records must be those of the source before it. Every batch names the sequence number that it must
//! get, so that whatever else appends, or an earlier attempt that took effect late, makes it fail instead of
//! being written twice.

mod compare;
mod copy;
mod place;
mod target;

use std::{path::PathBuf, time::Duration};

use tokio::time::sleep;

use self::{copy::Trouble, place::Place};
use super::{
    Failure,
    endpoint::{Access, ReadFault, Remote},
    print,
    progress::Progress,
};
use crate::{cli::store::stream_path, stream::StreamPath};

/// How often the copy is looked at anew after a failure that may pass, without a record more in between.
const ATTEMPTS: u32 = 6;
/// Wait before the first of these; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The stream to copy, as `s2://basin/stream`.
    #[arg(value_name = "FROM", value_parser = stream_path)]
    from: StreamPath,
    /// The stream to copy it into, as `s2://basin/stream`. It is made if there is none.
    #[arg(value_name = "TO", value_parser = stream_path)]
    to: StreamPath,
    /// Endpoint of FROM [default: `S2_ACCOUNT_ENDPOINT` and `S2_BASIN_ENDPOINT`, or s2.dev].
    #[arg(long, value_name = "URL")]
    from_endpoint: Option<String>,
    /// Endpoint of TO, with the same default.
    #[arg(long, value_name = "URL")]
    to_endpoint: Option<String>,
    /// File with the access token or the API key for FROM.
    #[arg(long, value_name = "FILE")]
    from_token_file: Option<PathBuf>,
    /// File with the access token or the API key for TO.
    #[arg(long, value_name = "FILE")]
    to_token_file: Option<PathBuf>,
    /// File with the key that FROM is encrypted with, as `streamseal keygen` prints one.
    #[arg(long, value_name = "FILE")]
    from_key_file: Option<PathBuf>,
    /// File with the key to encrypt TO with, as `streamseal keygen` prints one.
    #[arg(long, value_name = "FILE", visible_alias = "to-key-file")]
    key_file: Option<PathBuf>,
    /// The cipher that TO must have; nothing is copied if its basin gives it another one. `none` is for an
    /// encrypted stream that is to be stored in clear.
    #[arg(long, value_enum)]
    cipher: Option<target::Wanted>,
    /// Read both streams again at the end, compare every record, and print their hashes.
    #[arg(long)]
    verify: bool,
}

/// Copies the stream and says what became of it on standard output.
///
/// # Errors
/// When an endpoint, a file or a stream is of no use. The next run goes on where this one stopped.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let from = Remote::open(&args.from, access_from(&args))?;
    let to = Remote::open(&args.to, access_to(&args))?;
    if args.from == args.to && args.from_endpoint == args.to_endpoint {
        let same = "FROM and TO are one and the same stream";
        return Err(Failure::Config(same.to_owned()));
    }
    let config = from.config().await?;
    let config = config.ok_or_else(|| from.fault("there is no such stream"))?;
    target::check_source(&from).await?;
    // Proves the key, before anything is made.
    let first = from
        .first()
        .await
        .map_err(|fault| unreadable(&from, fault))?;
    let source_tail = from.tail().await?;
    target::prepare(&from, &to, &config, args.cipher).await?;

    let first = first.map_or(source_tail, |record| record.seq_num);
    let place = place::find(&from, &to, first, source_tail).await?;
    let mut job = Job::new(&from, &to, place, source_tail);
    if place.next < source_tail.saturating_sub(place.offset) {
        target::keep_timestamps(&to).await?;
    }
    job.copy_all().await?;
    target::finish(&to, config).await?;
    job.count().await?;
    print(&job.report())?;
    if args.verify {
        let end = job.place.next;
        print(&compare::run(&from, &to, place.offset, end).await?)?;
    }
    Ok(())
}

/// One copy that is being made.
struct Job<'a> {
    from: &'a Remote,
    to: &'a Remote,
    /// Where it is now.
    place: Place,
    /// Where it was when it began.
    start: u64,
    progress: Progress,
}

impl<'a> Job<'a> {
    fn new(from: &'a Remote, to: &'a Remote, place: Place, source_tail: u64) -> Self {
        let total = source_tail.saturating_sub(place.offset);
        Self {
            from,
            to,
            place,
            start: place.next,
            progress: Progress::new("copying", place.next, total),
        }
    }

    /// Copies until nothing is left, also of what the source got meanwhile.
    async fn copy_all(&mut self) -> Result<(), Failure> {
        let (mut failures, mut pause) = (0, FIRST_PAUSE);
        // What an earlier, killed run sent last may take effect after this one looked.
        let mut is_uncertain = true;
        loop {
            let before = self.place.next;
            let trouble = match self.copy_some().await {
                Ok(true) => return Ok(()),
                Ok(false) => continue,
                Err(trouble) => trouble,
            };
            if self.place.next > before {
                (failures, pause) = (0, FIRST_PAUSE);
            }
            failures += 1;
            match trouble {
                Trouble::Final(failure) => return Err(failure),
                // Once, it may have been a batch of ours of which nothing was known any more.
                Trouble::Taken if !is_uncertain => return Err(self.taken()),
                Trouble::Taken => is_uncertain = false,
                Trouble::Passing(failure) if failures >= ATTEMPTS => return Err(failure),
                Trouble::Passing(_) => is_uncertain = true,
            }
            sleep(pause).await;
            pause *= 2;
            self.place = place::again(self.from, self.to, self.place).await?;
        }
    }

    /// Copies up to the source's tail of now; whether that was reached already.
    async fn copy_some(&mut self) -> Result<bool, Trouble> {
        let tail = self.from.tail().await?;
        let end = tail.saturating_sub(self.place.offset);
        if self.place.next >= end {
            return Ok(true);
        }
        self.progress.expect(end);
        copy::run(self.from, self.to, &mut self.place, end, &mut self.progress).await?;
        Ok(false)
    }

    /// The cheap check at the end: nobody else appended.
    async fn count(&self) -> Result<(), Failure> {
        self.progress.finish();
        match self.to.tail().await? {
            tail if tail == self.place.next => Ok(()),
            _ => Err(self.taken()),
        }
    }

    fn taken(&self) -> Failure {
        self.to.fault(
            "somebody else appends to it, perhaps another migration; this one gives way. Every record \
             of its own is in place: make sure that nobody else appends, and run it again",
        )
    }

    fn report(&self) -> String {
        let (copied, all) = (self.place.next - self.start, self.place.next);
        let mut text = format!("{}: copied {copied} records; it has had {all}", self.to);
        match self.place.offset {
            0 => text.push_str(", with the sequence numbers of the source\n"),
            offset => text.push_str(&format!(": seq_num 0 is seq_num {offset} of the source\n")),
        }
        text
    }
}

/// What keeps the source from being read.
fn unreadable(from: &Remote, fault: ReadFault) -> Failure {
    match fault {
        ReadFault::Failed(failure) => failure,
        ReadFault::Unwritten => from.fault("it has no records"),
        ReadFault::Closed(code) => from.fault(format!(
            "its records do not decrypt ({code}): is --from-key-file the stream's key? \
             `streamseal stream verify` finds the records"
        )),
    }
}

fn access_from(args: &Args) -> Access<'_> {
    Access {
        endpoint: ("--from-endpoint", args.from_endpoint.as_deref()),
        token_file: ("--from-token-file", args.from_token_file.as_deref()),
        key_file: args.from_key_file.as_deref(),
    }
}

fn access_to(args: &Args) -> Access<'_> {
    Access {
        endpoint: ("--to-endpoint", args.to_endpoint.as_deref()),
        token_file: ("--to-token-file", args.to_token_file.as_deref()),
        key_file: args.key_file.as_deref(),
    }
}
