//! Append sessions of sealed streams: inputs go up sealed, acks come down one for each input.
//!
//! An input that does not fit upstream goes up in parts. Each part waits for the ack of the one before
//! it, for it must follow right after it, and later inputs wait for the last; the client sees one ack.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use crate::received::ReceivedBody;
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::{
    sync::{
        Notify,
        mpsc::{self, error::TrySendError},
        oneshot,
    },
    task::JoinHandle,
    time::timeout,
};

use super::{APPEND_TIMEOUT, claims::SessionClaims, confirm, session_or_refusal};
use crate::{
    body::{
        Acks, Answer, Budget, Charge, Cutoff, InputError, Inputs, MAX_UNUSED, Meter, SealedBody,
        SealedSender,
    },
    drain::Drain,
    project::Scope,
    proxy::{
        Error, Proxy,
        call::{Caller, Stop, had_no_effect},
        ceiling::StreamCeiling,
        control::unsupported_encoding,
        exchange::Exchange,
        gate::Tenure,
        managed::{Keyring, Lease, Sealer, Sealing},
        respond::{self, Asked},
    },
    registry::{Access, Claim, Creating, Purpose, Registry},
    store::Origin,
    stream::StreamPath,
    upstream::{Body, BoxError, ResponseBody},
    wire::{
        compression::RequestEncoding,
        media::Media,
        proto,
        record::{AppendAck, AppendInput, Fit, Position, SealedInput},
        s2s::{self, Compression},
    },
};

/// Acks that may wait for the client in one session, beyond what HTTP keeps for it. An ack is some 50 bytes.
const QUEUED_ACKS: usize = 128;

impl Proxy {
    /// An append session to a stream that is not known to be plain.
    pub(super) async fn append_session(
        &self,
        path: StreamPath,
        request: Request<ReceivedBody>,
        caller: &Caller,
        asked: &Asked,
    ) -> Result<Response<Body>, Stop> {
        let access = self
            .append_access(&path, None, request.headers(), caller)
            .await?;
        let mut stream = match access {
            Access::Sealed(stream) => stream,
            Access::Plain(proof) => {
                return self
                    .forward_append(proof, path, request, caller, asked)
                    .await;
            }
        };
        if RequestEncoding::from_headers(request.headers()) != Ok(RequestEncoding::Identity) {
            // Frames are compressed one by one; a session is not compressed as a whole.
            return Err(unsupported_encoding());
        }
        let by = (Purpose::Append, request.headers());
        let keys = self.keys(&mut stream, by, caller, &asked.exchange).await?;
        let check = self.claimed(&keys);
        let mut sealer = keys.sealer();
        sealer.begin().await?;
        let compression = Compression::from_accept_encoding(request.headers());
        let (mut parts, incoming) = request.into_parts();
        let cutoff = parts.extensions.remove::<Cutoff>();
        let uri = parts.uri.path();
        let first = stream.is_first_use();
        let is_new = !stream.is_recorded();
        let ceiling = (&stream, first);
        let ceiling = self.ceiling(ceiling, &sealer, uri, caller).await?;
        let tenure = self.tenure(caller, Scope::Append, &path);
        let (body, sender) = SealedBody::session();
        let opened = async {
            let response = self.send_sealed(&path, parts, Media::S2s, body).await?;
            session_or_refusal(&self.upstream, response).await
        };
        let response = match first || is_new {
            true => self.opened_first((&path, first), caller, opened).await?,
            false => opened.await?,
        };
        let claims = sealer
            .is_own()
            .then(|| SessionClaims::new(&self.registry, caller, stream, check));
        let shared = Arc::new(Shared {
            failure: OnceLock::new(),
            exchange: Arc::clone(&asked.exchange),
            ceiling,
            expected: Mutex::default(),
            late: Notify::new(),
        });
        let uplink = Uplink {
            inputs: Inputs::new(incoming, self.budget.sending()),
            sealer,
            claims,
            fit: self.fit,
            meter: self.meter(&path),
            shared: Arc::clone(&shared),
            drain: self.drain.clone(),
            tenure: tenure.clone(),
        };
        let session = Session {
            acks: Acks::new(response.into_body(), self.budget.sending()),
            shared,
            compression,
            split: None,
            registry: Arc::clone(&self.registry),
            keyring: Arc::clone(&self.keyring),
            drain: self.drain.clone(),
            tenure,
            _uplink: AbortOnDrop(tokio::spawn(uplink.run(sender))),
        };
        // What is written to a client is not polled while it takes nothing: the acks are read by a task.
        let (frames, taken) = mpsc::channel(QUEUED_ACKS);
        let downlink = session.run(frames, self.budget.clone(), cutoff);
        let downlink = AbortOnDrop(tokio::spawn(downlink));
        let frames = stream::unfold(Some((taken, downlink)), |session| async {
            let (mut taken, downlink) = session?;
            // A task that is gone without a last word is no clean end.
            let next = taken.recv().await;
            let (frame, more) = next.unwrap_or_else(|| (Err(Error::Broken.into()), false));
            let frame = frame.transpose()?.map(Frame::data);
            Some((frame, more.then_some((taken, downlink))))
        });
        Ok(asked.session(Media::S2s, StreamBody::new(frames).boxed_unsync()))
    }
}

