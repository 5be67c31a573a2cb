//! Appends: plain streams pass through; for sealed ones every record is decoded, sealed and sent on.

mod claims;
mod session;

use std::time::Duration;

use crate::received::ReceivedBody;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header, request};

use super::{
    Error, Proxy,
    call::{Caller, Stop, collect},
    ceiling::StreamCeiling,
    control::collect_error,
    gate::Principal,
    managed::{Sealer, Sealing, StreamKeys},
    respond::{self, Asked},
};
use crate::{
    body::{self, SealedBody},
    keys,
    project::Scope,
    registry::{self, Access, Claim, Lookup, Purpose, SealedStream, rules::KeySource},
    stream::StreamPath,
    upstream::{Body, InMemory, ResponseBody, Target, Upstream},
    wire::{
        json::{self, Format},
        media::Media,
        proto,
        record::{AppendAck, AppendInput, SealedInput},
    },
};

/// Longest wait for the upstream's answer to a unary append, or for the head of a session.
const APPEND_TIMEOUT: Duration = Duration::from_secs(60);

/// How often one append may find that its stream is not what it was at the look-up.
const MAX_LOOKS: usize = 3;

/// Largest answer to a unary append that is read: acks and errors are small.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// What became of a batch on a sealed stream.
enum Appended {
    /// It is stored.
    Acked(AppendAck),
    /// Nothing, for the stream is not what it was at the look-up: it has records although this had to be its first,
    /// or it was deleted or created again.
    LookAgain,
}

impl Proxy {
    /// `POST /v1/streams/{stream}/records`
    pub(super) async fn append(
        &self,
        path: StreamPath,
        request: Request<ReceivedBody>,
        caller: &Caller,
        asked: &Asked,
    ) -> Result<Response<Body>, Stop> {
        let lookup = self.registry.lookup(&path).await?;
        keys::check_length(request.headers())?;
        if let Lookup::Found(Access::Plain(proof)) = lookup {
            let by = (request.headers(), caller);
            if !self.is_replaced_plain(&path, &proof, by).await? {
                return self
                    .forward_append(proof, path, request, caller, asked)
                    .await;
            }
        }
        match Media::content_type(request.headers()) {
            Some(Media::S2s) => self.append_session(path, request, caller, asked).await,
            Some(Media::Json | Media::Proto | Media::EventStream) | None => {
                self.append_unary(path, request, caller, asked).await
            }
        }
    }

    async fn append_unary(
        &self,
        path: StreamPath,
        request: Request<ReceivedBody>,
        caller: &Caller,
        asked: &Asked,
    ) -> Result<Response<Body>, Stop> {
        let (parts, incoming) = request.into_parts();
        let encoding = UnaryEncoding::of(&parts.headers)?;
        let body = body::collect(
            &parts.headers,
            incoming,
            &self.budget.whole_body(),
            &self.drain,
        )
        .await
        .map_err(|error| collect_error(error, encoding.bad_body()))?;
        let input = encoding.decode(body.clone())?;
        let allowed = |caller: &Principal| caller.allow_stream(Scope::Append, &path);
        self.still(caller, allowed).await?;
        let headers = &parts.headers;
        let access = self.append_access(&path, Some(&input), headers, caller);
        let mut access = access.await?;
        for _ in 0..MAX_LOOKS {
            let stream = match access {
                Access::Sealed(stream) => stream,
                // It took a look upstream to know that it is plain: the body is already in memory.
                Access::Plain(proof) => {
                    return self.forward_read_body(proof, &path, parts, body).await;
                }
            };
            let appended = self.append_sealed(stream, &parts, &input, (caller, asked));
            match appended.await? {
                Appended::Acked(ack) => return Ok(asked.whole(encoding.ack(&ack))),
                // Another request created it, or it was created around this proxy and is refused here.
                Appended::LookAgain => {
                    let settled = self.settle(&path, Purpose::Append, headers, caller);
                    access = settled.await?;
                }
            }
        }
        Err(Error::Busy.into())
    }

