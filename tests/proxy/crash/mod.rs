//! Whenever the proxy is killed, nothing leaks, nothing acked is lost, and no stream changes its cipher.

mod basin;
mod check;
mod found;
mod init;
mod kill;
mod marker;
mod model;
mod rule;
mod stream;
mod work;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Instant,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use serde_json::json;
use streamseal::store::{Config, Embedded, Store as _, StreamState};
use tempfile::TempDir;
use tokio::{sync::watch, task::block_in_place};

use self::{
    basin::Exists,
    check::Eyes,
    kill::Moment,
    model::{Model, Tasks},
    rule::make_basin,
    stream::Stream,
    work::Worker,
};
use crate::harness::{Client, Lite, Program, Tap};

/// Kills in one run, unless `STREAMSEAL_CRASH_KILLS` asks for more.
const KILLS: u64 = 200;

/// Events that must have happened.
const DONE: [&str; 5] = [
    "append 200",
    "create 201",
    "delete 202 ",
    "left creating",
    "left deleting",
];

/// A deployment of which the proxy is killed over and over.
struct Deployment {
    program: Program,
    tap: Tap,
    lite: Lite,
    dir: TempDir,
    model: Model,
    tasks: Vec<Tasks>,
    random: StdRng,
    /// Everything unfinished that was found in the config store.
    intents: BTreeSet<String>,
}

impl Deployment {
    /// Everything that is not young is made.
    async fn start(seed: u64) -> Self {
        let lite = Lite::start().await;
        let tap = Tap::start(lite.address).await;
        let dir = tempfile::tempdir().unwrap();
        let start = || Program::start(dir.path(), tap.address, &json!([]), "warn");
        let program = block_in_place(start);
        let (mut model, tasks) = Model::new();
        let client = program.client("h2").await;
        for basin in model.basins.iter_mut().filter(|basin| !basin.is_young) {
            let ask = make_basin(&basin.name, basin.cycle[0]);
            assert_eq!(client.ask(ask).await.status, 201);
            basin.exists = Exists::Yes;
        }
        Self {
            program,
            tap,
            lite,
            dir,
            model,
            tasks,
            random: StdRng::seed_from_u64(seed),
            intents: BTreeSet::new(),
        }
    }

    /// Lets clients work, kills, and looks at what is left.
    async fn round(&mut self) {
        let (dead, killed) = watch::channel(false);
        let model = Arc::new(Mutex::new(std::mem::take(&mut self.model)));
        let mut workers = Vec::new();
        for (at, tasks) in self.tasks.clone().into_iter().enumerate() {
            let is_h2 = at % 2 == 0;
            let alpn = if is_h2 { "h2" } else { "http/1.1" };
            workers.push(Worker {
                client: self.program.client(alpn).await,
                is_h2,
                model: Arc::clone(&model),
                tasks,
                random: StdRng::seed_from_u64(self.random.random()),
                killed: killed.clone(),
            });
        }
        let moment = Moment::random(&mut self.random);
        let workers: Vec<_> = workers
            .into_iter()
            .map(|worker| tokio::spawn(worker.run()))
            .collect();
        moment
            .kill(&mut self.program, &self.tap, &self.lite, &dead)
            .await;
        for worker in workers {
            worker.await.unwrap();
        }
        self.model = Arc::into_inner(model).unwrap().into_inner().unwrap();
        self.count_intents().await;
        let lanes = self.tap.drain();
        block_in_place(|| self.program.start_again());
        self.check(lanes.iter().flat_map(|lane| marker::found(lane)).collect())
            .await;
    }

    async fn check(&mut self, on_the_wire: BTreeSet<u64>) {
        let eyes = Eyes {
            proxied: self.program.client("h2").await,
            direct: Client::plain(self.lite.address).await,
        };
        eyes.check(&mut self.model).await;
        self.model.begin(&on_the_wire);
    }

    /// Counts what the kill left open in the config store.
    async fn count_intents(&mut self) {
        let config = Config {
            path: self.dir.path().join("store.redb"),
            ..Config::default()
        };
        let store = Embedded::open(&config).unwrap();
        let names: Vec<_> = self
            .model
            .basins
            .iter()
            .map(|basin| basin.name.parse().unwrap())
            .collect();
        for name in &names {
            for (path, found) in store.streams_of(name).await.unwrap() {
                let what = match found.entry.unwrap().state {
                    StreamState::Creating { .. } => "left creating",
                    StreamState::Deleting(_) => "left deleting",
                    StreamState::Live(_) => continue,
                };
                if self.intents.insert(format!("{path} {:?}", found.revision)) {
                    self.model.count(what);
                }
            }
        }
    }

    /// Whether enough of everything happened for the test to mean something.
    fn has_done_enough(&self) -> bool {
        let counts = &self.model.counts;
        DONE.iter()
            .all(|what| counts.get(*what).copied().unwrap_or_default() >= 20)
    }

    /// Reads everything again, from the start.
    async fn finish(&mut self) {
        self.model.streams.iter_mut().for_each(Stream::look_again);
        self.check(BTreeSet::new()).await;
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.program.log();
            let lines: Vec<&str> = log.lines().collect();
            println!("{}", lines[lines.len().saturating_sub(100)..].join("\n"));
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn kills_at_any_moment_lose_nothing_and_reveal_nothing() {
    let seed = setting("STREAMSEAL_CRASH_SEED").unwrap_or_else(rand::random);
    let kills = setting("STREAMSEAL_CRASH_KILLS")
        .unwrap_or(KILLS)
        .max(KILLS);
    println!("STREAMSEAL_CRASH_SEED={seed} STREAMSEAL_CRASH_KILLS={kills}");
    let begun = Instant::now();
    let mut deployment = Deployment::start(seed).await;
    for round in 0..3 * kills {
        // On a busy machine less is done between two kills.
        if round >= kills && deployment.has_done_enough() {
            break;
        }
        deployment.round().await;
    }
    deployment.finish().await;
    let counts = &deployment.model.counts;
    println!("{kills} kills in {:?}: {counts:#?}", begun.elapsed());
    assert!(deployment.has_done_enough(), "each of {DONE:?} 20 times");
}
