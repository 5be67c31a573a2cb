//! What happens to a request, top to bottom: [`Proxy::handle`] is the whole path on one screen.

mod admission;
mod append;
pub mod call;
mod ceiling;
pub mod control;
mod error;
mod exchange;
mod failures;
mod forward;
pub mod gate;
pub mod managed;
mod peer;
mod plain;
mod probe;
pub mod projects;
pub mod query;
mod read;
mod respond;
pub mod route;
pub mod view;

use std::{sync::Arc, time::Duration};

use crate::received::ReceivedBody;
use http::{Method, Request, Response, header};
use tokio::sync::Semaphore;

pub use error::{Code, Error};
pub use managed::{Authority, Rotated};
pub use peer::Peer;

use self::{
    call::{Caller, Stop},
    ceiling::Ceiling,
    control::{Control, ControlCall},
    exchange::Exchange,
    gate::{ClientAccess, Gate, Principal},
    managed::{Keyring, StreamKeys},
    plain::PlainTraffic,
    respond::Asked,
    route::{Forwarded, Route, Routing},
};
use crate::{
    body::{self, Budget, Meter},
    clock::Clock,
    crypto::{KeyCheck, StreamCipher},
    drain::Drain,
    keys::{self, Clients, RotateAfter, kms::Kms},
    registry::{self, Access, Lookup, Purpose, Registry, SealedStream, rules::Rules},
    store::{KeyKnown, Store},
    stream::StreamPath,
    telemetry::{metrics::Metrics, sinks::Sinks},
    upstream::{Body, ClientAddress, Upstream},
    wire::{compression::RequestEncoding, record::Fit},
};

/// The header with a stream's configuration, for when a request creates it.
const STREAM_CONFIG: &str = "s2-stream-config";

/// Calls about basins and streams that run at once. Each may hold a body of 2 MiB.
const MAX_CONTROL_CALLS: usize = 64;

/// How long such a call waits for its turn.
const CONTROL_TURN: Duration = Duration::from_secs(10);

/// The proxy: answers every request of every client.
pub struct Proxy {
    registry: Arc<Registry>,
    ceiling: Ceiling,
    control_calls: Arc<Semaphore>,
    key_check: keys::Check,
    plain: PlainTraffic,
    keyring: Arc<Keyring>,
    /// Checks API keys, when they are what clients come in with.
    gate: Option<Arc<Gate>>,
    /// The rights of client certificates.
    clients: Arc<ClientAccess>,
    /// The projects' API keys.
    roster: projects::Roster,
    upstream: Upstream,
    basin_domain: String,
    fit: Fit,
    budget: Budget,
    drain: Drain,
    metrics: Arc<Metrics>,
    sinks: Arc<Sinks>,
}

/// What a proxy is made of.
pub struct Parts {
    /// The config store.
    pub store: Arc<dyn Store>,
    /// The rules of the configuration file.
    pub rules: Rules,
    /// What decides about plain streams and new incarnations.
    pub registry: registry::Settings,
    /// What to do with a key that comes for a plain stream.
    pub on_plain: keys::OnPlain,
    /// What to do with a key that is not the stream's.
    pub key_check: keys::Check,
    /// When a managed key gets a successor.
    pub rotate_after: RotateAfter,
    /// What wraps the keys of streams whose rule says so.
    pub kms: Option<Kms>,
    /// Whether clients come in with API keys.
    pub takes_api_keys: bool,
    /// The rights of client certificates.
    pub clients: Clients,
    /// Where requests go.
    pub upstream: Upstream,
    /// Host suffix that follows a basin's name; empty for none.
    pub basin_domain: String,
    /// How batches are made to fit upstream.
    pub fit: Fit,
    /// The memory for clients' bodies.
    pub budget: Budget,
    /// How far the process has come in stopping.
    pub drain: Drain,
    /// Where it counts what it does.
    pub metrics: Arc<Metrics>,
    /// Where it tells what became of requests.
    pub sinks: Arc<Sinks>,
}

