//! `/api/projects`: what the operator sees of projects, and how one is created.

use std::sync::Arc;

use crate::received::ReceivedBody;
use http::{Method, Request, StatusCode};
use serde::{Deserialize, Serialize};

use super::{
    Admin, answer,
    api::{Outcome, Refused, Rows, parse},
};
use crate::{project::ProjectName, proxy::projects::ProjectError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Create {
    name: String,
    #[serde(default)]
    again: bool,
}

/// A project that was made; the only answer that its first API key is ever in.
#[derive(Serialize)]
struct Made<'a> {
    project: &'a str,
    id: &'a str,
    api_key: &'a str,
    mk_epoch: u32,
}

/// Whether the answer holds an API key, and so must not cross a network: the listener speaks plain HTTP.
pub(super) fn shows_api_key<B>(request: &Request<B>) -> bool {
    *request.method() == Method::POST && request.uri().path() == "/api/projects"
}

impl Admin {
    pub(super) async fn projects(&self) -> Outcome {
        let (rows, next) = (self.parts.proxy.projects().await?, None);
        Ok(answer::json(StatusCode::OK, &Rows { rows, next }))
    }

    pub(super) async fn create_project(&self, request: Request<ReceivedBody>) -> Outcome {
        let form = "{\"name\":…,\"again\":true}, again being optional";
        let asked: Create = parse(request.into_body(), form).await?;
        let name: ProjectName = asked
            .name
            .parse()
            .map_err(|error| Refused::invalid(format!("name: {error}")))?;
        let (proxy, project) = (Arc::clone(&self.parts.proxy), name.clone());
        let issued = made(async move {
            match asked.again {
                true => proxy.create_project_again(&project).await,
                false => proxy.create_project(&project).await,
            }
        });
        let issued = issued.await?;
        let made = Made {
            project: name.as_str(),
            id: &issued.id,
            api_key: &issued.api_key,
            mk_epoch: issued.mk_epoch,
        };
        Ok(answer::json(StatusCode::OK, &made))
    }
}

/// Makes a change, whether or not the caller waits for it: what it says of it is said after it.
pub(super) async fn made<T: Send + 'static>(
    change: impl Future<Output = Result<T, ProjectError>> + Send + 'static,
) -> Result<T, Refused> {
    let made = tokio::spawn(change).await;
    Ok(made.map_err(|_| ProjectError::Broken)??)
}
