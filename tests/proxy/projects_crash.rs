//! A kill while a project is created, or an API key made, rotated or revoked, leaves one of two outcomes whole,
//! and nothing is lost: whoever got no answer finds out and goes on.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::{
    admin::local,
    harness::{Answer, Ask, Client, Lite, Program},
    projects::keyed,
    projects_commands::start,
};

/// Kills of each kind, spread over the time that the call takes.
const KILLS: u32 = 12;

/// Most rounds of so many, until some came before the change was made and others after it.
const MAX_ROUNDS: u32 = 5;

/// The program, killed again and again.
struct World {
    program: Program,
    _lite: Lite,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lite = Lite::start().await;
        Self {
            program: start(dir.path(), &lite, "warn"),
            _lite: lite,
            _dir: dir,
        }
    }

    async fn ask(&self, ask: Ask) -> Answer {
        Client::plain_http1(self.program.admin())
            .await
            .ask(ask)
            .await
    }

    /// What a call that must succeed says.
    async fn call(&self, ask: Ask) -> Value {
        let answer = self.ask(ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// Sends it and kills the program so long after; what it said, if anything.
    async fn killed(&mut self, ask: Ask, after: Duration) -> Option<Value> {
        let client = Client::plain_http1(self.program.admin()).await;
        let asking = tokio::spawn(async move { client.try_ask(ask).await });
        tokio::time::sleep(after).await;
        self.program.kill();
        let answer = asking.await.unwrap().ok();
        block_in_place(|| self.program.start_again());
        let answer = answer?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Some(answer.json())
    }

    async fn is_good(&self, made: &Value) -> bool {
        let ask = Ask::get("/v1/streams").header("authorization", format!("Bearer {}", text(made)));
        self.program.client("h2").await.ask(ask).await.status != 401
    }

    async fn list(&self, by: &Value) -> Vec<Value> {
        let listed = self.call(keyed("GET", "/api/apikeys", text(by))).await;
        listed["rows"].as_array().unwrap().clone()
    }

    async fn issue(&self, by: &Value) -> Value {
        let all = json!({ "scopes": ["append", "read", "manage"] });
        let ask = keyed("POST", "/api/apikeys", text(by)).raw(all.to_string());
        self.call(ask).await
    }
}

fn text(made: &Value) -> &str {
    made["api_key"].as_str().unwrap()
}

fn create(again: bool) -> Ask {
    local("POST", "/api/projects").json(&json!({ "name": "payments", "again": again }))
}

fn rotate(by: &Value) -> Ask {
    keyed("POST", "/api/apikeys/rotate", text(by)).raw("{}")
}

fn revoke(by: &Value, id: &Value) -> Ask {
    let body = json!({ "id": id });
    keyed("POST", "/api/apikeys/revoke", text(by)).raw(body.to_string())
}

/// What one call takes that is not disturbed, with room to spare.
async fn undisturbed(call: impl Future<Output = Value>) -> (Value, Duration) {
    let begun = Instant::now();
    let said = call.await;
    (said, begun.elapsed() * 5 / 4)
}

/// When to kill, and what the kills found.
struct Kills {
    whole: Duration,
    next: u32,
    /// Kills after the change was made, and before it.
    made: u32,
    not_made: u32,
    /// Of the first, those without an answer.
    unanswered: u32,
}

impl Kills {
    fn over(whole: Duration) -> Self {
        Self {
            whole,
            next: 0,
            made: 0,
            not_made: 0,
            unanswered: 0,
        }
    }

    /// How long after the call to kill next: a round more for as long as all came on the same side, and over
    /// twice the time each.
    fn next(&mut self) -> Option<Duration> {
        let (round, kill) = (self.next / KILLS, self.next % KILLS);
        let is_enough = self.made > 0 && self.not_made > 0;
        if kill == 0 && round > 0 && is_enough {
            return None;
        }
        let Self { made, not_made, .. } = self;
        assert!(
            round < MAX_ROUNDS,
            "{made} kills after the change, {not_made} before it"
        );
        self.next += 1;
        Some(self.whole * (1 << round) * kill / KILLS)
    }

    fn found(&mut self, is_made: bool, is_answered: bool) {
        match is_made {
            true => self.made += 1,
            false => self.not_made += 1,
        }
        self.unanswered += u32::from(is_made && !is_answered);
        assert!(is_made || !is_answered, "said, and not done");
    }

    fn tell(&self, what: &str) {
        let Self {
            whole,
            made,
            not_made,
            unanswered,
            ..
        } = self;
        println!(
            "{made} {what}, {unanswered} of them without an answer, {not_made} not, in {whole:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_creation_leaves_a_project_or_none() {
    let mut world = World::start().await;
    let (mut good, whole) = undisturbed(world.call(create(false))).await;
    let mut kills = Kills::over(whole);
    while let Some(after) = kills.next() {
        let before = good.clone();
        let said = world.killed(create(true), after).await;
        kills.found(!world.is_good(&before).await, said.is_some());
        match said {
            Some(made) => good = made,
            None if world.is_good(&before).await => {}
            None => good = world.call(create(true)).await,
        }
        assert!(world.is_good(&good).await);
        assert_eq!(world.list(&good).await.len(), 1, "whole, or not at all");
        assert!(good == before || !world.is_good(&before).await);
    }
    kills.tell("made");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_rotation_leaves_both_keys_or_the_old_one_alone() {
    let mut world = World::start().await;
    let first = world.call(create(false)).await;
    let (mut key, whole) = undisturbed(world.call(rotate(&first))).await;
    let mut kills = Kills::over(whole);
    while let Some(after) = kills.next() {
        let known: Vec<Value> = world.list(&key).await;
        let rotated = world.killed(rotate(&key), after).await;
        assert!(world.is_good(&key).await, "the old one is good in any case");
        let rows = world.list(&key).await;
        let is_known = |row: &&Value| known.iter().any(|known| known["id"] == row["id"]);
        let fresh: Vec<_> = rows.iter().filter(|row| !is_known(row)).collect();
        let own = rows.iter().find(|row| row["own"] == true).unwrap();
        kills.found(!fresh.is_empty(), rotated.is_some());
        match (rotated, &fresh[..]) {
            (None, []) => assert_eq!(own["state"], "active"),
            (Some(made), [row]) => {
                assert_eq!((&row["id"], &own["successor"]), (&made["id"], &made["id"]));
                assert!(world.is_good(&made).await);
                key = made;
            }
            (None, [row]) => {
                // Nobody has it. Another one takes its place, and it ends.
                assert_eq!(
                    (&row["state"], &own["state"]),
                    (&json!("active"), &json!("retiring"))
                );
                let made = world.issue(&key).await;
                world.call(revoke(&made, &row["id"])).await;
                key = made;
            }
            (rotated, fresh) => panic!("{} {fresh:?}", rotated.is_some()),
        }
    }
    kills.tell("rotated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_revocation_is_done_or_not_and_then_it_is() {
    let mut world = World::start().await;
    let first = world.call(create(false)).await;
    let other = world.issue(&first).await;
    let (_, whole) = undisturbed(world.call(revoke(&first, &other["id"]))).await;
    let mut kills = Kills::over(whole);
    while let Some(after) = kills.next() {
        let other = world.issue(&first).await;
        let said = world.killed(revoke(&first, &other["id"]), after).await;
        let is_good = world.is_good(&other).await;
        kills.found(!is_good, said.is_some());
        let again = world.call(revoke(&first, &other["id"])).await;
        assert_eq!(again["was_good"], is_good);
        assert!(!world.is_good(&other).await && world.is_good(&first).await);
    }
    kills.tell("revoked");
}