impl Proxy {
    /// A proxy of these parts.
    pub fn new(parts: Parts) -> Self {
        let store = parts.store;
        let registry = Registry::new(Arc::clone(&store), parts.rules, parts.registry);
        let registry = Arc::new(registry);
        let clock = Clock::system();
        let keyring = Keyring::new(
            Arc::clone(&registry),
            Arc::clone(&store),
            parts.rotate_after,
            parts.kms,
            Arc::clone(&parts.metrics),
        );
        Self {
            gate: parts
                .takes_api_keys
                .then(|| Arc::new(Gate::new(Arc::clone(&store), clock.clone()))),
            clients: Arc::new(ClientAccess::new(parts.clients)),
            roster: projects::Roster::new(Arc::clone(&store), clock),
            keyring: Arc::new(keyring),
            registry,
            ceiling: Ceiling::new(),
            control_calls: Arc::new(Semaphore::new(MAX_CONTROL_CALLS)),
            key_check: parts.key_check,
            plain: PlainTraffic::new(parts.on_plain),
            upstream: parts.upstream,
            basin_domain: parts.basin_domain,
            fit: parts.fit,
            budget: parts.budget,
            drain: parts.drain,
            metrics: parts.metrics,
            sinks: parts.sinks,
        }
    }

    /// Puts other rules in force, with the keys they name. Requests that are running go on by those they
    /// began with.
    pub fn replace_rules(&self, rules: Rules) {
        self.registry.replace_rules(rules);
    }

    /// Answers one request, whatever it is.
    pub async fn handle(
        self: &Arc<Self>,
        mut request: Request<ReceivedBody>,
        peer: &Peer,
    ) -> Response<Body> {
        for (name, value) in request.headers_mut() {
            value.set_sensitive(name == keys::KEY_HEADER || name == header::AUTHORIZATION);
        }
        let metrics = Arc::clone(&self.metrics);
        let sinks = Arc::clone(&self.sinks);
        let exchange = Exchange::begin(&mut request, peer.clone(), metrics, sinks);
        let asked = Asked::of(&request, &exchange);
        let stopped = Self::stopped(&request);
        let answered = self
            .drain
            .before_over(self.answer(request, peer, &asked))
            .await;
        let mut response = match answered.unwrap_or_else(|| Err(stopped.into())) {
            Ok(response) => response,
            Err(stop) => {
                exchange.stopped(&stop);
                asked.stopped(stop)
            }
        };
        respond::forbid_sniffing(response.headers_mut());
        exchange.answer(response)
    }

    /// What becomes of a request that has no answer when the drain is over: one that only reads had no
    /// effect, and any other may have had one. Where it is known that nothing was sent, that is said before.
    fn stopped(request: &Request<ReceivedBody>) -> Error {
        match request.method().is_safe() {
            true => Error::Draining,
            false => Error::Stopped,
        }
    }

    async fn answer(
        self: &Arc<Self>,
        mut request: Request<ReceivedBody>,
        peer: &Peer,
        asked: &Asked,
    ) -> Result<Response<Body>, Stop> {
        if self.gate.is_some() && request.method() == Method::OPTIONS {
            // A browser asks without a token, so nobody is asked on its behalf.
            return Ok(asked.whole(respond::preflight(request.headers())));
        }
        let principal = self.admit(&mut request, peer, asked).await?;
        gate::stray(request.uri(), request.headers())?;
        let (method, uri) = (request.method(), request.uri());
        let routing = Routing {
            basin_domain: &self.basin_domain,
            forward_unknown: self.upstream.forwards_unknown(),
        };
        let route = Route::of(method, uri, request.headers(), routing);
        let is_call = !matches!(
            route,
            Ok(Route::Forward(..)
                | Route::Unknown(_)
                | Route::WrongMethod(_)
                | Route::Preflight
                | Route::NotFound)
        );
        if let Ok(route) = &route {
            asked.exchange.routed(route, request.headers());
        }
        // S2 looks at this before all else of a call, even where there is no body.
        if is_call && RequestEncoding::from_headers(request.headers()).is_err() {
            return Err(control::unsupported_encoding());
        }
        let mut route = route?;
        self.allow_without_right(&principal, route::needs(&route))?;
        principal.allow_route(&route)?;
        if let Route::Forward(_, Forwarded::Basins) = route
            && principal.is_limited()
        {
            route = Route::Control(ControlCall::ListBasins);
        }
        // Goes with the request to the upstream's metrics.
        let operation = asked.exchange.operation();
        request.extensions_mut().insert(operation);
        let client = ClientAddress(peer.address);
        request.extensions_mut().insert(client);
        let caller = Caller::new(&self.upstream, request.headers(), operation, principal);
        let caller = caller.in_name_of(client);
        // In boxes: their states are large, and this function's would be the largest of them.
        match route {
            Route::Append(path) => Box::pin(self.append(path, request, &caller, asked)).await,
            Route::Read(path) => Box::pin(self.read(path, request, &caller, asked)).await,
            Route::Tail(path) => Box::pin(self.tail(path, request, &caller)).await,
            Route::Forward(proof, forwarded) => {
                let request = self.bound_by_api_key(request, &forwarded, &caller, asked);
                self.forward(proof.into(), forwarded.endpoint(), request)
                    .await
            }
            Route::Unknown(basin) => self.forward_unknown(basin, request, &caller).await,
            Route::Control(call) => {
                call.check(request.headers())?;
                let control = self.whole(request).await?;
                // A reload may have given the proxy a token of its own while the body arrived.
                self.allow_without_right(caller.principal(), route::call_needs(&call))?;
                caller.principal().allow_call(&call, &control)?;
                if let ControlCall::CreateBasin | ControlCall::CreateStream(_) = call {
                    asked.exchange.makes(&control.body);
                }
                let this = Arc::clone(self);
                let turn =
                    tokio::time::timeout(CONTROL_TURN, this.control_calls.clone().acquire_owned());
                let turn = self.drain.before_over(turn).await.ok_or(Error::Draining)?;
                let turn = turn.map_err(|_| Error::Busy)?;
                let allowed = |caller: &Principal| caller.allow_call(&call, &control);
                self.still(&caller, allowed).await?;
                // Not cut short when the client leaves: upstream and config store go together.
                let run = async move {
                    let _turn = turn;
                    call.run(&this.registry, &this.keyring, &caller, &control)
                        .await
                };
                let ran = tokio::spawn(run).await;
                let answer = ran.map_err(|_| Error::Garbage("control call failed"))??;
                Ok(asked.whole(answer))
            }
            Route::WrongMethod(allowed) => Ok(asked.whole(respond::wrong_method(&allowed))),
            Route::Preflight => Ok(asked.whole(respond::preflight(request.headers()))),
            Route::NotFound => Ok(asked.whole(respond::not_found())),
        }
    }

