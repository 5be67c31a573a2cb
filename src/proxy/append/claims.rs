//! The claims of one append session: before an input goes up, its key is the stream's, or becomes it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
};

use crate::{
    crypto::KeyCheck,
    proxy::{
        Error,
        call::{Caller, Stop},
    },
    registry::{self, Access, Claim, Lookup, Purpose, Registry, SealedStream},
    wire::record::AppendInput,
};

/// What a session knows of its stream and its key.
pub(super) struct SessionClaims {
    registry: Arc<Registry>,
    caller: Caller,
    stream: SealedStream,
    /// The commitment to the session's key; `None` when keys are not checked.
    check: Option<KeyCheck>,
    /// Changes of the config store at the last look.
    looked_at: u64,
    /// The claim of an earlier input, and the key that it is for.
    earlier: Option<(Arc<AtomicBool>, Option<KeyCheck>)>,
}

impl SessionClaims {
    pub(super) fn new(
        registry: &Arc<Registry>,
        caller: &Caller,
        stream: SealedStream,
        check: Option<KeyCheck>,
    ) -> Self {
        Self {
            registry: Arc::clone(registry),
            caller: caller.clone(),
            stream,
            check,
            // What it was looked up at is not known: the first input looks again.
            looked_at: u64::MAX,
            earlier: None,
        }
    }

    /// Takes the right to send an input; `None` where nothing is to be recorded. Looks again when the config store
    /// changed.
    ///
    /// # Errors
    /// [`registry::Error::WrongKey`] when another key is the stream's, [`registry::Error::OtherIncarnation`] when
    /// the stream is another one, the store's, the upstream's.
    pub(super) async fn claim(&mut self, input: &AppendInput) -> Result<Option<Claim>, Stop> {
        let check = self.check.filter(|_| input.has_data());
        if let Some((settled, of)) = &self.earlier
            && !settled.load(SeqCst)
            && (check.is_none() || check == *of)
        {
            // It fails with the earlier input, or is stored after it.
            return Ok(None);
        }
        let changes = self.registry.changes();
        if self.looked_at != changes {
            match self.look(input).await {
                // A store that fails has no news: what it said before still stands.
                Err(Stop::Error(Error::Store(_))) if self.stream.is_ready(check) => {}
                looked => {
                    looked?;
                    self.looked_at = changes;
                }
            }
        }
        if self.stream.is_ready(check) {
            return Ok(None);
        }
        let claim = self.registry.claim(&self.stream, check, &self.caller);
        let claim = claim.await.map_err(Stop::before_sending)?;
        self.earlier = Some((claim.settled(), check));
        // What it recorded is seen at the next look.
        self.looked_at = u64::MAX;
        Ok(Some(claim))
    }

    async fn look(&mut self, input: &AppendInput) -> Result<(), Stop> {
        let path = &self.stream.path;
        if let Some(stream) = self.registry.refreshed(&self.stream).await? {
            self.stream = stream;
            return Ok(());
        }
        let stream = match self.registry.lookup(path).await? {
            Lookup::Found(Access::Sealed(stream)) => stream,
            Lookup::FirstUse(stream) if input.may_be_first() => stream,
            Lookup::FirstUse(_) => {
                let how = (Purpose::Append, None);
                let settled = self.registry.settle(path, how, &self.caller).await;
                match settled.map_err(Stop::before_sending)? {
                    Access::Sealed(stream) => stream,
                    Access::Plain(_) => return Err(self.is_another()),
                }
            }
            Lookup::Found(Access::Plain(_)) | Lookup::Unsettled => return Err(self.is_another()),
        };
        if stream.cipher != self.stream.cipher || stream.data_keys().is_some() {
            return Err(self.is_another());
        }
        self.stream = stream;
        Ok(())
    }

    fn is_another(&self) -> Stop {
        registry::Error::OtherIncarnation(self.stream.path.clone()).into()
    }
}
