//! `streamseal stream verify`: whether everything in a stream is there and decrypts, and what does not.

mod findings;
mod report;
mod scan;
mod view;

use std::path::PathBuf;

use self::{findings::Findings, report::Report, scan::Scan, view::View};
use super::{
    Failure,
    endpoint::{Access, Remote},
    print,
    progress::Progress,
};
use crate::{cli::store::stream_path, stream::StreamPath};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The stream, as `s2://basin/stream`.
    #[arg(value_name = "STREAM", value_parser = stream_path)]
    stream: StreamPath,
    /// Endpoint to read it from [default: `S2_ACCOUNT_ENDPOINT` and `S2_BASIN_ENDPOINT`, or s2.dev].
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// File with the access token or the API key.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with the stream's key, as `streamseal keygen` prints one. If the endpoint is the store beneath
    /// a proxy, the records are decrypted here.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The store beneath the proxy: adds what its records are, plain or of which cipher and key epoch.
    #[arg(long, value_name = "URL")]
    store_endpoint: Option<String>,
    /// File with the access token for the store.
    #[arg(long, value_name = "FILE", requires = "store_endpoint")]
    store_token_file: Option<PathBuf>,
    /// Report in JSON.
    #[arg(long)]
    json: bool,
}

/// Reads the stream and reports on standard output.
///
/// # Errors
/// When an endpoint or a file is of no use, and when not everything is as it should be.
pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let remote = Remote::open(&args.stream, access(&args))?;
    let found = remote.config().await?;
    found.ok_or_else(|| remote.fault("there is no such stream"))?;
    let cipher = remote.cipher().await?;
    let tail = remote.tail().await?;
    let stored = match &args.store_endpoint {
        Some(endpoint) => Some(look(&args, endpoint, tail).await?),
        None => None,
    };
    // Where a trimmed stream begins is not to be had from reads that all fail.
    let start = stored.as_ref().and_then(|stored| stored.first);
    let view = match &remote.key {
        Some(key) if cipher.is_none() => View::opening(key, &args.stream),
        _ => View::Clear,
    };
    let is_opened_here = !matches!(view, View::Clear);
    let read = read(&remote, view, "reading", start.unwrap_or(0), tail).await?;
    let report = Report {
        stream: remote.to_string(),
        cipher: cipher.map(|cipher| cipher.to_string()),
        is_opened_here,
        tail,
        read,
        stored,
    };
    print(&if args.json {
        report.json()
    } else {
        report.text()
    })?;
    match report.problems().as_slice() {
        [] => Ok(()),
        problems => Err(remote.fault(problems.join("; "))),
    }
}

/// What the store beneath has up to the same tail.
async fn look(args: &Args, endpoint: &str, tail: u64) -> Result<Findings, Failure> {
    let token = args.store_token_file.as_deref();
    let store = Remote::open(
        &args.stream,
        Access {
            endpoint: ("--store-endpoint", Some(endpoint)),
            token_file: ("--store-token-file", token),
            key_file: None,
        },
    )?;
    let found = store.config().await?;
    found.ok_or_else(|| store.fault("there is no such stream at --store-endpoint"))?;
    if store.tail().await? < tail {
        return Err(store.fault("it is shorter at --store-endpoint: that is not its store"));
    }
    read(&store, View::Stored, "looking at the store", 0, tail).await
}

async fn read(
    remote: &Remote,
    view: View,
    doing: &'static str,
    start: u64,
    tail: u64,
) -> Result<Findings, Failure> {
    let progress = Progress::new(doing, 0, tail.saturating_sub(start));
    Scan::new(remote, view, start, tail, progress).run().await
}

fn access(args: &Args) -> Access<'_> {
    Access {
        endpoint: ("--endpoint", args.endpoint.as_deref()),
        token_file: ("--token-file", args.token_file.as_deref()),
        key_file: args.key_file.as_deref(),
    }
}
