//! Clients that create, append, read, delete and change ciphers at random until the proxy dies.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http_body_util::BodyExt as _;
use rand::{RngExt as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::{Value, json};
use tokio::{sync::watch, time::timeout};

use super::{
    basin::{Exists, cipher},
    marker,
    model::{Model, Tasks},
    stream::Kind,
};
use crate::harness::{
    Answer, Ask, Client, DEADLINE, Encoding, Frame, KEY, Live, Packed, ack, append, channel, frame,
    input, read, record, records,
};

/// One client.
pub struct Worker {
    pub client: Client,
    pub is_h2: bool,
    pub model: Arc<Mutex<Model>>,
    pub tasks: Tasks,
    pub random: StdRng,
    /// Whether the proxy is dead, or about to be.
    pub killed: watch::Receiver<bool>,
}

/// The request with the key, or without one.
pub fn keyed(ask: Ask, with_key: bool) -> Ask {
    let ask = ask.without("s2-encryption-key");
    match with_key {
        true => ask.key(&KEY),
        false => ask,
    }
}

/// The connection broke.
pub struct Gone;

/// What a request comes to.
pub type Done<T = ()> = Result<T, Gone>;

impl Worker {
    /// Works until the proxy dies.
    pub async fn run(mut self) {
        while self.step().await.is_ok() {}
        drop(self.killed.wait_for(|killed| *killed).await);
    }

    async fn step(&mut self) -> Done {
        let tasks = self.tasks.clone();
        let mut pick = |of: &[usize]| *of.choose(&mut self.random).unwrap();
        let (owned, shared, contended) = (
            pick(&tasks.owned),
            pick(&tasks.shared),
            pick(&tasks.contended),
        );
        match self.random.random_range(0..100) {
            0..34 => self.append(owned).await,
            34..44 => self.create(owned).await,
            44..56 => self.delete(owned).await,
            56..66 => self.append(shared).await,
            66..69 => self.create(shared).await,
            69..77 => self.append(contended).await,
            77..80 => self.create(contended).await,
            80..84 => self.delete(contended).await,
            84..88 => self.read(contended).await,
            _ => match (tasks.ciphers.first(), tasks.young.first()) {
                (Some(basin), _) => self.change_cipher(*basin).await,
                (None, Some((basin, streams))) => self.grow(*basin, streams).await,
                (None, None) => self.read(owned).await,
            },
        }
    }

    pub async fn append(&mut self, at: usize) -> Done {
        let (count, coin) = (self.random.random_range(1..=3), self.random.random());
        let (ids, basin, name, with_key) = {
            let mut model = self.model();
            let (stream, basin) = model.stream(at);
            stream.may_begin(basin);
            let with_key = stream.takes_key(basin).unwrap_or(coin);
            let names = (basin.name.clone(), stream.name.clone());
            (model.send(at, count, with_key), names.0, names.1, with_key)
        };
        // In base64 a body could not be told on the wire. A session that is refused costs an HTTP/1.1
        // connection.
        let encodings = [Encoding::Json, Encoding::Proto, Encoding::Frames];
        let encodings = if self.is_h2 {
            &encodings[..]
        } else {
            &encodings[..2]
        };
        let encoding = *encodings.choose(&mut self.random).unwrap();
        let batch = input(ids.iter().map(|id| record(&[], marker::body(*id))));
        if encoding == Encoding::Frames {
            let ask = Ask::post(records(&name)).basin(&basin);
            return self.session(at, keyed(ask, with_key), ids, with_key).await;
        }
        let ask = append(&name, encoding, Packed::Not, &batch).basin(&basin);
        let ask = keyed(ask, with_key);
        let answer = self.ask(at, ask).await?;
        if answer.status == 200 {
            let start = ack(encoding, &answer).start.unwrap().seq_num;
            self.acked(at, start, &ids, with_key);
            Ok(())
        } else {
            self.refused("append", at, answer.status, &answer.code())
        }
    }

    /// Appends one record after the other in a session.
    async fn session(&mut self, at: usize, ask: Ask, ids: Vec<u64>, with_key: bool) -> Done {
        let (sender, body) = channel();
        let ask = ask.header("content-type", "s2s/proto");
        let opened = timeout(DEADLINE, self.client.send(ask, body)).await;
        let Ok(response) = opened.expect("a session hangs") else {
            return Err(self.broken(at));
        };
        let status = response.status().as_u16();
        if status != 200 {
            let Ok(body) = response.into_body().collect().await else {
                return Err(self.broken(at));
            };
            let body: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
            let code = body["code"].as_str().unwrap_or_default();
            return self.refused("session", at, status, code);
        }
        let mut live = Live::new(response);
        for id in ids {
            let batch = frame(&input([record(&[], marker::body(id))]));
            let _gone = sender.send(Ok(batch)).await;
            match live.frame().await {
                Ok(Some(message @ Frame::Message { .. })) => {
                    self.acked(at, message.ack().start.unwrap().seq_num, &[id], with_key);
                }
                Ok(Some(end)) => {
                    let (status, code) = end.failure();
                    return self.refused("session", at, status, &code);
                }
                Ok(None) => panic!("a session ended cleanly before its ack"),
                Err(_) => return Err(self.broken(at)),
            }
        }
        Ok(())
    }

    async fn create(&mut self, at: usize) -> Done {
        let (basin, name) = {
            let mut model = self.model();
            let (stream, basin) = model.stream(at);
            stream.may_begin(basin);
            (basin.name.clone(), stream.name.clone())
        };
        let is_post = self.random.random();
        let ask = match is_post {
            true => Ask::post("/v1/streams").json(&json!({ "stream": name })),
            false => Ask::new("PUT", format!("/v1/streams/{name}")),
        };
        let answer = self.ask(at, ask.basin(&basin)).await?;
        match answer.status {
            200 | 201 => {
                let shown = answer.json();
                let created_at = shown["created_at"].as_str().unwrap().to_owned();
                let mut model = self.model();
                let (stream, basin) = model.stream(at);
                let existed = stream.exists == Exists::Yes && stream.kind == Kind::Owned;
                assert!(!(is_post && existed), "{name} was created twice");
                if stream.is_stranded || (basin.wavers() && shown["cipher"].is_null()) {
                    // It may have slipped in before the cipher: only the check can tell.
                    stream.is_there(basin);
                } else {
                    stream.created(basin, created_at, cipher(&shown["cipher"]));
                }
                model.count("create 201");
                Ok(())
            }
            status => self.refused("create", at, status, &answer.code()),
        }
    }

    async fn delete(&mut self, at: usize) -> Done {
        let (basin, name) = {
            let mut model = self.model();
            let (stream, basin) = model.stream(at);
            stream.touched = true;
            (basin.name.clone(), stream.name.clone())
        };
        let ask = Ask::new("DELETE", format!("/v1/streams/{name}")).basin(&basin);
        let asked = self.ask_all(ask).await;
        let answer = asked.inspect_err(|_| self.model().stream(at).0.may_be_deleted())?;
        let mut model = self.model();
        let code = answer.code();
        model.count(format!("delete {} {code}", answer.status));
        let stream = model.stream(at).0;
        match (answer.status, &*code) {
            (202, _) => stream.deleted(),
            (404, "stream_not_found") if stream.kind == Kind::Owned => {
                assert_ne!(stream.exists, Exists::Yes, "{name} is lost");
            }
            (404, "stream_not_found") | (409, "stream_deletion_pending") => {}
            (409, "transaction_conflict") => {
                stream.may_be_deleted();
                // Whether it happened only the check can tell.
                return Err(Gone);
            }
            _ => panic!("deletion of {name}: {}", answer.text()),
        }
        Ok(())
    }

    async fn read(&mut self, at: usize) -> Done {
        let coin = self.random.random();
        let (basin, name, with_key) = {
            let mut model = self.model();
            let (stream, basin) = model.stream(at);
            let with_key = stream.takes_key(basin).unwrap_or(coin);
            (basin.name.clone(), stream.name.clone(), with_key)
        };
        let encoding = *Encoding::READS.choose(&mut self.random).unwrap();
        let ask = read(&name, "seq_num=0&count=3", encoding).basin(&basin);
        let ask = keyed(ask, with_key);
        let answer = self.ask(at, ask).await?;
        match answer.status {
            200 | 416 => {
                self.model().count("read");
                Ok(())
            }
            status => self.refused("read", at, status, &answer.code()),
        }
    }

    /// Asks something that may create a stream.
    async fn ask(&self, at: usize, ask: Ask) -> Done<Answer> {
        let what = format!("{ask:?}");
        let answer = timeout(DEADLINE, self.client.try_ask(ask)).await;
        let answer = answer.unwrap_or_else(|_| panic!("hangs: {what}"));
        let answer = answer.map_err(|_| self.broken(at))?;
        match (answer.status, &*answer.code()) {
            (500, "other") => Err(self.broken(at)),
            _ => Ok(answer),
        }
    }

    /// Asks something else, which breaks only when the proxy dies.
    pub async fn ask_all(&self, ask: Ask) -> Done<Answer> {
        let what = format!("{ask:?}");
        let answer = timeout(DEADLINE, self.client.try_ask(ask)).await;
        let answer = answer.unwrap_or_else(|_| panic!("hangs: {what}"));
        answer.map_err(|error| {
            assert!(*self.killed.borrow(), "{what} broke by itself: {error}");
            Gone
        })
    }

    fn acked(&self, at: usize, start: u64, ids: &[u64], with_key: bool) {
        let mut model = self.model();
        let (stream, basin) = model.stream(at);
        stream.acked(basin, start, ids, with_key);
        model.count("append 200");
    }

    /// The connection broke, or a stream of it.
    fn broken(&self, at: usize) -> Gone {
        let mut model = self.model();
        let (stream, basin) = model.stream(at);
        stream.may_be_there();
        // An append to a plain stream ends when the stream may not be plain any more.
        let ends = basin.wavers() || stream.kind == Kind::Contended && basin.may_be_plain();
        let explained = *self.killed.borrow() || ends;
        assert!(explained, "broke by itself: {stream:?}");
        Gone
    }

    /// A request was refused: for a reason, and without a trace.
    fn refused(&self, what: &str, at: usize, status: u16, code: &str) -> Done {
        let mut model = self.model();
        model.count(format!("{what} {status} {code}"));
        let (stream, basin) = model.stream(at);
        let is_owned = stream.kind == Kind::Owned;
        let must_work = stream.kind != Kind::Contended && stream.exists == Exists::Yes;
        let fine = match (status, code) {
            (409, "resource_already_exists") => !is_owned || stream.exists != Exists::No,
            (404, "stream_not_found") => !must_work && what == "read" || !is_owned,
            (409, "stream_deletion_pending") => !must_work,
            (409, "transaction_conflict") => true,
            // The stream was deleted under it, or deleted and created again: nothing was done.
            (503, "unavailable") => stream.kind == Kind::Contended,
            // The same, or a session began under another cipher of its basin: nothing was done.
            (502, "hot_server") => stream.kind == Kind::Contended || basin.changes(),
            (403, "permission_denied") => {
                stream.is_stranded || basin.wavers() || stream.may_be_unknown(basin)
            }
            // With a key and it is plain, or without one and it is not: that it is may just have been decided.
            (422, "invalid") => stream.takes_key(basin).is_none(),
            _ => false,
        };
        assert!(fine, "{what}: {status} {code} of {stream:?} in {basin:?}");
        if status == 422 || (status, code) == (502, "hot_server") {
            // It may have been created, encrypted, for a request without a key. A session creates it when it begins.
            stream.may_be_there();
        }
        Ok(())
    }

    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
