//! `streamseal store …`: looking after the config store while no proxy has it open, or through the proxy
//! that has.

use std::{
    fs::File,
    io::{self, BufReader},
    path::PathBuf,
};

use clap::Subcommand;

use self::remote::Remote;
use super::{ConfigFile, Failure, load, print};
use crate::{
    config::Config,
    keys::FileKey,
    registry::{self, Applied, table::Event},
    store::{self, Embedded, ExportError, ImportError, ImportOptions},
    stream::StreamPath,
};

mod admit;
mod lost;
mod plan;
mod rebuild;
mod remote;
mod upstream;

/// What to do with the config store.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write everything it records to standard output, as lines of JSON without secrets.
    Export(Export),
    /// Make a new config store from an export.
    Import(Import),
    /// Fill it from what the upstream holds: streams whose records are encrypted become encrypted again.
    Rebuild(rebuild::Args),
    /// Forget which key a stream is written with; the next good append or read records its key.
    Unpin(Unpin),
    /// Show streams that were not created through the proxy, and record them as plain.
    Admit(admit::Admit),
    /// Set the cipher that is recorded of a stream.
    SetCipher(admit::SetCipher),
}

#[derive(Debug, clap::Args)]
pub(super) struct Export {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, clap::Args)]
pub(super) struct Import {
    #[command(flatten)]
    file: ConfigFile,
    /// Take an export that is older than the config store that was in use here. `store rebuild` has to
    /// fill its gaps before a proxy runs on it. Keys that were shredded since then are in it again.
    #[arg(long)]
    allow_older: bool,
    /// Take an export that was made without a key, though `store.key_file` is set.
    #[arg(long)]
    unauthenticated: bool,
    /// The key file of the store that was exported, if the new one has another.
    #[arg(long, value_name = "FILE")]
    export_key_file: Option<PathBuf>,
    /// The export; `-` reads standard input.
    #[arg(value_name = "EXPORT")]
    export: PathBuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct Unpin {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    remote: Remote,
    /// The stream, as `basin/stream` or `s2://basin/stream`.
    #[arg(value_name = "STREAM", value_parser = stream_path)]
    stream: StreamPath,
}

/// Runs one of the commands.
///
/// # Errors
/// When the store cannot be used, say because a proxy is running on it, or the upstream cannot be asked.
pub(super) fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Export(args) => match args.remote.listener()? {
            Some(listener) => super::block_on(remote::export(listener)),
            None => export(&load(&args.file)?),
        },
        Command::Import(args) => import(&load(&args.file)?, &args),
        Command::Rebuild(args) => super::block_on(rebuild::run(load(&args.file)?, args)),
        Command::Admit(args) => super::block_on(admit::admit(load(&args.file)?, args)),
        Command::SetCipher(args) => super::block_on(admit::set_cipher(load(&args.file)?, args)),
        Command::Unpin(args) => match args.remote.listener()? {
            Some(listener) => super::block_on(remote::unpin(listener, args.stream)),
            None => super::block_on(unpin(load(&args.file)?, args.stream)),
        },
    }
}

fn export(config: &Config) -> Result<(), Failure> {
    let store = open(config)?;
    Ok(store.export(&mut io::stdout().lock())?)
}

fn import(config: &Config, args: &Import) -> Result<(), Failure> {
    let export_key = args.export_key_file.as_deref().map(FileKey::read);
    let export_key = export_key
        .transpose()
        .map_err(|error| Failure::Other(error.to_string()))?;
    let options = ImportOptions {
        allow_older: args.allow_older,
        unauthenticated: args.unauthenticated,
        export_key: export_key.map(|key| key.key().clone()),
    };
    let imported = if args.export.as_os_str() == "-" {
        Embedded::import(&config.store, io::stdin().lock(), &options)?
    } else {
        let path = args.export.display();
        let export =
            File::open(&args.export).map_err(|e| Failure::Other(format!("{path}: {e}")))?;
        Embedded::import(&config.store, BufReader::new(export), &options)?
    };
    let path = config.store.path.display();
    let store::Imported {
        basins,
        projects,
        streams,
    } = imported;
    let projects = match projects {
        0 => String::new(),
        projects => format!(", and {projects} projects"),
    };
    print(&format!(
        "made config store {path} with {basins} basins and {streams} streams{projects}\n"
    ))?;
    if args.allow_older {
        print(
            "keys that were shredded since this export was made, and API keys that were revoked, are as good in \
             it as they were then: shred and revoke them again\n",
        )?;
    }
    Ok(())
}

async fn unpin(config: Config, path: StreamPath) -> Result<(), Failure> {
    let store = open(&config)?;
    let said = match registry::apply(&store, &path, &Event::Unpinned).await? {
        Applied::Changed { .. } => format!("forgot the key of stream {path}\n"),
        Applied::Unchanged(Some(_)) | Applied::Contradicted(_) => {
            format!("stream {path} has no pinned key\n")
        }
        Applied::Unchanged(None) => {
            return Err(Failure::Other(format!(
                "nothing is recorded of stream {path}"
            )));
        }
    };
    print(&said)
}

/// Opens the store for a command that a running proxy can do as well.
fn open(config: &Config) -> Result<Embedded, Failure> {
    Embedded::open_existing(&config.store).map_err(|error| match error {
        store::Error::Locked(_) => Failure::Other(format!("{error}{}", remote::hint(config))),
        other => other.into(),
    })
}

/// Reads a stream's name as an argument: `basin/stream` or `s2://basin/stream`.
///
/// # Errors
/// Why it is none.
pub(super) fn stream_path(text: &str) -> Result<StreamPath, String> {
    let path = text.strip_prefix("s2://").unwrap_or(text);
    path.parse()
        .map_err(|error: crate::stream::NameError| error.to_string())
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<ImportError> for Failure {
    fn from(error: ImportError) -> Self {
        Self::Other(error.to_string())
    }
}

impl From<ExportError> for Failure {
    fn from(error: ExportError) -> Self {
        Self::Other(error.to_string())
    }
}
