//! A config store whose calls are counted and timed.

use std::{io::Write, sync::Arc, time::Instant};

use futures_util::future::BoxFuture;

use super::{
    BasinEntry, Change, Error, ExportError, Holdings, Listed, Page, ProjectEntry, Recorded,
    RecordedBasin, RecordedProject, RulesEntry, Store, StreamEntry, Summary, Versioned,
};
use crate::{
    project::ProjectName,
    stream::{BasinName, StreamPath},
    telemetry::{
        label::{EntryKind, Label as _, StoreOperation, StoreOutcome},
        metrics::{Metrics, StoreCall},
    },
};

/// Any config store, measured. A call that nobody waits for any more is not counted, and neither are those
/// of the admin listener.
pub struct Measured<S> {
    store: S,
    metrics: Arc<Metrics>,
}

impl<S: Store> Measured<S> {
    /// Measures `store` from now on.
    pub fn new(store: S, metrics: Arc<Metrics>) -> Self {
        let measured = Self { store, metrics };
        measured.weigh();
        measured
    }

    fn call(&self, operation: StoreOperation) -> &StoreCall {
        self.metrics.store.calls.of(operation)
    }

    /// How much the store holds now.
    fn weigh(&self) {
        let Holdings {
            bytes,
            basins,
            streams,
            projects,
        } = self.store.holdings();
        let metrics = &self.metrics.store;
        metrics.size.set(signed(bytes));
        for (kind, count) in [
            (EntryKind::Basin, basins),
            (EntryKind::Stream, streams),
            (EntryKind::Project, projects),
        ] {
            let entries = metrics.entries.with_label_values(&[kind.word()]);
            entries.set(signed(count));
        }
    }
}

impl<S: Store> Store for Measured<S> {
    fn basin<'a>(
        &'a self,
        name: &'a BasinName,
    ) -> BoxFuture<'a, Result<Versioned<Arc<BasinEntry>>, Error>> {
        let call = self.call(StoreOperation::Basin);
        Box::pin(measured(call, self.store.basin(name)))
    }

    fn stream<'a>(
        &'a self,
        path: &'a StreamPath,
    ) -> BoxFuture<'a, Result<Versioned<Arc<StreamEntry>>, Error>> {
        let call = self.call(StoreOperation::Stream);
        Box::pin(measured(call, self.store.stream(path)))
    }

    fn project<'a>(
        &'a self,
        name: &'a ProjectName,
    ) -> BoxFuture<'a, Result<Versioned<Arc<ProjectEntry>>, Error>> {
        let call = self.call(StoreOperation::Project);
        Box::pin(measured(call, self.store.project(name)))
    }

    fn projects(&self) -> BoxFuture<'_, Result<Vec<RecordedProject>, Error>> {
        self.store.projects()
    }

    fn rules(&self) -> BoxFuture<'_, Result<Versioned<RulesEntry>, Error>> {
        self.store.rules()
    }

    fn streams_of<'a>(
        &'a self,
        basin: &'a BasinName,
    ) -> BoxFuture<'a, Result<Vec<Recorded>, Error>> {
        let call = self.call(StoreOperation::StreamsOf);
        Box::pin(measured(call, self.store.streams_of(basin)))
    }

    fn commit(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let call = self.call(StoreOperation::Commit);
            let committed = measured(call, self.store.commit(changes)).await;
            self.weigh();
            committed
        })
    }

    fn erase(&self, changes: Vec<Change>) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            let call = self.call(StoreOperation::Erase);
            let erased = measured(call, self.store.erase(changes)).await;
            self.weigh();
            erased
        })
    }

    fn holdings(&self) -> Holdings {
        self.store.holdings()
    }

    fn basins_page(&self, page: Page) -> BoxFuture<'_, Result<Listed<RecordedBasin>, Error>> {
        self.store.basins_page(page)
    }

    fn streams_page(
        &self,
        basin: Option<BasinName>,
        page: Page,
    ) -> BoxFuture<'_, Result<Listed<Recorded>, Error>> {
        self.store.streams_page(basin, page)
    }

    fn summary(&self) -> BoxFuture<'_, Result<Summary, Error>> {
        self.store.summary()
    }

    fn export(&self, out: Box<dyn Write + Send>) -> BoxFuture<'_, Result<(), ExportError>> {
        self.store.export(out)
    }
}

async fn measured<T>(
    call: &StoreCall,
    asking: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let began = Instant::now();
    let answer = asking.await;
    call.duration.observe(began.elapsed().as_secs_f64());
    let outcome = match &answer {
        Ok(_) => StoreOutcome::Ok,
        Err(Error::Conflict(_)) => StoreOutcome::Conflict,
        Err(_) => StoreOutcome::Error,
    };
    call.outcomes.of(outcome).inc();
    answer
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
