//! What a reload replaces: the access token, and the certificates with the connections made with them.

use std::sync::Arc;

use http::HeaderValue;

use super::{
    Config, ConfigError, Credential, Error, Target, Upstream,
    endpoint::{Destination, Endpoint},
    headers,
    pool::Pool,
    tls::Tls,
};
use crate::{certificate::Certificate, telemetry::metrics::Metrics};

/// Everything that the section says, with the files that it names.
pub(super) struct Inner {
    pub(super) account: Endpoint,
    pub(super) basin: Endpoint,
    authorization: Option<HeaderValue>,
    forward_unknown: bool,
    tls: Arc<Tls>,
    pub(super) pool: Arc<Pool>,
}

/// What [`Upstream::replace`] puts in force: everything is read and checked.
pub struct Renewed(Inner);

impl Renewed {
    /// The certificates that come in force.
    pub fn certificates(&self) -> impl Iterator<Item = Certificate> {
        self.0.tls.certificates()
    }
}

impl Upstream {
    /// Reads everything again, for [`Upstream::replace`]. Nothing changes yet.
    ///
    /// # Errors
    ///
    /// Every mistake in the section and every file that cannot be used.
    pub fn renew(&self, config: &Config) -> Result<Renewed, ConfigError> {
        let mut inner = Inner::load(config, &self.metrics)?;
        let before = self.live.load();
        if inner.tls.is_same(&before.tls) {
            inner.tls = Arc::clone(&before.tls);
            inner.pool = Arc::clone(&before.pool);
        }
        Ok(Renewed(inner))
    }

    /// From now on, requests go out with this token and on connections with these certificates. Those
    /// that are running end where they are; a connection with other certificates closes after its last.
    pub fn replace(&self, renewed: Renewed) {
        self.live.store(Arc::new(renewed.0));
    }

    /// Returns true if requests without a [`Credential`] go up with `upstream.access_token_file`.
    pub fn has_own_token(&self) -> bool {
        self.live.load().authorization.is_some()
    }

    /// Returns true if calls that S2's v1 API does not have go up.
    pub fn forwards_unknown(&self) -> bool {
        self.live.load().forward_unknown
    }

    /// The certificates that the configuration names for the upstream.
    pub fn certificates(&self) -> Vec<Certificate> {
        self.live.load().tls.certificates().collect()
    }
}

/// What is made of the section and the files that it names.
struct Loaded {
    account: Endpoint,
    basin: Endpoint,
    authorization: Option<HeaderValue>,
    tls: Tls,
}

/// Everything that is wrong with the `[upstream]` section and the files it names, each with its key.
pub fn problems(config: &Config) -> Vec<String> {
    match Loaded::read(config) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems,
    }
}

impl Loaded {
    fn read(config: &Config) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let account = endpoint("account_endpoint", &config.account_endpoint, &mut problems);
        let basin = endpoint("basin_endpoint", &config.basin_endpoint, &mut problems);
        if account.as_ref().is_some_and(Endpoint::names_basin) {
            problems.push("upstream.account_endpoint: must not name {basin}".to_owned());
        }
        let authorization = config
            .authorization()
            .unwrap_or_else(|problem| add(&mut problems, problem));
        if config.forward_unknown && config.access_token_file.is_set() {
            problems.push(
                "upstream.forward_unknown: not with upstream.access_token_file, or every client could make any \
                 call with that token; remove one of the two"
                    .to_owned(),
            );
        }
        let is_tls = [&account, &basin]
            .into_iter()
            .flatten()
            .any(Endpoint::is_tls);
        let tls = Tls::load(&config.tls, is_tls);
        let tls = tls.map_err(|wrong| problems.extend(wrong)).ok();
        match (account, basin, tls) {
            (Some(account), Some(basin), Some(tls)) if problems.is_empty() => Ok(Self {
                account,
                basin,
                authorization,
                tls,
            }),
            _ => Err(ConfigError { problems }),
        }
    }
}

impl Inner {
    pub(super) fn load(config: &Config, metrics: &Arc<Metrics>) -> Result<Self, ConfigError> {
        let loaded = Loaded::read(config)?;
        let connector = loaded.tls.connector.clone();
        Ok(Self {
            account: loaded.account,
            basin: loaded.basin,
            authorization: loaded.authorization,
            forward_unknown: config.forward_unknown,
            tls: Arc::new(loaded.tls),
            pool: Arc::new(Pool::new(connector, Arc::clone(metrics))),
        })
    }

    pub(super) fn prepare(
        &self,
        target: Target<'_>,
        headers: &mut http::HeaderMap,
        credential: Option<&Credential>,
    ) -> Result<Destination, Error> {
        let (endpoint, basin) = match target {
            Target::Account => (&self.account, None),
            Target::Basin(basin) => (&self.basin, Some(basin)),
        };
        let in_header = basin.filter(|_| !endpoint.names_basin());
        let own = credential.map(Credential::authorization);
        let authorization = own.or(self.authorization.as_ref());
        headers::clean_request(headers, in_header, authorization);
        endpoint.destination(basin)
    }
}

fn endpoint(key: &str, text: &str, problems: &mut Vec<String>) -> Option<Endpoint> {
    Endpoint::parse(text)
        .map_err(|wrong| problems.push(format!("upstream.{key}: {wrong}")))
        .ok()
}

fn add<T: Default>(problems: &mut Vec<String>, problem: String) -> T {
    problems.push(problem);
    T::default()
}
