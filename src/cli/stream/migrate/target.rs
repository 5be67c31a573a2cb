//! The stream that is copied into: made if need be, checked for its cipher, and configured.

use s2_sdk::types::{
    CreateStreamInput, DeleteOnEmptyConfig, EncryptionAlgorithm, EnsureStreamInput,
    ReconfigureStreamInput, StreamConfig, StreamReconfiguration, TimestampingConfig,
    TimestampingMode, TimestampingReconfiguration,
};

use super::super::{
    Failure,
    endpoint::{Remote, code, shown},
};
use crate::crypto::Cipher;

/// What `--cipher` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Wanted {
    /// AEGIS-256.
    #[value(name = "aegis-256")]
    Aegis256,
    /// AES-256-GCM.
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
    /// No encryption at all.
    None,
}

impl Wanted {
    fn cipher(self) -> Option<Cipher> {
        match self {
            Self::Aegis256 => Some(Cipher::Aegis256),
            Self::Aes256Gcm => Some(Cipher::Aes256Gcm),
            Self::None => None,
        }
    }
}

/// Checks that a key is given only for a stream that is encrypted.
///
/// # Errors
/// When it is not: most likely the endpoint is not the one that was meant.
pub(super) async fn check_source(from: &Remote) -> Result<(), Failure> {
    if from.key.is_some() && from.cipher().await?.is_none() {
        return Err(from.fault(
            "--from-key-file is given, but it is not encrypted as this endpoint sees it: is \
             --from-endpoint the store beneath the proxy?",
        ));
    }
    Ok(())
}

/// Makes the stream if there is none, and checks its cipher.
///
/// # Errors
/// When it cannot be made, or would not be encrypted as it should.
pub(super) async fn prepare(
    from: &Remote,
    to: &Remote,
    config: &StreamConfig,
    wanted: Option<Wanted>,
) -> Result<(), Failure> {
    let cipher = match to.config().await? {
        Some(_) => to.cipher().await?,
        None => create(to, while_copying(config)).await?,
    };
    let cipher = cipher.map(known);
    let is = cipher.map_or("not encrypted".to_owned(), |cipher| {
        format!("encrypted with {cipher}")
    });
    let advice = "a stream gets the `stream_cipher` that its basin has when it is made: set that, delete \
                  this one, and start again. Nothing was copied";
    match wanted.map(Wanted::cipher) {
        Some(wanted) if wanted != cipher => {
            Err(to.fault(format!("it is {is}, against --cipher; {advice}")))
        }
        // What the operator believes to be encrypted must not end up in clear.
        _ if cipher.is_none() && to.key.is_some() => {
            Err(to.fault(format!("--key-file is given, but it is {is}; {advice}")))
        }
        None if cipher.is_none() && from.cipher().await?.is_some() => Err(to.fault(format!(
            "it is {is}, and {from} is. To store its records in clear, say --cipher none; or else {advice}"
        ))),
        _ => Ok(()),
    }
}

/// Makes the stream; its cipher. One that is there by now is taken as it is.
async fn create(to: &Remote, config: StreamConfig) -> Result<Option<EncryptionAlgorithm>, Failure> {
    let name = to.path.stream.as_str().parse();
    let name = name.map_err(|error| Failure::Config(shown(&error)))?;
    let input = CreateStreamInput::new(name).with_config(config);
    match to.basin.create_stream(input).await {
        Ok(info) => Ok(info.cipher),
        Err(error) if code(&error) == Some("resource_already_exists") => to.cipher().await,
        Err(error) => Err(to.failed("create", &error)),
    }
}

fn known(cipher: EncryptionAlgorithm) -> Cipher {
    match cipher {
        EncryptionAlgorithm::Aegis256 => Cipher::Aegis256,
        EncryptionAlgorithm::Aes256Gcm => Cipher::Aes256Gcm,
    }
}

/// The source's configuration, but for what would change or lose records while they are copied: their
/// timestamps are taken as they are, and an empty stream is not deleted.
fn while_copying(config: &StreamConfig) -> StreamConfig {
    let timestamping = TimestampingConfig::new()
        .with_mode(TimestampingMode::ClientRequire)
        .with_uncapped(true);
    config
        .clone()
        .with_timestamping(timestamping)
        .with_delete_on_empty(DeleteOnEmptyConfig::new())
}

/// Has the stream take timestamps as they are: an existing one may not.
///
/// # Errors
/// When the endpoint refuses.
pub(super) async fn keep_timestamps(to: &Remote) -> Result<(), Failure> {
    let timestamping = TimestampingReconfiguration::new()
        .with_mode(TimestampingMode::ClientRequire)
        .with_uncapped(true);
    let name = to.path.stream.as_str().parse();
    let name = name.map_err(|error| Failure::Config(shown(&error)))?;
    let change = StreamReconfiguration::new().with_timestamping(timestamping);
    let input = ReconfigureStreamInput::new(name, change);
    let changed = to.basin.reconfigure_stream(input).await;
    changed
        .map(drop)
        .map_err(|error| to.failed("configure", &error))
}

/// Puts the source's configuration in force.
///
/// # Errors
/// When the endpoint refuses.
pub(super) async fn finish(to: &Remote, config: StreamConfig) -> Result<(), Failure> {
    let name = to.path.stream.as_str().parse();
    let name = name.map_err(|error| Failure::Config(shown(&error)))?;
    let input = EnsureStreamInput::new(name).with_config(config);
    let done = to.basin.ensure_stream(input).await;
    done.map(drop)
        .map_err(|error| to.failed("configure", &error))
}
