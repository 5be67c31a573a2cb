//! Records of plain streams: what may pass in clear, and what of it is logged and counted.

use http::HeaderMap;
use quick_cache::sync::Cache;

use super::{
    Error, Proxy,
    call::{Caller, Stop},
};
use crate::{
    keys::{KEY_HEADER, OnPlain},
    registry::{PlainBy, PlainStream},
    store::PlainStreams,
    stream::{BasinName, StreamPath},
};

/// Basins and streams of which the first plain request was logged.
const LOGGED: usize = 10_000;

/// What the proxy does about plain traffic.
pub(super) struct PlainTraffic {
    on_plain: OnPlain,
    basins: Cache<BasinName, ()>,
    unknown: Cache<StreamPath, ()>,
}

impl PlainTraffic {
    pub(super) fn new(on_plain: OnPlain) -> Self {
        Self {
            on_plain,
            basins: Cache::new(LOGGED),
            unknown: Cache::new(LOGGED),
        }
    }
}

impl Proxy {
    /// Makes sure that records of a plain stream may pass in clear for this request. Called by everything that
    /// forwards records as they are.
    ///
    /// # Errors
    /// [`Error::PlainRefused`] where only rules make streams plain, [`Error::KeyOnPlain`] for a client that takes
    /// the stream for encrypted.
    pub(super) fn allow_plain(
        &self,
        path: &StreamPath,
        proof: &PlainStream,
        headers: &HeaderMap,
    ) -> Result<(), Error> {
        let records = &self.metrics.records;
        let is_refused = self.registry.rules().plain_streams() == PlainStreams::Refuse;
        if is_refused && proof.by() != PlainBy::Rule {
            return Err(Error::PlainRefused(path.clone()));
        }
        if headers.contains_key(KEY_HEADER) {
            records.key_on_plain.inc();
            tracing::warn!(stream = %path, "a client sends a key for a stream that is not encrypted");
            if self.plain.on_plain == OnPlain::Refuse {
                return Err(Error::KeyOnPlain(path.clone()));
            }
        }
        if proof.by() == PlainBy::Unknown && self.plain.unknown.get(path).is_none() {
            self.plain.unknown.insert(path.clone(), ());
            tracing::warn!(
                stream = %path,
                "unknown stream in a basin with a cipher passes in clear: store.unknown_streams = \"plain\""
            );
        }
        Ok(())
    }

    /// Counts an append that passes in clear. The first of each basin is logged.
    pub(super) fn count_plain(&self, path: &StreamPath) {
        self.metrics.records.plain_appends.inc();
        let basins = &self.plain.basins;
        if basins.get(&path.basin).is_none() {
            basins.insert(path.basin.clone(), ());
            tracing::info!(basin = %path.basin, stream = %path, "records of this basin pass in clear");
        }
    }

    /// Whether a client that sends a key means another stream than the recorded plain one: S2 removed that, and its
    /// name is free for an encrypted one.
    ///
    /// # Errors
    /// The upstream's, the store's.
    pub(super) async fn is_replaced_plain(
        &self,
        path: &StreamPath,
        proof: &PlainStream,
        (headers, caller): (&HeaderMap, &Caller),
    ) -> Result<bool, Stop> {
        let may_be = proof.by() == PlainBy::Entry && headers.contains_key(KEY_HEADER);
        if !may_be {
            return Ok(false);
        }
        let replaced = self.registry.is_replaced(path, caller).await;
        replaced.map_err(Stop::before_sending)
    }
}