    /// How to treat the records of an append. A stream's first append asks nothing where its key is at hand and it
    /// can be bound to an empty stream.
    async fn append_access(
        &self,
        path: &StreamPath,
        input: Option<&AppendInput>,
        headers: &HeaderMap,
        caller: &Caller,
    ) -> Result<Access, Stop> {
        let has_own_key = |stream: &SealedStream| match stream.key_source() {
            KeySource::Header => keys::from_header(headers, stream.cipher).is_ok(),
            KeySource::File => true,
            KeySource::Managed | KeySource::Kms => false,
        };
        match self.registry.lookup(path).await? {
            Lookup::Found(access) => Ok(access),
            Lookup::FirstUse(stream)
                if input.is_none_or(AppendInput::may_be_first) && has_own_key(&stream) =>
            {
                Ok(Access::Sealed(stream))
            }
            Lookup::FirstUse(_) | Lookup::Unsettled => {
                self.settle(path, Purpose::Append, headers, caller).await
            }
        }
    }

    /// Appends a batch to a sealed stream.
    async fn append_sealed(
        &self,
        mut stream: SealedStream,
        head: &request::Parts,
        input: &AppendInput,
        (caller, asked): (&Caller, &Asked),
    ) -> Result<Appended, Stop> {
        let path = stream.path.clone();
        let by = (Purpose::Append, &head.headers);
        let keys = self.keys(&mut stream, by, caller, &asked.exchange).await?;
        let check = self.claimed(&keys).filter(|_| input.has_data());
        let is_managed = matches!(keys, StreamKeys::Managed(_));
        let mut sealer = keys.sealer();
        // Held, with its lease, until the last part is acked.
        let Sealing { cipher, lease } = sealer.take(input).await?;
        let sealed = self.meter(&path).seal(input, &cipher, self.fit);
        let sealed = sealed.map_err(Error::from)?;
        let mut claim = match is_managed {
            true => None,
            false => match self.registry.claim(&stream, check, caller).await {
                Err(Stop::Error(Error::Registry(registry::Error::OtherIncarnation(_)))) => {
                    return Ok(Appended::LookAgain);
                }
                claim => Some(claim.map_err(Stop::before_sending)?),
            },
        };
        let first = claim.as_ref().is_some_and(Claim::must_be_first);
        let is_new = first || claim.is_some() && !stream.is_recorded();
        let sent = async {
            let uri = head.uri.path();
            let ceiling = self.ceiling((&stream, first), &sealer, uri, caller).await?;
            let reserved = ceiling.reserve(input).await;
            reserved.map_err(Stop::before_sending)?;
            let allowed = |principal: &Principal| principal.allow_stream(Scope::Append, &path);
            self.still(caller, allowed).await?;
            Ok(ceiling)
        };
        let ceiling = match sent.await {
            Ok(ceiling) => ceiling,
            Err(stop) => {
                refuse(&mut claim).await;
                return Err(stop);
            }
        };
        let mut whole: Option<AppendAck> = None;
        for part in sealed {
            let has_data = part.has_data();
            let (part, before) = match whole {
                None if first => (part.following(0), None),
                None => (part, None),
                Some(before) => (part.following(before.end.seq_num), Some(before)),
            };
            let ack = match self.append_part(&path, head, &part).await {
                Ok(ack) => joined(before, ack)?,
                Err(stop) if before.is_some() => return Err(stop.after_a_part()),
                Err(stop) => {
                    if stop.had_no_effect() {
                        refuse(&mut claim).await;
                    }
                    // 409: another request is creating the stream, through this proxy or around it.
                    let status = stop.refused_with();
                    let looks_again = match status {
                        Some(StatusCode::PRECONDITION_FAILED) => first,
                        Some(StatusCode::CONFLICT) => is_new,
                        _ => false,
                    };
                    return match looks_again {
                        true => Ok(Appended::LookAgain),
                        false => Err(stop),
                    };
                }
            };
            ceiling.learn(&ack);
            asked.exchange.moved(part.records().len() as u64);
            if has_data || check.is_none() {
                confirm(&mut claim).await?;
            }
            if has_data && let Some(lease) = &lease {
                self.keyring.stored(lease, &ack).await;
            }
            whole = Some(ack);
        }
        let ack = whole.ok_or(Error::Garbage("an append without parts"))?;
        Ok(Appended::Acked(ack))
    }

