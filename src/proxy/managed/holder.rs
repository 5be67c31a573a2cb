//! Who can unwrap a stream's data keys: whoever brings the project's master key, or a key management service.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    clock,
    crypto::{Cipher, Dek, DekPlace, NO_PROJECT, StreamCipher},
    keys::kms::{self, Kms},
    project::ProjectName,
    proxy::{Error, gate::Pass},
    store::{Change, DataKey, Holder, ProjectEntry, Revision, Sealing, Store, WrappedKey},
    stream::{StreamId, StreamPath},
};

/// Who can unwrap the data keys of one stream, as one request came to it.
#[derive(Debug, Clone)]
pub enum KeyHolder {
    /// The API key that the request came in with: it is of the stream's project.
    Project(Arc<Pass>),
    /// The key management service of the configuration.
    Kms(Kms),
}

impl KeyHolder {
    /// As the config store records it.
    pub fn recorded(&self) -> Holder {
        match self {
            Self::Project(pass) => Holder::Project(pass.project.name.clone()),
            Self::Kms(_) => Holder::Kms,
        }
    }

    /// Whether it can unwrap anything at all, before anything is asked of the upstream.
    ///
    /// # Errors
    /// [`Error::NoMasterKey`] for an API key without its project's master key.
    pub fn check(&self) -> Result<(), Error> {
        match self {
            Self::Project(pass) => pass.master().map(|_| ()),
            // What it can is known when it is asked.
            Self::Kms(_) => Ok(()),
        }
    }

    /// What seals and opens the records of one epoch.
    ///
    /// # Errors
    /// [`Error::NoMasterKey`] without the master key that wrapped it, [`Error::DataKey`] when what comes out is
    /// certainly not the stream's key, [`Error::KeyShredded`] when there is nothing to unwrap any more, and
    /// [`Error::Kms`] when the service says no or nothing.
    pub async fn unwrap(
        &self,
        store: &dyn Store,
        path: &StreamPath,
        cipher: Cipher,
        key: &DataKey,
    ) -> Result<StreamCipher, Error> {
        let id = path.id();
        let place = self.place(&id, key.epoch);
        let wrapped = key.wrapped.as_ref().ok_or(Error::KeyShredded)?;
        let dek = match (self, wrapped) {
            (Self::Project(pass), WrappedKey::Master { mk_epoch, wrapped }) => {
                let entry = project_entry(store, pass).await?;
                let master = pass.master_at(*mk_epoch, &entry)?;
                master.key.unwrap_dek(&place, *mk_epoch, wrapped)
            }
            (Self::Kms(kms), WrappedKey::Kms { key: under, blob }) => {
                let blob = STANDARD.decode(blob).map_err(|_| not_base64())?;
                let dek = kms.unwrap(under, &blob, path, key.epoch).await?;
                Some(Dek::from_key(dek))
            }
            (Self::Project(_), WrappedKey::Kms { .. })
            | (Self::Kms(_), WrappedKey::Master { .. }) => None,
        };
        let dek = dek.filter(|dek| dek.commit(&place) == key.commit);
        let dek = dek.ok_or_else(|| Error::DataKey(path.clone()))?;
        Ok(StreamCipher::of_epoch(
            cipher,
            &dek.record_key(&place),
            id,
            key.epoch,
        ))
    }

    /// What a new data key is to be wrapped in. To be had before the stream's entry is read: see `Wrapping`.
    ///
    /// # Errors
    /// The config store's; [`Error::NoMasterKey`] when there is no such project any more.
    pub async fn wrapping(&self, store: &dyn Store) -> Result<Wrapping, Error> {
        Ok(Wrapping(match self {
            Self::Project(pass) => {
                let name = pass.project.name.clone();
                let row = store.project(&name).await?;
                Some((name, row.revision, row.entry.ok_or(Error::NoMasterKey)?))
            }
            Self::Kms(_) => None,
        }))
    }

    /// A new data key for a stream, wrapped. `sealed` of it is reserved with it.
    ///
    /// # Errors
    /// [`Error::NoMasterKey`] without the project's newest master key, [`Error::NoRandomness`], [`Error::Kms`].
    pub async fn make(
        &self,
        wrapping: &Wrapping,
        path: &StreamPath,
        epoch: u32,
        sealed: Sealing,
    ) -> Result<DataKey, Error> {
        let id = path.id();
        let place = self.place(&id, epoch);
        let dek = Dek::generate().map_err(Error::NoRandomness)?;
        let wrapped = match (self, &wrapping.0) {
            (Self::Project(pass), Some((_, _, entry))) => {
                let master = pass.newest(entry)?;
                WrappedKey::Master {
                    mk_epoch: master.epoch,
                    wrapped: master.key.wrap_dek(&place, master.epoch, &dek),
                }
            }
            (Self::Project(_), None) => return Err(Error::NoMasterKey),
            (Self::Kms(kms), _) => {
                let made = kms.make(dek.key(), path, epoch).await?;
                let blob = STANDARD.encode(made.blob);
                WrappedKey::Kms {
                    key: made.key,
                    blob,
                }
            }
        };
        Ok(DataKey {
            epoch,
            commit: dek.commit(&place),
            wrapped: Some(wrapped),
            created_at: clock::now_ms(),
            shredded_at: None,
            sealed,
            first_seq_num: None,
        })
    }

    fn place<'a>(&'a self, stream: &'a StreamId, epoch: u32) -> DekPlace<'a> {
        let project = match self {
            Self::Project(pass) => pass.project.name.as_str(),
            Self::Kms(_) => NO_PROJECT,
        };
        DekPlace {
            project,
            stream,
            epoch,
        }
    }
}

/// What a new data key is wrapped in, as it stood when that was asked. The key is recorded only if it still
/// stands: a master key that was replaced meanwhile opens nothing any more.
pub struct Wrapping(Option<(ProjectName, Revision, Arc<ProjectEntry>)>);

impl Wrapping {
    /// The condition under which a key that is wrapped so may be recorded.
    pub fn condition(&self) -> Option<Change> {
        let (name, expected, entry) = self.0.as_ref()?;
        let (name, expected) = (name.clone(), *expected);
        // Whoever is about to replace the master key must not overlook this key.
        Some(match entry.replacing {
            true => Change::Project {
                name,
                expected,
                entry: Some(ProjectEntry {
                    replacing: false,
                    ..ProjectEntry::clone(entry)
                }),
            },
            false => Change::SameProject { name, expected },
        })
    }

    /// What was recorded of the project.
    pub fn project(&self) -> Option<&Arc<ProjectEntry>> {
        self.0.as_ref().map(|(_, _, entry)| entry)
    }
}

/// What is recorded of the project, which may have changed since the API key was let in.
async fn project_entry(store: &dyn Store, pass: &Pass) -> Result<Arc<ProjectEntry>, Error> {
    let found = store.project(&pass.project.name).await?;
    found.entry.ok_or(Error::NoMasterKey)
}

fn not_base64() -> kms::Error {
    kms::Error::InvalidCiphertext("what is recorded is not base64".into())
}