impl Proxy {
    /// Opens the session of a stream's first append, one after the other. Where no rule gives the stream its cipher
    /// (`intends`), the intent to create it is durable before the upstream hears of it.
    async fn opened_first(
        &self,
        (path, intends): (&StreamPath, bool),
        caller: &Caller,
        opened: impl Future<Output = Result<Response<ResponseBody>, Stop>>,
    ) -> Result<Response<ResponseBody>, Stop> {
        let _turn = self.registry.turn(path).await?;
        if !intends {
            return opened.await;
        }
        let creation = self.registry.begin(path, Origin::AutoCreated).await?;
        let opened = opened.await;
        if let Err(stop) = &opened
            && stop.had_no_effect()
        {
            self.registry
                .finish(creation, &Creating::Refused, caller)
                .await?;
        }
        opened
    }
}

/// One input of the client's, with what it takes of the budget; nothing at its end.
type NextInput = Result<Option<(AppendInput, Option<Charge>)>, InputError>;

/// The next frame for the client, and whether another may follow. An error breaks the response off; it
/// never ends it cleanly.
type Next = (Result<Option<Bytes>, BoxError>, bool);

/// What both halves of a session know.
struct Shared {
    /// Why the client's half ended early.
    failure: OnceLock<Stop>,
    exchange: Arc<Exchange>,
    ceiling: StreamCeiling,
    /// What was sent and is not acked.
    expected: Mutex<VecDeque<Expected>>,
    /// The ack of a part did not come in time.
    late: Notify,
}

/// One upstream batch on its way.
struct Expected {
    records: u64,
    has_data: bool,
    part: Option<Part>,
    /// While it is on its way, the key that it is under is not shredded.
    lease: Option<Arc<Lease>>,
    /// Its key is not the stream's yet, or nothing upstream is known to be the stream.
    claim: Option<Claim>,
}

/// What is held until an input is acked.
struct Held {
    lease: Option<Arc<Lease>>,
    claim: Option<Claim>,
    charge: Option<Charge>,
}

/// It is one of several that are one input.
struct Part {
    is_last: bool,
    acked: oneshot::Sender<Position>,
}

impl Shared {
    fn expect(&self, batch: &SealedInput, part: Option<Part>, held: Held) {
        self.expected().push_back(Expected {
            records: batch.records().len() as u64,
            has_data: batch.has_data(),
            part,
            lease: held.lease,
            claim: held.claim,
        });
    }

    /// The lease of the next batch to be acked, if any of it is sealed.
    fn first_with_data(&self) -> Option<Arc<Lease>> {
        let expected = self.expected();
        let next = expected.front().filter(|next| next.has_data)?;
        next.lease.clone()
    }