    /// The ceiling of a stream under one key.
    async fn ceiling(
        &self,
        stream: (&SealedStream, bool),
        sealer: &Sealer,
        records: &str,
        caller: &Caller,
    ) -> Result<StreamCeiling, Stop> {
        if !sealer.is_own() {
            return Ok(StreamCeiling::none());
        }
        let ceiling = self.ceiling.of(stream, records, caller);
        ceiling.await.map_err(Stop::before_sending)
    }

    /// Appends what fits into one upstream batch.
    async fn append_part(
        &self,
        path: &StreamPath,
        head: &request::Parts,
        part: &SealedInput,
    ) -> Result<AppendAck, Stop> {
        let response = self
            .send_sealed(path, head.clone(), Media::Proto, SealedBody::unary(part))
            .await?;
        let (head, body) = response.into_parts();
        let body = self
            .upstream
            .within(APPEND_TIMEOUT, collect(body, MAX_ANSWER_BYTES))
            .await
            .unwrap_or(Err(Error::Timeout))?;
        if head.status != StatusCode::OK {
            return Err(Stop::relay(Response::from_parts(head, body)));
        }
        let ack = proto::decode_append_ack(body)
            .map_err(|_| Error::Garbage("an ack that does not decode"))?;
        if ack.end.seq_num.checked_sub(ack.start.seq_num) != Some(part.records().len() as u64) {
            return Err(Error::Garbage("an ack of another number of records").into());
        }
        Ok(ack)
    }

    /// Sends a body of sealed records: the only way that records reach a sealed stream.
    async fn send_sealed(
        &self,
        path: &StreamPath,
        mut parts: request::Parts,
        media: Media,
        body: SealedBody,
    ) -> Result<Response<ResponseBody>, Error> {
        let headers = &mut parts.headers;
        for name in [
            header::CONTENT_ENCODING,
            header::CONTENT_LENGTH,
            header::ACCEPT_ENCODING,
        ] {
            headers.remove(name);
        }
        headers.remove("s2-format");
        let value = HeaderValue::from_static(media.as_str());
        headers.insert(header::CONTENT_TYPE, value.clone());
        headers.insert(header::ACCEPT, value);
        parts.method = Method::POST;
        if media != Media::S2s {
            parts.extensions.insert(InMemory);
        }
        let request = Request::from_parts(parts, body.into_body());
        let sent = self.upstream.send(Target::Basin(&path.basin), request);
        self.upstream
            .within(APPEND_TIMEOUT, sent)
            .await
            .map_err(|_| Error::Timeout)?
            .map_err(Error::from)
    }
}

/// The ack of a batch up to this part.
fn joined(before: Option<AppendAck>, ack: AppendAck) -> Result<AppendAck, Stop> {
    match before {
        None => Ok(ack),
        Some(before) if ack.start.seq_num == before.end.seq_num => Ok(AppendAck {
            start: before.start,
            ..ack
        }),
        Some(_) => {
            let apart = Error::Garbage("parts of a batch that are apart");
            Err(Stop::from(apart).after_a_part())
        }
    }
}

/// Gives a claim back: its append certainly had no effect.
async fn refuse(claim: &mut Option<Claim>) {
    if let Some(claim) = claim.take() {
        claim.refused().await;
    }
}

