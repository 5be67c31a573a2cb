//! `/api/apikeys`: the API keys of a project, administered by whoever has one with scope `manage`.

use std::{sync::Arc, time::Duration};

use crate::received::ReceivedBody;
use http::{Response, StatusCode};
use humantime_serde::re::humantime;
use serde::{Deserialize, Serialize};

use super::{
    Admin, answer,
    api::{Outcome, Refused, Rows, parse},
    projects::made,
};
use crate::{
    clock,
    project::Scope,
    proxy::{
        gate::Pass,
        projects::{ApiKeyView, GRACE, Issued, Rotated, Wanted},
    },
    upstream::Body,
};

#[derive(Serialize)]
struct Listed<'a> {
    project: &'a str,
    #[serde(flatten)]
    rows: Rows<ApiKeyView>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Issue {
    scopes: Vec<Scope>,
    #[serde(default)]
    label: String,
    expires_in: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rotate {
    id: Option<String>,
    grace: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Revoke {
    id: String,
    #[serde(default)]
    force: bool,
}

/// An API key that was made; the only answer that it is ever in.
#[derive(Serialize)]
struct Made<'a> {
    project: &'a str,
    id: &'a str,
    api_key: &'a str,
    mk_epoch: u32,
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    replaces: Option<Replaced<'a>>,
}

/// The API key whose place it takes.
#[derive(Serialize)]
struct Replaced<'a> {
    id: &'a str,
    /// It is good until then.
    until: String,
}

impl Admin {
    pub(super) async fn api_keys(&self, pass: &Pass) -> Outcome {
        let (rows, next) = (self.parts.proxy.api_keys(pass).await?, None);
        let listed = Listed {
            project: pass.project.name.as_str(),
            rows: Rows { rows, next },
        };
        Ok(answer::json(StatusCode::OK, &listed))
    }

    pub(super) async fn issue_api_key(&self, pass: Arc<Pass>, body: ReceivedBody) -> Outcome {
        let form =
            "{\"scopes\":[\"append\",\"read\",\"manage\"],\"label\":…,\"expires_in\":\"30d\"}";
        let asked: Issue = parse(body, form).await?;
        let wanted = Wanted {
            scopes: asked.scopes.into_iter().collect(),
            label: asked.label,
            lifetime: span("expires_in", asked.expires_in.as_deref())?,
        };
        let (proxy, by) = (Arc::clone(&self.parts.proxy), Arc::clone(&pass));
        let issued = made(async move { proxy.issue_api_key(&by, &wanted).await }).await?;
        Ok(show(&pass, &issued, None))
    }

    pub(super) async fn rotate_api_key(&self, pass: Arc<Pass>, body: ReceivedBody) -> Outcome {
        let asked: Rotate = parse(body, "{\"id\":…,\"grace\":\"24h\"}, both optional").await?;
        let grace = span("grace", asked.grace.as_deref())?.unwrap_or(GRACE);
        let (proxy, by) = (Arc::clone(&self.parts.proxy), Arc::clone(&pass));
        let rotating = async move {
            let id = asked.id.as_deref();
            proxy.rotate_api_key(&by, id, grace).await
        };
        let rotated: Rotated = made(rotating).await?;
        let replaces = Replaced {
            id: &rotated.replaces,
            until: clock::rfc3339(rotated.until),
        };
        Ok(show(&pass, &rotated.issued, Some(replaces)))
    }

    pub(super) async fn revoke_api_key(&self, pass: Arc<Pass>, body: ReceivedBody) -> Outcome {
        let asked: Revoke = parse(body, "{\"id\":…,\"force\":true}, force being optional").await?;
        let (proxy, id, force) = (Arc::clone(&self.parts.proxy), asked.id.clone(), asked.force);
        let revoking = async move { proxy.revoke_api_key(&pass, &id, force).await };
        let was_good = made(revoking).await?;
        let said = serde_json::json!({ "id": asked.id, "was_good": was_good });
        Ok(answer::json(StatusCode::OK, &said))
    }
}

fn show(pass: &Pass, issued: &Issued, replaces: Option<Replaced<'_>>) -> Response<Body> {
    let made = Made {
        project: pass.project.name.as_str(),
        id: &issued.id,
        api_key: &issued.api_key,
        mk_epoch: issued.mk_epoch,
        expires_at: issued.expires_at.map(clock::rfc3339),
        replaces,
    };
    answer::json(StatusCode::OK, &made)
}

/// A time span as people write it.
fn span(name: &str, text: Option<&str>) -> Result<Option<Duration>, Refused> {
    let span = text.map(humantime::parse_duration).transpose();
    span.map_err(|_| Refused::invalid(format!("{name}: must be a time span, such as 30d or 12h")))
}
