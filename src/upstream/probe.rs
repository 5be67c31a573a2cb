//! Whether the upstream's endpoints answer at all, asked without anybody's credentials.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};

use super::{Body, Upstream, body::OwnFault, endpoint::Endpoint, headers, live::Inner};

/// Longest wait for an answer. Orchestrators ask for readiness about as often.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// One endpoint, and whether it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// Its key in the configuration.
    pub key: &'static str,
    /// The endpoint as configured.
    pub url: String,
    /// What came of asking.
    pub outcome: Reach,
}

/// What came of asking an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// It answered with this status.
    Answered(StatusCode),
    /// It was not asked: its host depends on the basin.
    NotAsked,
    /// There was no answer, and why.
    Failed(String),
}

impl Reach {
    /// Whether requests can be expected to get through. An endpoint that cannot be asked counts as
    /// reachable; one that answers with a failure of its own does not.
    pub fn is_well(&self) -> bool {
        match self {
            Self::Answered(status) => !status.is_server_error(),
            Self::NotAsked => true,
            Self::Failed(_) => false,
        }
    }

    /// The same for people.
    pub fn reason(&self) -> String {
        match self {
            Self::Answered(status) => format!("answered {}", status.as_u16()),
            Self::NotAsked => "not asked: its host depends on the basin".to_owned(),
            Self::Failed(why) => why.clone(),
        }
    }
}

impl Upstream {
    /// Asks each endpoint for a list of one entry, with no token: a refusal is an answer, too. Takes at
    /// most two seconds.
    pub async fn probe(&self) -> [Probed; 2] {
        let inner = self.live.load_full();
        let (account, basin) = (&inner.account, &inner.basin);
        let is_one = account.is_same_as(basin);
        let (to_account, to_basin) =
            tokio::join!(self.reach(&inner, account, "/v1/basins?limit=1"), async {
                match is_one {
                    true => None,
                    false => Some(self.reach(&inner, basin, "/v1/streams?limit=1").await),
                }
            });
        let to_basin = to_basin.unwrap_or_else(|| to_account.clone());
        let probed = |key, endpoint: &Endpoint, outcome| Probed {
            key,
            url: endpoint.url(),
            outcome,
        };
        [
            probed("account_endpoint", account, to_account),
            probed("basin_endpoint", basin, to_basin),
        ]
    }

    async fn reach(&self, inner: &Arc<Inner>, endpoint: &Endpoint, path: &'static str) -> Reach {
        if endpoint.names_basin() {
            return Reach::NotAsked;
        }
        let to = match endpoint.destination(None) {
            Ok(to) => to,
            Err(error) => return Reach::Failed(error.to_string()),
        };
        let body: Body = Empty::<Bytes>::new()
            .map_err(|never| match never {})
            .boxed_unsync();
        let mut request = Request::new(body);
        *request.uri_mut() = Uri::from_static(path);
        headers::clean_request(request.headers_mut(), None, None);
        // Not counted: it is no client's exchange.
        let own_fault = OwnFault::default();
        let answer = self.send_to(Arc::clone(inner), to, request, &own_fault);
        match tokio::time::timeout(PROBE_TIMEOUT, answer).await {
            Ok(Ok(answer)) => Reach::Answered(answer.status()),
            Ok(Err(error)) => Reach::Failed(error.to_string()),
            Err(_) => Reach::Failed(format!("no answer within {PROBE_TIMEOUT:?}")),
        }
    }
}