/// Confirms a claim: its append is acknowledged. A store that cannot record it costs the confirmation, not the
/// request.
///
/// # Errors
/// [`Error::TwoKeys`] when a record under another key is stored, too.
async fn confirm(claim: &mut Option<Claim>) -> Result<(), Error> {
    let Some(mut claim) = claim.take() else {
        return Ok(());
    };
    match claim.acked().await {
        Ok(()) => Ok(()),
        Err(registry::Error::WrongKey) => Err(Error::TwoKeys(claim.path().clone())),
        Err(error) => {
            let error = Error::from(error);
            tracing::warn!(error = error.told(), "key check not recorded");
            Ok(())
        }
    }
}

/// The upstream's session, or its refusal to have one.
///
/// # Errors
/// [`Stop`] for every answer that is no S2S session.
pub(super) async fn session_or_refusal(
    upstream: &Upstream,
    response: Response<ResponseBody>,
) -> Result<Response<ResponseBody>, Stop> {
    if response.status() == StatusCode::OK {
        return match Media::content_type(response.headers()) {
            Some(Media::S2s) => Ok(response),
            Some(Media::Json | Media::Proto | Media::EventStream) | None => {
                Err(Error::Garbage("a session of another type").into())
            }
        };
    }
    let (head, body) = response.into_parts();
    let body = upstream
        .within(APPEND_TIMEOUT, collect(body, MAX_ANSWER_BYTES))
        .await
        .unwrap_or(Err(Error::Timeout))?;
    Err(Stop::relay(Response::from_parts(head, body)))
}

/// How a client writes a unary append and wants its ack.
struct UnaryEncoding {
    request: Media,
    format: Format,
    response: Media,
}

impl UnaryEncoding {
    fn of(headers: &HeaderMap) -> Result<Self, Error> {
        let request = match Media::content_type(headers) {
            Some(Media::Proto) => Media::Proto,
            Some(Media::Json | Media::S2s | Media::EventStream) | None => Media::Json,
        };
        let response = match Media::accept(headers) {
            Some(Media::Proto) => Media::Proto,
            Some(Media::Json | Media::S2s | Media::EventStream) | None => Media::Json,
        };
        let format = match request {
            Media::Json => format_of(headers)?,
            Media::Proto | Media::S2s | Media::EventStream => Format::default(),
        };
        if request == Media::Json && Media::content_type(headers) != Some(Media::Json) {
            return Err(Error::BadJson(
                "Expected request with `Content-Type: application/json`".into(),
            ));
        }
        Ok(Self {
            request,
            format,
            response,
        })
    }

    fn bad_body(&self) -> fn(String) -> Error {
        match self.request {
            Media::Proto => |text| Error::Decode(crate::wire::DecodeError::Proto(text)),
            Media::Json | Media::S2s | Media::EventStream => Error::BadJson,
        }
    }

    fn decode(&self, body: Bytes) -> Result<AppendInput, Error> {
        Ok(match self.request {
            Media::Proto => proto::decode_append_input(body)?,
            Media::Json | Media::S2s | Media::EventStream => {
                json::decode_append_input(&body, self.format)?
            }
        })
    }

    fn ack(&self, ack: &AppendAck) -> Response<Bytes> {
        let body = match self.response {
            Media::Proto => proto::encode_append_ack(ack),
            Media::Json | Media::S2s | Media::EventStream => json::encode_append_ack(ack),
        };
        respond::typed(StatusCode::OK, self.response, body)
    }
}

/// The format that `s2-format` asks for.
pub(super) fn format_of(headers: &HeaderMap) -> Result<Format, Error> {
    let Some(value) = headers.get("s2-format") else {
        return Ok(Format::default());
    };
    let text = value.to_str().unwrap_or_default();
    text.parse()
        .map_err(|error| Error::BadHeader(format!("Invalid header `s2-format`: {error}")))
}