    /// Checks a call that would go up with the proxy's token, for a client without rights of its own.
    fn allow_without_right(
        &self,
        principal: &Principal,
        need: route::Need<'_>,
    ) -> Result<(), Error> {
        match !principal.is_limited() && self.upstream.has_own_token() {
            true => route::allow_without_right(need),
            false => Ok(()),
        }
    }

    /// A control request with its body in memory.
    async fn whole(&self, request: Request<ReceivedBody>) -> Result<Control, Stop> {
        let (parts, body) = request.into_parts();
        let body = body::collect(&parts.headers, body, &self.budget.whole_body(), &self.drain)
            .await
            .map_err(|error| control::collect_error(error, Error::BadJson))?;
        Ok(Control {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body,
        })
    }

    /// How to treat a stream's records. What the store alone cannot tell is settled upstream, which
    /// may create the stream: so the request is checked before.
    async fn access(
        &self,
        path: &StreamPath,
        purpose: Purpose,
        headers: &http::HeaderMap,
        caller: &Caller,
    ) -> Result<Access, Stop> {
        match self.registry.lookup(path).await? {
            Lookup::Found(access) => Ok(access),
            Lookup::FirstUse(_) | Lookup::Unsettled => {
                self.settle(path, purpose, headers, caller).await
            }
        }
    }

    async fn settle(
        &self,
        path: &StreamPath,
        purpose: Purpose,
        headers: &http::HeaderMap,
        caller: &Caller,
    ) -> Result<Access, Stop> {
        let config = headers.get(STREAM_CONFIG).map(|config| config.to_str());
        let config = config
            .transpose()
            .map_err(|_| Error::BadHeader(format!("Invalid header `{STREAM_CONFIG}`: not text")))?;
        let settled = self.registry.settle(path, (purpose, config), caller).await;
        settled.map_err(Stop::before_sending)
    }

    /// The keys of a sealed stream: the one that this request carries or maps to, or those that the proxy made. A
    /// key that is not the stream's may be that of a new stream of the same name: the upstream is asked, and the
    /// stream looked up again.
    ///
    /// # Errors
    /// No key, no usable key, or one that is not the stream's.
    async fn keys(
        &self,
        stream: &mut SealedStream,
        asked: (Purpose, &http::HeaderMap),
        caller: &Caller,
        exchange: &Exchange,
    ) -> Result<StreamKeys, Stop> {
        let path = stream.path.clone();
        match self.request_keys(stream, asked, caller, exchange) {
            Err(Error::Registry(registry::Error::WrongKey)) => {
                let replaced = self.registry.is_replaced(&path, caller).await;
                if replaced.map_err(Stop::before_sending)?
                    && let Lookup::Found(Access::Sealed(now)) = self.registry.lookup(&path).await?
                {
                    *stream = now;
                    return Ok(self.request_keys(stream, asked, caller, exchange)?);
                }
                Err(registry::Error::WrongKey.into())
            }
            keys => Ok(keys?),
        }
    }

