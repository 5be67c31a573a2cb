//! A stream as an ordinary client of its endpoint reaches it, through S2's own SDK.

use std::{fmt, num::NonZeroU32, path::Path, time::Duration};

use s2_sdk::{
    S2, S2Basin, S2Stream,
    error::{ReadError, RequestError},
    types::{
        AppendRetryPolicy, EncryptionAlgorithm, EncryptionKey, ListStreamsInput, ReadFrom,
        ReadInput, ReadLimits, ReadStart, ReadStop, RetryConfig, S2Config, S2Endpoints,
        SequencedRecord, StreamConfig,
    },
};

use super::Failure;
use crate::{crypto::Key, file, keys::FileKey, stream::StreamPath};

/// What S2's tools read their endpoints from.
const ENDPOINT_VARIABLES: [&str; 2] = ["S2_ACCOUNT_ENDPOINT", "S2_BASIN_ENDPOINT"];
/// Sent where no token is given, because the SDK sends one always; S2-lite takes any.
const NO_TOKEN: &str = "ignored";
/// Longest wait for an answer, or for an acknowledgement of a batch (as S2's own command line has it).
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a request is made that fails for a reason that may pass.
const ATTEMPTS: NonZeroU32 = NonZeroU32::new(5).unwrap();
/// Longest part of an endpoint's own words that is shown, in characters.
const MAX_SHOWN: usize = 300;

/// Where a stream's endpoint is and what it is told, as the command line has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Access<'a> {
    /// Address, and the option that gave it.
    pub(super) endpoint: (&'static str, Option<&'a str>),
    /// File with the access token, and the option that named it.
    pub(super) token_file: (&'static str, Option<&'a Path>),
    /// File with the stream's key.
    pub(super) key_file: Option<&'a Path>,
}

/// One stream at its endpoint.
pub(super) struct Remote {
    pub(super) path: StreamPath,
    pub(super) basin: S2Basin,
    pub(super) stream: S2Stream,
    /// The key that is sent with appends and reads.
    pub(super) key: Option<Key>,
}

/// Why records could not be read.
#[derive(Debug)]
pub(super) enum ReadFault {
    /// There is nothing at this position yet.
    Unwritten,
    /// The endpoint cannot open a record of this batch: the code that it gave.
    Closed(String),
    /// Anything else.
    Failed(Failure),
}

impl Remote {
    /// Reads the files and makes the client. Nothing is sent yet.
    ///
    /// # Errors
    /// A file or an address that is of no use.
    pub(super) fn open(path: &StreamPath, access: Access<'_>) -> Result<Self, Failure> {
        let key = access.key_file.map(FileKey::read).transpose();
        let key = key.map_err(|error| Failure::Config(error.to_string()))?;
        let key = key.map(|key| key.key().clone());
        let config = S2Config::new(token(access.token_file)?)
            .with_endpoints(endpoints(access.endpoint)?)
            .with_request_timeout(PATIENCE)
            .with_retry(
                RetryConfig::new()
                    .with_max_attempts(ATTEMPTS)
                    // What may have been written is looked at and not sent once more.
                    .with_append_retry_policy(AppendRetryPolicy::NoSideEffects),
            );
        let client = S2::new(config).map_err(|error| Failure::Other(shown(&error)))?;
        let basin = client.basin(name(path.basin.as_str())?);
        let mut stream = basin.stream(name(path.stream.as_str())?);
        if let Some(key) = &key {
            let sent: EncryptionKey = key
                .to_base64()
                .parse()
                .map_err(|_| Failure::Config("the key does not fit a header".to_owned()))?;
            stream = stream.with_encryption_key(sent);
        }
        Ok(Self {
            path: path.clone(),
            basin,
            stream,
            key,
        })
    }

    /// The stream's configuration; nothing when there is no such stream. Never makes the stream, as
    /// reading it could.
    ///
    /// # Errors
    /// When the endpoint does not say.
    pub(super) async fn config(&self) -> Result<Option<StreamConfig>, Failure> {
        let name = name(self.path.stream.as_str())?;
        match self.basin.get_stream_config(name).await {
            Ok(config) => Ok(Some(config)),
            Err(error) if code(&error) == Some("stream_not_found") => Ok(None),
            Err(error) => Err(self.failed("ask for", &error)),
        }
    }

    /// The cipher that the endpoint says the stream is encrypted with.
    ///
    /// # Errors
    /// When the endpoint does not say.
    pub(super) async fn cipher(&self) -> Result<Option<EncryptionAlgorithm>, Failure> {
        let prefix = self.path.stream.as_str();
        // The name itself comes first of all that begin with it.
        let input = ListStreamsInput::new().with_prefix(name(prefix)?);
        let page = self.basin.list_streams(input.with_limit(1)).await;
        let page = page.map_err(|error| self.failed("look up the cipher of", &error))?;
        let found = page.values.first();
        match found.filter(|found| &*found.name == prefix) {
            Some(found) => Ok(found.cipher),
            None => Err(self.fault("there is no such stream")),
        }
    }

