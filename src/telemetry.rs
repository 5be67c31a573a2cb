//! What the process tells of itself: logs, where they go and what can never be in them; metrics, the audit
//! log, traces.

pub mod audit;
pub mod label;
pub mod metrics;
mod rarely;
pub mod recent;
pub mod report;
pub mod request_id;
pub mod sinks;
pub mod traces;

use std::io::{self, IsTerminal};

use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer, Registry, filter::filter_fn, fmt::MakeWriter, layer::SubscriberExt,
    registry::LookupSpan, util::SubscriberInitExt,
};

/// Environment variable with the log filter, in `tracing`'s directive syntax.
pub const FILTER_VARIABLE: &str = "STREAMSEAL_LOG";
/// The filter where none is given.
pub const DEFAULT_FILTER: &str = "info";

/// Libraries that log header blocks, frames or handshakes below `info`: the encryption key of every
/// request would be in the log. No filter can turn those events on.
const CAPPED: [&str; 6] = [
    "h2",
    "hyper",
    "hyper_rustls",
    "hyper_util",
    "rustls",
    "tokio_rustls",
];
/// What the libraries of the AWS SDK start with. They log whole requests and answers, data keys included.
const CAPPED_PREFIX: &str = "aws_";

/// The form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines to read.
    Text,
    /// One JSON object per line.
    Json,
    /// Text on a terminal, JSON otherwise.
    #[default]
    Auto,
}

/// Why logging cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not in `tracing`'s directive syntax.
    #[error("{FILTER_VARIABLE}: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something in this process logs already.
    #[error("logging is already on: {0}")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends this process's log to standard error. `filter` is what [`FILTER_VARIABLE`] holds.
///
/// # Errors
///
/// When the filter cannot be parsed, or logging was initialised before.
pub fn init(format: LogFormat, filter: Option<&str>) -> Result<(), Error> {
    let terminal = io::stderr().is_terminal();
    let lines = match format {
        LogFormat::Text => Lines::Text { colours: terminal },
        LogFormat::Auto if terminal => Lines::Text { colours: true },
        LogFormat::Auto | LogFormat::Json => Lines::Json,
    };
    let filter = filter.unwrap_or(DEFAULT_FILTER).parse()?;
    subscriber(lines, filter, io::stderr).try_init()?;
    Ok(())
}

enum Lines {
    Text { colours: bool },
    Json,
}

fn subscriber<W>(lines: Lines, filter: EnvFilter, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    Registry::default()
        .with(filter)
        .with(filter_fn(is_harmless))
        .with(formatted(lines, writer))
}

fn formatted<S, W>(lines: Lines, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // It would complain of a log that cannot be written in that very log, and panic.
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .log_internal_errors(false);
    match lines {
        Lines::Text { colours } => layer.with_ansi(colours).boxed(),
        Lines::Json => layer.json().flatten_event(true).boxed(),
    }
}

/// Returns the text of an error and of its causes, from the outermost to the innermost.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

/// The text with its control characters escaped: names and messages from elsewhere may hold anything, line
/// ends included.
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => printable.extend(c.escape_default()),
            false => printable.push(c),
        }
    }
    printable
}

/// The beginning of a text, of at most this many bytes, cut between two characters.
pub fn bounded(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

fn is_harmless(metadata: &Metadata<'_>) -> bool {
    let library = metadata.target().split("::").next().unwrap_or_default();
    // Levels order from the loudest down: ERROR is the least.
    let is_capped = CAPPED.contains(&library) || library.starts_with(CAPPED_PREFIX);
    !is_capped || *metadata.level() <= Level::INFO
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(lines: Lines, filter: &str, events: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = subscriber(lines, filter.parse().unwrap(), move || writer.clone());
        with_default(subscriber, events);
        String::from_utf8(written.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn no_filter_turns_on_libraries_that_log_headers() {
        let text = logged(
            Lines::Text { colours: false },
            "trace,h2=trace,h2::codec::framed_write=trace,hyper::proto=debug,rustls=trace",
            || {
                tracing::trace!(target: "h2::codec::framed_write", "secret");
                tracing::debug!(target: "hyper::proto::h1", "secret");
                tracing::debug!(target: "rustls::conn", "secret");
                tracing::trace!(target: "aws_smithy_runtime::client::orchestrator", "secret");
                tracing::warn!(target: "h2::proto", "seen");
                tracing::trace!(target: "streamseal::proxy", "seen too");
                tracing::trace!(target: "h2other", "seen as well");
            },
        );
        assert!(!text.contains("secret"), "{text}");
        assert_eq!(text.matches("seen").count(), 3, "{text}");
    }

    #[test]
    fn json_is_one_object_per_line() {
        let text = logged(Lines::Json, "info", || {
            tracing::info!(basin = "b", "first");
            tracing::debug!("not this one");
        });
        let line: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
        assert_eq!(line["message"], "first");
        assert_eq!(line["basin"], "b");
    }
}
