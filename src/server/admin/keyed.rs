//! Calls of the admin API that an API key with scope `manage` authorises, in place of the operator's token: the
//! key is sent as a client sends it, and acts for its own project alone.

use std::sync::Arc;

use crate::received::ReceivedBody;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};

use super::{Admin, api::Refused, not_found, wrong_method};
use crate::{
    proxy::{
        Code, Error,
        gate::{self, Pass},
        projects::ProjectError,
    },
    upstream::Body,
};

/// Whether a call is authorised by an API key. Those about one stream's keys are the operator's without one.
pub(super) fn takes_api_key<B>(request: &Request<B>) -> bool {
    let path = request.uri().path();
    match path {
        "/api/streams/rotate-key" | "/api/streams/shred" => presents_api_key(request.headers()),
        path => is_for_api_keys(path),
    }
}

fn presents_api_key(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    // Also one that is cut short: it is refused, and not taken for the operator's silence.
    values.any(|value| gate::looks_like_api_key(value.as_bytes()))
}

fn is_for_api_keys(path: &str) -> bool {
    matches!(
        path,
        "/api/apikeys"
            | "/api/apikeys/rotate"
            | "/api/apikeys/revoke"
            | "/api/projects/rotate-master"
    )
}

impl Admin {
    /// Answers a call that an API key authorises.
    pub(super) async fn keyed(&self, request: Request<ReceivedBody>) -> Response<Body> {
        let (mut parts, body) = request.into_parts();
        let pass = match self.manager(&mut parts.headers).await {
            Ok(pass) => pass,
            Err(refused) => return refused.answer(),
        };
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        let posts = parts.method == Method::POST;
        let outcome = match parts.uri.path() {
            "/api/apikeys" if reads => self.api_keys(&pass).await,
            "/api/apikeys" if posts => self.issue_api_key(pass, body).await,
            "/api/apikeys/rotate" if posts => self.rotate_api_key(pass, body).await,
            "/api/apikeys/revoke" if posts => self.revoke_api_key(pass, body).await,
            "/api/projects/rotate-master" if posts => self.rotate_master(pass, body).await,
            "/api/streams/rotate-key" if posts => self.rotate_key(Some(pass), body).await,
            "/api/streams/shred" if posts => self.shred(Some(pass), body).await,
            "/api/projects/rotate-master" | "/api/streams/rotate-key" | "/api/streams/shred" => {
                return wrong_method("POST");
            }
            "/api/apikeys" => return wrong_method("GET, HEAD, POST"),
            "/api/apikeys/rotate" | "/api/apikeys/revoke" => return wrong_method("POST"),
            _ => return not_found(),
        };
        outcome.unwrap_or_else(|refused: Refused| refused.answer())
    }

    /// Lets in whoever has an API key with scope `manage`. It is no longer in `headers` then.
    async fn manager(&self, headers: &mut HeaderMap) -> Result<Arc<Pass>, Refused> {
        for (_, value) in headers
            .iter_mut()
            .filter(|(name, _)| **name == header::AUTHORIZATION)
        {
            value.set_sensitive(true);
        }
        let admitted = self.parts.proxy.manager(headers).await;
        Ok(Arc::new(admitted.inspect_err(|error| {
            if let ProjectError::Refused(error) = error {
                tracing::info!(error = error.told(), "API key refused by the admin API");
            }
        })?))
    }
}

impl From<ProjectError> for Refused {
    fn from(error: ProjectError) -> Self {
        let (status, code) = match &error {
            ProjectError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid"),
            ProjectError::Unknown => (StatusCode::NOT_FOUND, "project_unknown"),
            ProjectError::NoSuchKey => (StatusCode::NOT_FOUND, "api_key_unknown"),
            ProjectError::Off => (StatusCode::CONFLICT, "api_keys_off"),
            ProjectError::Exists => (StatusCode::CONFLICT, "project_exists"),
            ProjectError::InUse(_) => (StatusCode::CONFLICT, "project_in_use"),
            ProjectError::Retiring(_) => (StatusCode::CONFLICT, "api_key_retiring"),
            ProjectError::Over(_) => (StatusCode::CONFLICT, "api_key_over"),
            ProjectError::Last(_) => (StatusCode::CONFLICT, "last_api_key"),
            ProjectError::Full(_) => (StatusCode::CONFLICT, "too_many_api_keys"),
            ProjectError::Changing => (StatusCode::CONFLICT, "master_key_changing"),
            ProjectError::Exhausted => (StatusCode::CONFLICT, "master_keys_exhausted"),
            ProjectError::OldKey => (StatusCode::CONFLICT, "old_master_key"),
            ProjectError::NotUnderWay(_) => (StatusCode::CONFLICT, "no_master_key_change"),
            ProjectError::Conflict => (StatusCode::CONFLICT, "conflict"),
            ProjectError::Refused(error) => return Self::gate(error),
            ProjectError::Random(_) | ProjectError::Broken => {
                (StatusCode::INTERNAL_SERVER_ERROR, "other")
            }
            ProjectError::Store(error) => return Self::store(error),
        };
        Self::new(status, code, error.to_string())
    }
}

impl Refused {
    /// What the proxy says of an API key, in the words of the admin API.
    fn gate(error: &Error) -> Self {
        match error.code() {
            Code::Authn => Self::new(StatusCode::UNAUTHORIZED, "authn", error.to_string()),
            Code::PermissionDenied => Self::new(
                StatusCode::FORBIDDEN,
                "permission_denied",
                error.to_string(),
            ),
            Code::RateLimited => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", error.to_string())
            }
            _ => Self::store(error),
        }
    }
}