    /// The sequence number that the next record gets.
    ///
    /// # Errors
    /// When the endpoint does not say.
    pub(super) async fn tail(&self) -> Result<u64, Failure> {
        match self.stream.check_tail().await {
            Ok(tail) => Ok(tail.seq_num),
            Err(error) => Err(self.failed("find the tail of", &error)),
        }
    }

    /// The first record that is still there.
    ///
    /// # Errors
    /// [`ReadFault`], but for a stream without records.
    pub(super) async fn first(&self) -> Result<Option<SequencedRecord>, ReadFault> {
        match self.read(ReadFrom::SeqNum(0), 1).await {
            Ok(records) => Ok(records.into_iter().next()),
            Err(ReadFault::Unwritten) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// At most `count` records from there on, in one answer.
    ///
    /// # Errors
    /// [`ReadFault`].
    pub(super) async fn read(
        &self,
        from: ReadFrom,
        count: usize,
    ) -> Result<Vec<SequencedRecord>, ReadFault> {
        let input = input(from, count);
        match self.stream.read(input).await {
            Ok(batch) => Ok(batch.records),
            Err(error) => Err(self.read_fault(&error)),
        }
    }

    /// What a failed read means.
    pub(super) fn read_fault(&self, error: &ReadError) -> ReadFault {
        match error {
            ReadError::ReadUnwritten(_) => ReadFault::Unwritten,
            error => match error.request_error().and_then(code) {
                // S2 says `storage` of a record that is not of the stream's cipher.
                Some(code @ ("decryption_failed" | "storage")) => {
                    ReadFault::Closed(code.to_owned())
                }
                _ => ReadFault::Failed(self.failed("read", error)),
            },
        }
    }

    /// One line on what could not be done with this stream.
    pub(super) fn failed(&self, doing: &str, error: &dyn fmt::Display) -> Failure {
        Failure::Other(format!("cannot {doing} {self}: {}", shown(error)))
    }

    /// One line on what is wrong with this stream.
    pub(super) fn fault(&self, what: impl fmt::Display) -> Failure {
        Failure::Other(format!("{self}: {what}"))
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Shown(&self.path).to_string())
    }
}

/// A stream's address as people may see it: what a terminal would act on is escaped.
pub(super) struct Shown<'a>(pub(super) &'a StreamPath);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s2://{}", escaped(&self.0.to_string()))
    }
}

/// A read from there on, of at most `count` records, that does not wait for more.
pub(super) fn input(from: ReadFrom, count: usize) -> ReadInput {
    ReadInput::new()
        .with_start(ReadStart::new().with_from(from))
        .with_stop(ReadStop::new().with_limits(ReadLimits::new().with_count(count)))
}

/// The code of an endpoint's own error.
pub(super) fn code(error: &RequestError) -> Option<&str> {
    Some(error.server_error()?.code.as_str())
}

/// Somebody else's words, made fit for one line of a terminal.
pub(super) fn shown(words: &dyn fmt::Display) -> String {
    let words = escaped(&words.to_string());
    match words.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", words.get(..end).unwrap_or_default()),
        None => words,
    }
}

fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A name that was checked already, as the SDK has it.
fn name<N: std::str::FromStr<Err: fmt::Display>>(name: &str) -> Result<N, Failure> {
    name.parse()
        .map_err(|error: N::Err| Failure::Config(shown(&error)))
}

fn token((option, file): (&str, Option<&Path>)) -> Result<String, Failure> {
    let Some(path) = file else {
        return Ok(NO_TOKEN.to_owned());
    };
    let text = file::read(option, path).map_err(Failure::Config)?;
    let token = text.trim_ascii();
    match str::from_utf8(token) {
        Ok(text) if !text.is_empty() && token.iter().all(u8::is_ascii_graphic) => {
            Ok(text.to_owned())
        }
        _ => {
            let path = path.display();
            Err(Failure::Config(format!(
                "{option}: {path} does not hold one token"
            )))
        }
    }
}

/// The endpoint that was asked for, else the ones in the environment, else s2.dev's.
fn endpoints((option, endpoint): (&str, Option<&str>)) -> Result<S2Endpoints, Failure> {
    let is_set = |variable: &&str| std::env::var_os(variable).is_some();
    let (given, source) = match endpoint {
        Some(endpoint) => (
            S2Endpoints::for_endpoint(endpoint.trim_end_matches('/')),
            option,
        ),
        None if ENDPOINT_VARIABLES.iter().any(is_set) => (S2Endpoints::from_env(), "environment"),
        None => return Ok(S2Endpoints::for_cloud()),
    };
    given.map_err(|error| Failure::Config(format!("{source}: {}", shown(&error))))
}

#[cfg(test)]
mod tests {
    use super::{MAX_SHOWN, shown};

    #[test]
    fn what_others_say_is_one_short_line() {
        assert_eq!(shown(&"a\u{1b}[2Jb\nc \u{e9}"), "a\\u{1b}[2Jb\\nc \u{e9}");
        let long = shown(&"\u{e9}".repeat(MAX_SHOWN + 1));
        assert_eq!(long.chars().count(), MAX_SHOWN + 1);
    }
}
