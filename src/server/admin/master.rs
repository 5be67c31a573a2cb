//! `/api/projects/rotate-master`: a project's master key is changed, and how far that is, is said line by line.

use std::sync::Arc;

use crate::received::ReceivedBody;
use futures_util::future::BoxFuture;
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Admin,
    answer::{self, Info},
    api::{Outcome, Refused, parse},
    lines::Lines,
};
use crate::{
    proxy::{
        gate::Pass,
        managed::master::{Begun, Left, MasterChange, Progress, Stopped},
        projects::{Issued, ProjectError},
    },
    upstream::Body,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RotateMaster {
    /// The number of the master key whose change is to be ended.
    finish: Option<u32>,
}

/// The API key of the next master key, before any data key is touched; the only line that it is ever in.
#[derive(Serialize)]
struct Made<'a> {
    project: &'a str,
    id: &'a str,
    api_key: &'a str,
    mk_epoch: u32,
}

/// Why it broke off.
#[derive(Serialize)]
struct BrokenOff<'a> {
    done: bool,
    ended: bool,
    error: Info<'a>,
}

impl Admin {
    pub(super) async fn rotate_master(&self, pass: Arc<Pass>, body: ReceivedBody) -> Outcome {
        let asked: RotateMaster = parse(body, "{}, or {\"finish\":2} to end it").await?;
        let turn = Arc::clone(&self.master_changes).try_acquire_owned();
        let turn = turn.map_err(|_| {
            let message = "too many master keys are being changed";
            Refused::new(StatusCode::TOO_MANY_REQUESTS, "busy", message.to_owned())
        })?;
        let proxy = &self.parts.proxy;
        let (lines, body) = Lines::new();
        match asked.finish {
            None => {
                let begun = proxy.begin_master_change(&pass).await?;
                tokio::spawn(begin(begun, pass, lines, turn));
            }
            Some(mk_epoch) => match proxy.resume_master_change(&pass, mk_epoch).await? {
                Left::Change(change) => {
                    tokio::spawn(finish(change, lines, turn));
                }
                Left::Nothing(stopped) => {
                    lines.say(&stopped).await;
                }
            },
        }
        Ok(progress(body))
    }
}

/// Hands the API key over, and wraps every data key. Stops when nobody reads on: the old API keys go on, and so
/// does the change with any later request.
async fn begin(begun: Begun, pass: Arc<Pass>, lines: Lines, turn: OwnedSemaphorePermit) {
    let _turn = turn;
    let Begun { change, issued } = begun;
    let Issued {
        id,
        api_key,
        mk_epoch,
        ..
    } = &issued;
    let made = Made {
        project: pass.project.name.as_str(),
        id,
        api_key,
        mk_epoch: *mk_epoch,
    };
    if !lines.say(&made).await {
        return;
    }
    let stopped = change.rewrap(&mut teller(&lines)).await;
    conclude(stopped.map_err(ProjectError::from), &lines).await;
}

async fn finish(change: Box<MasterChange>, lines: Lines, turn: OwnedSemaphorePermit) {
    let _turn = turn;
    let stopped = change.finish(&mut teller(&lines)).await;
    conclude(stopped, &lines).await;
}

fn teller<'a>(lines: &Lines) -> impl FnMut(Progress) -> BoxFuture<'a, bool> + Send + 'a {
    let lines = lines.clone();
    move |progress| {
        let lines = lines.clone();
        Box::pin(async move { lines.say(&progress).await })
    }
}

async fn conclude(stopped: Result<Option<Stopped>, ProjectError>, lines: &Lines) {
    // Whether anybody reads it changes nothing any more.
    let _is_read = match stopped {
        Ok(Some(stopped)) => lines.say(&stopped).await,
        Ok(None) => false,
        Err(error) => {
            tracing::warn!(%error, "the change of a master key broke off");
            let refused = Refused::from(error);
            let broken_off = BrokenOff {
                done: false,
                ended: false,
                error: refused.info(),
            };
            lines.say(&broken_off).await
        }
    };
}

fn progress(body: Body) -> Response<Body> {
    answer::answer(StatusCode::OK, "application/jsonl", body)
}