    fn request_keys(
        &self,
        stream: &SealedStream,
        (purpose, headers): (Purpose, &http::HeaderMap),
        caller: &Caller,
        exchange: &Exchange,
    ) -> Result<StreamKeys, Error> {
        match self.keyring.managed(stream, headers, caller)? {
            Some(managed) => {
                exchange.managed(stream.cipher);
                Ok(StreamKeys::Managed(Box::new(managed)))
            }
            None => {
                let own = self.own(stream, (purpose, headers), exchange);
                own.map(|(cipher, former)| StreamKeys::Own { cipher, former })
            }
        }
    }

    /// The key of a stream with a key of its own: the client's or the operator's. With it, for a read, the same key
    /// with the cipher of a former incarnation.
    fn own(
        &self,
        stream: &SealedStream,
        (purpose, headers): (Purpose, &http::HeaderMap),
        exchange: &Exchange,
    ) -> Result<(StreamCipher, Option<StreamCipher>), Error> {
        let has_header = headers.contains_key(keys::KEY_HEADER);
        let id = stream.path.id();
        let with = |cipher, key| StreamCipher::new(cipher, key, id);
        let from_header;
        let key = match stream.file_key(has_header) {
            Some(key) => key,
            None => {
                from_header = keys::from_header(headers, stream.cipher)?;
                &from_header
            }
        };
        let cipher = with(stream.cipher, key);
        exchange.keyed(&cipher);
        let check = cipher.key_check();
        let former = stream
            .former_cipher(check)
            .filter(|_| purpose == Purpose::Read)
            .map(|cipher| with(cipher, key));
        match (self.key_check, stream.key()) {
            (keys::Check::Enforce, KeyKnown::Confirmed(known)) if known != check => match former {
                Some(former) => Ok((former, None)),
                None => Err(registry::Error::WrongKey.into()),
            },
            (keys::Check::Enforce | keys::Check::Off, _) => Ok((cipher, former)),
        }
    }

    /// What counts the records of a stream that are sealed or opened.
    fn meter(&self, path: &StreamPath) -> Meter {
        Meter::new(&self.metrics, path)
    }

    /// The commitment that an append with data records claims; `None` for managed keys, and when keys are not checked.
    fn claimed(&self, keys: &StreamKeys) -> Option<KeyCheck> {
        match (keys, self.key_check) {
            (StreamKeys::Own { cipher, .. }, keys::Check::Enforce) => Some(cipher.key_check()),
            (StreamKeys::Own { .. }, keys::Check::Off) | (StreamKeys::Managed(_), _) => None,
        }
    }

    /// What records the stream's key, once a record opened under it. Managed keys are recorded before.
    fn pin(&self, stream: SealedStream, keys: &StreamKeys) -> Pin {
        let StreamKeys::Own { cipher, .. } = keys else {
            return Pin(None);
        };
        let check = cipher.key_check();
        let is_former = stream.former_cipher(check).is_some();
        let check = (self.key_check == keys::Check::Enforce).then_some(check);
        let wanted = !is_former && !stream.is_ready(check);
        Pin(wanted.then(|| (Arc::clone(&self.registry), stream, check)))
    }

    /// Writes what is still to be written to the config store before the process stops.
    pub async fn flush(&self) {
        self.registry.flush_seen().await;
    }
}

/// Records which key a stream's records are under, once one of them opened: one durable write in a stream's life.
struct Pin(Option<(Arc<Registry>, SealedStream, Option<KeyCheck>)>);

impl Pin {
    /// Records the key now, if it is not recorded yet. A store that cannot write it costs the check, not the
    /// request.
    async fn now(&mut self) {
        if let Some((registry, stream, check)) = self.0.take()
            && let Err(error) = registry.opened(&stream, check).await
        {
            let error = Error::from(error);
            tracing::warn!(error = error.told(), "key check not recorded");
        }
    }
}