    /// The claim of the next batch to be acked.
    fn first_claim(&self) -> Option<Claim> {
        self.expected().front_mut()?.claim.take()
    }

    /// The claim of anything that is not acked.
    fn any_claim(&self) -> Option<Claim> {
        let mut expected = self.expected();
        expected.iter_mut().find_map(|next| next.claim.take())
    }

    fn expected(&self) -> MutexGuard<'_, VecDeque<Expected>> {
        // A queue is whole whoever panics.
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client's half of a session.
struct Uplink {
    inputs: Inputs,
    sealer: Sealer,
    /// None for managed keys, which are recorded before they seal.
    claims: Option<SessionClaims>,
    fit: Fit,
    meter: Meter,
    shared: Arc<Shared>,
    drain: Drain,
    tenure: Tenure,
}

impl Uplink {
    /// Decodes, seals and sends until there is no more, or something is wrong, or the drain is over, or its API
    /// key is. What is wrong is told after the acks of everything before it: so a drain that is over promises rightly
    /// that nothing happened of what has no ack. Dropping the sender without finishing it resets the
    /// upstream's stream.
    async fn run(mut self, sender: SealedSender) {
        let stop = loop {
            let next = match self.next().await {
                Ok(next) => next,
                Err(over) => break over.into(),
            };
            match next {
                Ok(Some((input, charge))) => match self.seal(&input, charge).await {
                    Ok((parts, held)) => {
                        drop(input);
                        if self.send(&sender, parts, held).await.is_none() {
                            return;
                        }
                    }
                    Err(stop) => break stop,
                },
                Ok(None) => return sender.finish().await,
                Err(InputError::Decode(error)) => break Error::Decode(error).into(),
                Err(InputError::Slow) => break Error::SlowClient.into(),
                Err(InputError::NoRoom) => break Error::Busy.into(),
                Err(InputError::Broken(_)) => return self.shared.exchange.left(),
            }
        };
        self.shared.exchange.stopped(&stop);
        let _first = self.shared.failure.set(stop);
        sender.finish().await;
    }

    /// The client's next input, or why it does not count any more.
    async fn next(&mut self) -> Result<NextInput, Error> {
        if self.drain.is_over() {
            return Err(Error::Draining);
        }
        if let Some(ended) = self.tenure.ended() {
            return Err(ended);
        }
        tokio::select! {
            biased;
            next = next(&mut self.inputs, &mut self.sealer) => Ok(next),
            () = self.drain.over() => Err(Error::Draining),
            ended = self.tenure.over() => Err(ended),
        }
    }

    async fn seal(
        &mut self,
        input: &AppendInput,
        charge: Option<Charge>,
    ) -> Result<(Vec<SealedInput>, Held), Stop> {
        let Sealing { cipher, lease } = self.sealer.take(input).await?;
        let sealed = self.meter.seal(input, &cipher, self.fit);
        let sealed = sealed.map_err(Error::from)?;
        let reserved = self.shared.ceiling.reserve(input).await;
        reserved.map_err(Stop::before_sending)?;
        let claim = match &mut self.claims {
            Some(claims) => claims.claim(input).await?,
            None => None,
        };
        Ok((
            sealed,
            Held {
                lease,
                claim,
                charge,
            },
        ))
    }

