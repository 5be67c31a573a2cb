//! `streamseal stream rotate-key` and `stream shred`: a stream's managed keys, through the admin listener of the running
//! proxy.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{Failure, print, remote::KeyedOrOperator, store::stream_path, tell};
use crate::stream::StreamPath;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct RotateKey {
    #[command(flatten)]
    keyed: KeyedOrOperator,
    /// The stream, as `s2://basin/stream` or `basin/stream`.
    #[arg(value_name = "STREAM", value_parser = stream_path)]
    stream: StreamPath,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Shred {
    #[command(flatten)]
    keyed: KeyedOrOperator,
    /// Shred only the key epochs before this one, which stays with all that follow it.
    #[arg(long, value_name = "EPOCH")]
    before: Option<u32>,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    /// The stream, as `s2://basin/stream` or `basin/stream`.
    #[arg(value_name = "STREAM", value_parser = stream_path)]
    stream: StreamPath,
}

#[derive(Deserialize)]
struct Rotated {
    from: Option<u32>,
    to: u32,
}

/// Gives a stream a new data key.
///
/// # Errors
/// The proxy cannot be asked, or refuses.
pub(super) async fn rotate(args: RotateKey) -> Result<(), Failure> {
    let order =
        json!({ "basin": args.stream.basin.as_str(), "stream": args.stream.stream.as_str() });
    let listener = args.keyed.listener()?;
    let rotated: Rotated = listener.order("/api/streams/rotate-key", &order).await?;
    let (stream, to) = (&args.stream, rotated.to);
    print(&match rotated.from {
        Some(from) => format!("stream {stream} goes from key epoch {from} to {to}\n"),
        None => format!("stream {stream} has its first key, epoch {to}\n"),
    })
}

/// Destroys a stream's data keys, if whoever asks means it.
///
/// # Errors
/// Nobody confirms it; the proxy cannot be asked, or refuses.
pub(super) async fn shred(args: Shred) -> Result<(), Failure> {
    let listener = args.keyed.listener()?;
    if !args.yes {
        confirm(&args)?;
    }
    let order = json!({
        "basin": args.stream.basin.as_str(),
        "stream": args.stream.stream.as_str(),
        "before": args.before,
    });
    let certificate: Value = listener.order("/api/streams/shred", &order).await?;
    let text = serde_json::to_string_pretty(&certificate);
    print(&format!(
        "{}\n",
        text.map_err(|error| listener.failed(&error))?
    ))
}

/// Asks whoever sits at the terminal for the stream's name.
fn confirm(args: &Shred) -> Result<(), Failure> {
    let name = args.stream.to_string();
    if !io::stdin().is_terminal() {
        let message = "nobody to ask: shredding cannot be undone, and --yes says that it is meant";
        return Err(Failure::Config(message.to_owned()));
    }
    let what = match args.before {
        Some(before) => format!("the records of stream {name} from before key epoch {before}"),
        None => format!("all records of stream {name}"),
    };
    tell(&format!(
        "this makes {what} unreadable for everybody, for ever; type the stream's name, {name}, to go on:"
    ));
    io::stderr().lock().flush()?;
    let mut line = String::new();
    io::stdin().read_line(&mut line)?;
    match line.trim() == name {
        true => Ok(()),
        false => Err(Failure::Other("nothing was shredded".to_owned())),
    }
}
