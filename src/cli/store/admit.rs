//! `streamseal store admit` and `store set-cipher`: the operator's word on streams that the config store does not
//! know, or knows wrongly.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Deserialize;

use super::{
    super::{ConfigFile, Failure, print, remote::Listener, table},
    plan::look,
    remote::Remote,
    stream_path, upstream,
};
use crate::{
    config::Config,
    registry::{self, Applied, table::Event},
    store::{Embedded, Origin, Store as _, StreamEntry},
    stream::{BasinName, StreamPath},
};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Admit {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    #[command(flatten)]
    remote: Remote,
    #[command(flatten)]
    upstream: upstream::Access,
    /// Show what the upstream has and the config store does not know, and record nothing. Plain streams that the
    /// store knows are shown with how they got there.
    #[arg(long)]
    list: bool,
    /// Admit without asking.
    #[arg(long, conflicts_with = "list")]
    yes: bool,
    /// The basin, and what the names of the streams start with: `s2://basin` or `s2://basin/prefix`.
    #[arg(value_name = "BASIN[/PREFIX]", value_parser = scope)]
    scope: Scope,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct SetCipher {
    #[command(flatten)]
    pub(super) file: ConfigFile,
    #[command(flatten)]
    remote: Remote,
    /// The stream, as `basin/stream` or `s2://basin/stream`.
    #[arg(value_name = "STREAM", value_parser = stream_path)]
    stream: StreamPath,
    /// `aegis-256`, `aes-256-gcm`, or `none` for a plain stream.
    #[arg(value_name = "CIPHER")]
    cipher: crate::registry::rules::RuleCipher,
}

/// Streams of one basin.
#[derive(Debug, Clone)]
struct Scope {
    basin: BasinName,
    prefix: String,
}

fn scope(text: &str) -> Result<Scope, String> {
    let text = text.strip_prefix("s2://").unwrap_or(text);
    let (basin, prefix) = text.split_once('/').unwrap_or((text, ""));
    Ok(Scope {
        basin: basin.parse().map_err(|error| format!("{error}"))?,
        prefix: prefix.to_owned(),
    })
}

/// What the config store says of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Known {
    Unknown,
    Plain,
    Encrypted,
}