    /// Sends the parts of one input; `None` when the session is over. The last one takes the charge along.
    async fn send(
        &self,
        sender: &SealedSender,
        parts: Vec<SealedInput>,
        mut held: Held,
    ) -> Option<()> {
        let last = parts.len().checked_sub(1)?;
        let is_first = held.claim.as_ref().is_some_and(Claim::must_be_first);
        let mut end: Option<Position> = None;
        for (at, batch) in parts.into_iter().enumerate() {
            let batch = match end {
                Some(end) => batch.following(end.seq_num),
                None if is_first => batch.following(0),
                None => batch,
            };
            if last == 0 {
                let charge = held.charge.take();
                self.shared.expect(&batch, None, held);
                return sender.send(&batch, charge).await.ok();
            }
            let (acked, ack) = oneshot::channel();
            let part = Part {
                is_last: at == last,
                acked,
            };
            let of_part = Held {
                lease: held.lease.clone(),
                // Data may begin in a later part than commands.
                claim: held.claim.take_if(|_| batch.has_data() || at == last),
                charge: None,
            };
            self.shared.expect(&batch, Some(part), of_part);
            let charge = held.charge.take_if(|_| at == last);
            sender.send(&batch, charge).await.ok()?;
            let Some(acked) = in_time(ack).await else {
                self.shared.late.notify_one();
                return None;
            };
            end = Some(acked.ok()?);
        }
        Some(())
    }
}

/// The next input. What comes after a long rest needs its key again.
async fn next(
    inputs: &mut Inputs,
    sealer: &mut Sealer,
) -> Result<Option<(AppendInput, Option<Charge>)>, InputError> {
    let mut next = std::pin::pin!(inputs.next());
    tokio::select! {
        biased;
        next = &mut next => return next,
        () = tokio::time::sleep(MAX_UNUSED), if sealer.can_rest() => sealer.rest(),
    }
    next.await
}

/// Waits for the ack of a part no longer than for that of a unary append, for what follows it takes memory.
async fn in_time<T>(ack: impl Future<Output = T>) -> Option<T> {
    timeout(APPEND_TIMEOUT, ack).await.ok()
}

/// The places of the acked parts of one input.
#[derive(Clone, Copy)]
struct Split {
    start: Position,
    end: Position,
}

/// The upstream's half of a session.
struct Session {
    acks: Acks,
    shared: Arc<Shared>,
    compression: Compression,
    /// Where the parts of an input went that are acked, when others are not yet.
    split: Option<Split>,
    registry: Arc<Registry>,
    keyring: Arc<Keyring>,
    drain: Drain,
    tenure: Tenure,
    _uplink: AbortOnDrop,
}

impl Session {
    /// Hands frames to the client until there is no more, or it left. While it takes none it keeps what its
    /// inputs take of the budget: its connection is cut off when others wait for that.
    async fn run(mut self, frames: mpsc::Sender<Next>, budget: Budget, cutoff: Option<Cutoff>) {
        let mut more = true;
        while more {
            let next = self.next().await;
            more = next.1;
            if let Err(TrySendError::Full(next)) = frames.try_send(next) {
                let _rest = cutoff.as_ref().map(|cutoff| budget.untaken(cutoff));
                // One at a time would let a client that takes hardly any keep it for long.
                let Ok(mut room) = frames.reserve_many(QUEUED_ACKS).await else {
                    return;
                };
                if let Some(room) = room.next() {
                    room.send(next);
                }
            }
        }
    }

    /// The next frame for the client, and whether another may follow. An error breaks the response
    /// off; it never ends it cleanly.
    async fn next(&mut self) -> Next {
        loop {
            let answer = tokio::select! {
                biased;
                answer = self.acks.next() => answer,
                ended = self.tenure.cut() => return (Err(self.cut(ended)), false),
                () = self.shared.late.notified() => {
                    return (Ok(Some(self.terminal(Error::Timeout))), false);
                }
            };
            match answer {
                Ok(Some(Answer::Ack {
                    ack,
                    reconnect_advised,
                })) => {
                    self.shared.ceiling.learn(&ack);
                    let mut claim = self.shared.first_claim();
                    if let Err(error) = confirm(&mut claim).await {
                        return (Ok(Some(self.terminal(error))), false);
                    }
                    if let Some(lease) = self.shared.first_with_data() {
                        self.keyring.stored(&lease, &ack).await;
                    }
                    match self.merge(ack) {
                        Ok(Some(ack)) => {
                            let payload = proto::encode_append_ack(&ack);
                            let advised = reconnect_advised || self.drain.is_draining();
                            let frame = s2s::encode_message(self.compression, payload, advised);
                            let frame = frame.map(|frame| Some(frame.concat().into()));
                            return (frame.map_err(Into::into), true);
                        }
                        Ok(None) => {}
                        Err(error) => return (Ok(Some(self.terminal(error))), false),
                    }
                }
                Ok(Some(Answer::Terminal { status, body })) => {
                    let not_first = self.refuse_claim(status).await;
                    let frame = match (self.split, not_first) {
                        (Some(_), _) => self.terminal(Error::PartlyAppended(body)),
                        (None, Some(error)) => self.terminal(error),
                        (None, None) => {
                            self.shared.exchange.refused_with(status);
                            s2s::encode_terminal(status, &body)
                        }
                    };
                    return (Ok(Some(frame)), false);
                }
                Ok(None) => return (self.end(), false),
                Err(error) => return (Err(error.into()), false),
            }
        }
    }

