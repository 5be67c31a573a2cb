//! The way of one request to its host: connections, attempts, and when there is another attempt.

use std::{sync::Arc, time::Instant};

use futures_util::future::{Either, select};
use http::{Request, Response, uri::PathAndQuery};

use super::{
    Body, Error,
    attempt::{Attempt, Outcome, Payload},
    body::{Exchange, OwnFault},
    connection::Load,
    endpoint::Destination,
    host::{Host, Lane},
    lease::{Lease, Lent},
};
use crate::{
    received::{ReceivedBody, is_violation},
    telemetry::{label::UpstreamFailure, metrics::Metrics},
};

/// Attempts for one request.
const MAX_ATTEMPTS: usize = 3;

/// An answer, with what it holds of its connection.
type Answered = (Response<ReceivedBody>, Lease, Exchange);

/// The host of a request, and what each attempt needs.
pub(super) struct Way {
    pub(super) host: Arc<Host>,
    pub(super) lane: Lane,
    pub(super) to: Destination,
    pub(super) path: PathAndQuery,
    pub(super) own_fault: OwnFault,
    pub(super) metrics: Arc<Metrics>,
}

impl Way {
    /// Sends a request until there is an answer or a failure that counts.
    ///
    /// # Errors
    /// [`Error::Connect`] when nothing was processed, [`Error::Lost`] when something may have been.
    pub(super) async fn send(&self, mut payload: Payload) -> Result<Answered, Error> {
        let (mut newer_than, mut attempt) = (None, 0);
        loop {
            attempt += 1;
            let lent = self.host.lend(self.lane, newer_than).await?;
            let is_last = attempt >= MAX_ATTEMPTS;
            match self.attempt(lent, &mut payload).await? {
                Outcome::Answered(response, lease, exchange) => {
                    return Ok((response, lease, exchange));
                }
                Outcome::Unsent(unsent, _) if !is_last => payload.put_back(unsent),
                Outcome::Unprocessed(error) if !payload.is_unprocessed_by(&error) => {
                    return Err(Error::lost(&self.to, error));
                }
                Outcome::Unprocessed(_) if !is_last && payload.can_repeat() => {}
                // Once: a request that ends connections must not end many.
                Outcome::Doubtful(error)
                    if attempt == 1 && payload.is_safe() && !is_violation(&error) =>
                {
                    self.metrics.upstream.errors.of(UpstreamFailure::Lost).inc();
                }
                Outcome::Unsent(_, error) | Outcome::Unprocessed(error) => {
                    return Err(Error::connect(&self.to, error.to_string()));
                }
                Outcome::Doubtful(error) => return Err(Error::lost(&self.to, error)),
            }
            newer_than = Some(Instant::now());
        }
    }

    /// One attempt, and a second one beside it when the connection of the first is silent and the request only
    /// reads.
    async fn attempt(&self, lent: Lent, payload: &mut Payload) -> Result<Outcome, Error> {
        let Some(request) = payload.next() else {
            return Err(Error::Request("its body was sent before"));
        };
        let load = match &lent {
            Lent::Http2(_, slot) if payload.is_safe() && !payload.may_wait() => {
                Some(Arc::clone(slot.load()))
            }
            _ => None,
        };
        let first = self.start(lent, request);
        match load {
            Some(load) => self.hedged(first, &load, payload).await,
            None => first.await,
        }
    }

    async fn hedged(
        &self,
        mut first: Attempt,
        load: &Load,
        payload: &mut Payload,
    ) -> Result<Outcome, Error> {
        tokio::select! {
            biased;
            outcome = &mut first => return outcome,
            () = load.suspected() => {}
        }
        let Some(request) = payload.next() else {
            return first.await;
        };
        let second = Box::pin(async {
            let lent = self.host.lend(self.lane, None).await?;
            self.start(lent, request).await
        });
        let (outcome, other) = match select(first, second).await {
            Either::Left((outcome, second)) => (outcome, Either::Right(second)),
            Either::Right((outcome, first)) => (outcome, Either::Left(first)),
        };
        match outcome {
            Ok(Outcome::Answered(..)) => outcome,
            _ => other.await,
        }
    }

    fn start(&self, lent: Lent, request: Request<Body>) -> Attempt {
        let way = (self.to.clone(), self.path.clone());
        Attempt::start(lent, way, request, self.own_fault.clone())
    }
}