impl Known {
    fn of(entry: Option<&StreamEntry>) -> Self {
        match entry.map(|entry| entry.state.cipher()) {
            None => Self::Unknown,
            Some(None) => Self::Plain,
            Some(Some(_)) => Self::Encrypted,
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    before: Known,
    #[serde(default)]
    origin: Option<Origin>,
    #[serde(default)]
    changed: bool,
}

/// The config store, through the proxy that has it open or by itself.
enum Target {
    Store(Embedded),
    Proxy(Listener),
}

impl Target {
    fn open(config: &Config, remote: &Remote) -> Result<Self, Failure> {
        Ok(match remote.listener()? {
            Some(listener) => Self::Proxy(listener),
            None => Self::Store(super::open(config)?),
        })
    }

    /// What is recorded of a stream.
    async fn known(&self, path: &StreamPath) -> Result<Answer, Failure> {
        match self {
            Self::Proxy(listener) => {
                let order = serde_json::json!({
                    "basin": path.basin.as_str(), "stream": path.stream.as_str(), "dry_run": true,
                });
                listener.order("/api/streams/admit", &order).await
            }
            Self::Store(store) => {
                let found = store.stream(path).await?;
                Ok(Answer {
                    before: Known::of(found.entry.as_deref()),
                    origin: found.entry.map(|entry| entry.origin),
                    changed: false,
                })
            }
        }
    }

    /// Whether the stream is recorded as plain now and was not before.
    async fn admit(&self, path: &StreamPath, created_at: &str) -> Result<bool, Failure> {
        match self {
            Self::Proxy(listener) => {
                let order = serde_json::json!({
                    "basin": path.basin.as_str(), "stream": path.stream.as_str(), "created_at": created_at,
                });
                let answer: Answer = listener.order("/api/streams/admit", &order).await?;
                Ok(answer.changed)
            }
            Self::Store(store) => {
                let created_at = created_at.to_owned();
                let applied = registry::apply(store, path, &Event::Admitted { created_at }).await?;
                Ok(matches!(applied, Applied::Changed { .. }))
            }
        }
    }

    async fn set_cipher(&self, args: &SetCipher) -> Result<bool, Failure> {
        let path = &args.stream;
        match self {
            Self::Proxy(listener) => {
                let order = serde_json::json!({
                    "basin": path.basin.as_str(), "stream": path.stream.as_str(), "cipher": args.cipher,
                });
                let answer: Answer = listener.order("/api/streams/set-cipher", &order).await?;
                Ok(answer.changed)
            }
            Self::Store(store) => {
                let cipher = args.cipher.cipher();
                let applied = registry::apply(store, path, &Event::CipherSet { cipher }).await?;
                Ok(matches!(applied, Applied::Changed { .. }))
            }
        }
    }
}

/// Lists the streams that the upstream has and the config store does not know, asks, and records them as plain.
///
/// # Errors
/// The upstream or the config store cannot be asked, or the answer is not "yes".
pub(super) async fn admit(config: Config, args: Admit) -> Result<(), Failure> {
    let upstream = args.upstream.open(config.clone())?;
    let target = Target::open(&config, &args.remote)?;
    let Scope { basin, prefix } = &args.scope;
    let mut rows = Vec::new();
    let mut plain = Vec::new();
    for found in upstream::streams_with(&upstream, basin, prefix).await? {
        let known = target.known(&found.path).await?;
        let look = look(&found);
        let state = match known.before {
            Known::Unknown => "unknown",
            Known::Plain if args.list => "plain",
            Known::Plain | Known::Encrypted => continue,
        };
        let tail = upstream::tail(&upstream, &found.path).await?;
        rows.push(table::Row::of([
            found.path.stream.as_str(),
            &found.created_at,
            &tail.to_string(),
            look.name(),
            state,
            known.origin.map_or("", origin_name),
        ]));
        if known.before == Known::Unknown && !look.is_sealed() {
            plain.push(found);
        }
    }
    let head = [
        "STREAM",
        "CREATED",
        "TAIL",
        "RECORDS LOOK",
        "STORE",
        "ORIGIN",
    ];
    print(&table::text(table::Row::of(head), rows))?;
    if args.list {
        return Ok(());
    }
    if plain.is_empty() {
        return print(
            "no stream to admit: streams whose records look encrypted are never admitted\n",
        );
    }
    if !args.yes {
        confirm(plain.len(), basin)?;
    }
    for found in plain {
        let path = &found.path;
        match target.admit(path, &found.created_at).await? {
            true => print(&format!("admitted stream {path} as plain\n"))?,
            false => print(&format!(
                "stream {path} was recorded since: left as it is\n"
            ))?,
        }
    }
    Ok(())
}

fn confirm(count: usize, basin: &BasinName) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Other(
            "nothing was admitted: standard input is no terminal to ask on; add --yes".to_owned(),
        ));
    }
    print(&format!(
        "records of these {count} streams of basin {basin} will go up in clear; admit them? [y/N] "
    ))?;
    io::stdout()
        .flush()
        .map_err(|error| Failure::Other(error.to_string()))?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::Other(error.to_string()))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::Other("nothing was admitted".to_owned())),
    }
}

fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Created => "created",
        Origin::AutoCreated => "auto-created",
        Origin::Declared => "declared",
        Origin::Seen => "seen",
        Origin::Admitted => "admitted",
        Origin::Rebuilt => "rebuilt",
    }
}

/// Sets the cipher of a stream.
///
/// # Errors
/// The config store cannot be asked.
pub(super) async fn set_cipher(config: Config, args: SetCipher) -> Result<(), Failure> {
    let target = Target::open(&config, &args.remote)?;
    let (path, cipher) = (&args.stream, args.cipher.cipher());
    let cipher = cipher.map_or("none", |cipher| cipher.as_str());
    match target.set_cipher(&args).await? {
        true => print(&format!(
            "stream {path} has cipher {cipher} now; records of before still decrypt with their key\n"
        )),
        false => print(&format!("stream {path} has cipher {cipher} already\n")),
    }
}