    /// Gives the claim back when the upstream's last word promises that what has no ack is not stored. Returns why,
    /// when the stream's first append found records there: it was created around this proxy, or by another request.
    async fn refuse_claim(&self, status: u16) -> Option<Error> {
        let claim = self.shared.any_claim()?;
        let status = StatusCode::from_u16(status).ok()?;
        if !had_no_effect(status) {
            return None;
        }
        let not_first = claim.must_be_first() && status == StatusCode::PRECONDITION_FAILED;
        let path = claim.path().clone();
        claim.refused().await;
        match not_first {
            true => Some(self.registry.not_first(&path).await.into()),
            false => None,
        }
    }

    /// The upstream's clean end: the client's, too, unless something was wrong, or acks are missing
    /// that were promised by those before them.
    fn end(&self) -> Result<Option<Bytes>, BoxError> {
        if self.split.is_some() {
            return Err(Error::Garbage("an end in the middle of a batch").into());
        }
        let failure = self.shared.failure.get();
        if failure.is_some() && !self.shared.expected().is_empty() {
            // What failed may promise that nothing happened, and what has no ack may be stored.
            return Err(Error::Garbage("an end before every ack").into());
        }
        Ok(failure.map(respond::terminal_frame))
    }

    /// Acks are missing that the upstream does not give in time: of those, nothing can be promised.
    fn cut(&self, ended: Error) -> BoxError {
        self.shared.exchange.failed(&ended);
        ended.into()
    }

    fn terminal(&self, error: Error) -> Bytes {
        self.shared.exchange.failed(&error);
        respond::terminal_frame(&error.into())
    }

    /// The ack for the client; `None` for a part that others follow.
    fn merge(&mut self, ack: AppendAck) -> Result<Option<AppendAck>, Error> {
        let Some(expected) = self.shared.expected().pop_front() else {
            return Err(Error::Garbage("an ack of nothing"));
        };
        if ack.end.seq_num.checked_sub(ack.start.seq_num) != Some(expected.records) {
            return Err(Error::Garbage("an ack of another number of records"));
        }
        self.shared.exchange.moved(expected.records);
        let Some(part) = expected.part else {
            return Ok(Some(ack));
        };
        // The parts are one input to the client: what is between them would be acked with it.
        if self
            .split
            .is_some_and(|split| split.end.seq_num != ack.start.seq_num)
        {
            return Err(Error::Garbage("parts of a batch that are apart"));
        }
        let start = self.split.map_or(ack.start, |split| split.start);
        // The uplink waits for it, unless the client left.
        let _left = part.acked.send(ack.end);
        if !part.is_last {
            self.split = Some(Split {
                start,
                end: ack.end,
            });
            return Ok(None);
        }
        self.split = None;
        Ok(Some(AppendAck { start, ..ack }))
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_ack_of_a_part_is_not_waited_for_for_ever() {
        let (acked, ack) = oneshot::channel::<Position>();
        let began = tokio::time::Instant::now();
        assert!(in_time(ack).await.is_none());
        assert_eq!(began.elapsed(), APPEND_TIMEOUT);
        drop(acked);
    }
}
