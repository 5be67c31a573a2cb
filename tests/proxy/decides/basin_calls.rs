//! Lies about the calls that make, change and delete basins: a record with a key is sealed or refused, whatever
//! became of the basin.

use serde_json::json;

use super::{
    KEYED, bodies,
    doing::{Doing, Rules},
    lies,
    lies::{Asked, Question},
    never_plain, read,
};
use crate::harness::{Ask, Client, KEY, Stack};

/// A name, the call that is lied about, and the lie.
type Lie = (&'static str, Question, lies::Liar);

/// Lies about calls that make, change and delete basins.
#[rustfmt::skip]
const BASIN_LIES: &[Lie] = &[
    ("created", Question::BasinCreate, |asked| lies::provisions(201, &lies::basin(&asked.basin), "created")),
    ("it was there", Question::BasinCreate, |asked| lies::provisions(200, &lies::basin(&asked.basin), "noop")),
    ("the name is taken", Question::BasinCreate, |_| lies::fails(409, "resource_already_exists")),
    ("the creation is late", Question::BasinCreate, |_| lies::fails(408, "request_timeout")),
    ("the creation fails", Question::BasinCreate, |_| lies::fails(500, "other")),
    ("ensured, created", Question::BasinEnsure, |asked| lies::provisions(201, &lies::basin(&asked.basin), "created")),
    ("ensured, updated", Question::BasinEnsure, |asked| lies::provisions(200, &lies::basin(&asked.basin), "updated")),
    ("ensured, nothing to do", Question::BasinEnsure, |asked| lies::provisions(200, &lies::basin(&asked.basin), "noop")),
    ("no basin to ensure", Question::BasinEnsure, |_| lies::fails(404, "basin_not_found")),
    ("the ensure fails", Question::BasinEnsure, |_| lies::fails(500, "other")),
    ("changed", Question::BasinPatch, |_| lies::says(200, &json!({}))),
    ("no basin to change", Question::BasinPatch, |_| lies::fails(404, "basin_not_found")),
    ("the change fails", Question::BasinPatch, |_| lies::fails(500, "other")),
    ("deleted", Question::BasinDelete, |_| lies::says(202, &json!({}))),
    ("no basin to delete", Question::BasinDelete, |_| lies::fails(404, "basin_not_found")),
    ("the deletion conflicts", Question::BasinDelete, |_| lies::fails(409, "conflict")),
    ("the deletion fails", Question::BasinDelete, |_| lies::fails(500, "other")),
    ("there is no basin", Question::BasinProbe, |_| lies::fails(404, "basin_not_found")),
    ("there is a basin", Question::BasinProbe, |_| lies::says(200, &json!({}))),
];

/// Every call about a basin, each of which asks for a cipher or says nothing of it.
fn basin_calls(basin: &str) -> Vec<Ask> {
    let path = format!("/v1/basins/{basin}");
    let config = json!({ "stream_cipher": "aegis-256", "create_stream_on_append": true });
    let create = json!({ "basin": basin, "config": config });
    let bare = json!({ "basin": basin, "config": { "create_stream_on_append": true } });
    vec![
        Ask::post("/v1/basins").json(&create),
        Ask::new("PATCH", &path).json(&config),
        Ask::new("PUT", &path).json(&json!({ "config": config })),
        Ask::new("DELETE", &path),
        Ask::post("/v1/basins").json(&create),
        Ask::post("/v1/basins").json(&bare),
        Ask::new("PUT", &path).json(&json!({ "config": bare["config"] })),
        Ask::new("PATCH", &path).json(&config),
    ]
}

/// Makes every call while the upstream lies about one of them, with appends between them.
async fn run(stack: &Stack, client: &Client, basin: &str, lie: &'static Lie) {
    let (what, question, liar) = *lie;
    stack.lite.lie(move |seen| {
        let asked = Asked::of(seen)?;
        (asked.question == question).then(|| liar(&asked))
    });
    for (step, call) in basin_calls(basin).into_iter().enumerate() {
        client.ask(call).await;
        let doing = [Doing::Appends, Doing::Creates][step % 2];
        doing.run(client, basin, &format!("new{step}")).await;
    }
    stack.lite.be_honest();
    Doing::Appends.run(client, basin, "old").await;
    let opened = client.ask(read("old").basin(basin).key(&KEY)).await;
    if opened.status == 200 {
        let bodies = bodies(&opened);
        let is_ours = |body: &String| body.starts_with(KEYED);
        assert!(bodies.iter().all(is_ours), "{bodies:?}");
    }
    never_plain(&stack.tap, &format!("{what}, {basin}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_about_a_basin_makes_a_stream_plain() {
    let stack = Rules::None.start().await;
    let client = stack.h2().await;
    for (at, lie) in BASIN_LIES.iter().enumerate() {
        run(&stack, &client, &format!("new-basin-{at}"), lie).await;
        let old = format!("old-basin-{at}");
        Rules::None.create_basin(&client, &old).await;
        Doing::Appends.run(&client, &old, "old").await;
        run(&stack, &client, &old, lie).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_about_a_declared_basin_makes_a_stream_plain() {
    let stack = Rules::Basins.start().await;
    let client = stack.h2().await;
    for (at, lie) in BASIN_LIES.iter().enumerate() {
        run(&stack, &client, &format!("new-basin-{at}"), lie).await;
    }
}
