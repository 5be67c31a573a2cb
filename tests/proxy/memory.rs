//! No key that a client sent, and no record, is in the program's memory any more once the requests have
//! ended and the connections are closed.
//!
//! Key files are another thing: their keys are in memory for as long as the program runs.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use s2_api::v1::stream::proto::AppendInput;
use serde_json::json;

use crate::harness::{
    Ask, BASIN, CIPHERS, Client, Encoding, Found, Lite, Live, Packed, Program, Secret, Session,
    append, base64, channel, frame, input, read, record, records, search, until,
};

const PROTOCOLS: [&str; 2] = ["http/1.1", "h2"];

/// How often memory is searched before what is found counts: what belonged to a connection may outlive
/// its socket for a moment.
const SEARCHES: usize = 5;

/// The program over a real upstream, with a basin whose streams are encrypted.
struct World {
    cipher: &'static str,
    program: Program,
    _lite: Lite,
    _dir: tempfile::TempDir,
}

/// One client, on a connection and a stream of its own, and what it alone knows.
struct Visit<'a> {
    world: &'a World,
    protocol: &'static str,
    client: Client,
    stream: String,
    key: [u8; 32],
    /// What stands in its records.
    body: String,
}

impl World {
    async fn start(cipher: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lite = Lite::start().await;
        // A key that a client sends for a plain stream must leave nothing either.
        let sections = json!({ "keys": { "on_plain": "warn" } });
        let program = Program::with(dir.path(), lite.address, &sections, "warn");
        let config = json!({
            "stream_cipher": cipher,
            "create_stream_on_append": true,
            "create_stream_on_read": true,
        });
        let ask = Ask::post("/v1/basins").json(&json!({ "basin": BASIN, "config": config }));
        assert_eq!(program.client("h2").await.ask(ask).await.status, 201);
        Self {
            cipher,
            program,
            _lite: lite,
            _dir: dir,
        }
    }

    async fn visit(&self, protocol: &'static str) -> Visit<'_> {
        Visit {
            world: self,
            protocol,
            client: self.program.client(protocol).await,
            stream: format!("s-{:x}", rand::random::<u64>()),
            key: rand::random(),
            body: STANDARD.encode(rand::random::<[u8; 30]>()),
        }
    }
}

impl Visit<'_> {
    fn keyed(&self, ask: Ask) -> Ask {
        ask.without("s2-encryption-key").key(&self.key)
    }

    fn batch(&self) -> AppendInput {
        input([record(
            &[(b"name", self.body.as_bytes())],
            self.body.clone(),
        )])
    }

    fn append(&self, encoding: Encoding) -> Ask {
        self.keyed(append(&self.stream, encoding, Packed::Not, &self.batch()))
    }

    fn read(&self, encoding: Encoding, query: &str) -> Ask {
        self.keyed(read(&self.stream, query, encoding))
    }

    /// Sends a request that must succeed.
    async fn succeed(&self, ask: Ask) {
        let answer = self.client.ask(ask).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    /// Opens an append session and has a record acked in it.
    async fn append_session(&self) -> Session {
        let ask = self.keyed(Ask::post(records(&self.stream)));
        let mut session = Session::append(&self.client, ask).await;
        session.send(frame(&self.batch())).await;
        session.live.frame().await.unwrap().unwrap().ack();
        session
    }

    /// Opens a read session that stays at the tail.
    async fn read_session(&self, encoding: Encoding) -> Live {
        let ask = self.read(encoding, "seq_num=0");
        let mut live = Live::new(self.client.open(ask).await);
        if encoding == Encoding::Frames {
            live.frame().await.unwrap().unwrap();
        } else {
            live.event().await.unwrap().unwrap();
        }
        live
    }

    fn secrets(&self) -> Vec<Secret> {
        vec![
            Secret::key("key", &self.key),
            Secret::text("body", &self.body),
        ]
    }

    /// Finds the whole key while it is in use. Otherwise it would prove nothing not to find it later.
    async fn key_is_present(&self) {
        let found = search(self.world.program.id(), &self.secrets()).await;
        for form in ["first half", "second half", "start of", "end of"] {
            let has = |found: &Found| found.what.contains(form);
            assert!(found.iter().any(has), "no {form} in {found:?}");
        }
    }

    async fn leaves_nothing(self, path: &str) {
        let secrets = self.secrets();
        self.leaves_none_of(&secrets, path).await;
    }

    /// Closes the connection, and finds nothing any more.
    async fn leaves_none_of(self, secrets: &[Secret], path: &str) {
        let program = &self.world.program;
        drop(self.client);
        let closed = async || program.connections() == 0;
        until("all connections are closed", closed).await;
        let mut found = Vec::new();
        for _ in 0..SEARCHES {
            found = search(program.id(), secrets).await;
            if found.is_empty() {
                return;
            }
        }
        let (cipher, protocol) = (self.world.cipher, self.protocol);
        panic!("after {path} with {cipher} over {protocol}: {found:#?}");
    }
}

/// Runs something with each cipher over each protocol.
async fn everywhere(run: impl AsyncFn(&World, &'static str)) {
    for cipher in CIPHERS {
        let world = World::start(cipher).await;
        for protocol in PROTOCOLS {
            run(&world, protocol).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_leave_nothing() {
    everywhere(async |world, protocol| {
        for encoding in Encoding::APPENDS {
            let visit = world.visit(protocol).await;
            visit.succeed(visit.append(encoding)).await;
            visit.leaves_nothing(&format!("{encoding:?} append")).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_leave_nothing() {
    everywhere(async |world, protocol| {
        for encoding in Encoding::READS {
            let visit = world.visit(protocol).await;
            visit.succeed(visit.append(Encoding::Proto)).await;
            let query = "seq_num=0&count=1";
            visit.succeed(visit.read(encoding, query)).await;
            visit.leaves_nothing(&format!("{encoding:?} read")).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_leave_nothing() {
    everywhere(async |world, protocol| {
        let owner = world.visit(protocol).await;
        owner.succeed(owner.append(Encoding::Json)).await;
        let stream = owner.stream.clone();
        owner.leaves_nothing("an append").await;
        for encoding in [Encoding::Json, Encoding::Proto, Encoding::Frames] {
            for is_append in [true, false] {
                let mut other = world.visit(protocol).await;
                other.stream = stream.clone();
                let ask = match is_append {
                    true => other.append(encoding),
                    false => other.read(encoding, "seq_num=0&count=1"),
                };
                let answer = other.client.ask(ask).await;
                assert_eq!(answer.status, 400, "{}", answer.text());
                let path = format!("{encoding:?} with a wrong key, append: {is_append}");
                other.leaves_nothing(&path).await;
            }
        }
    })
    .await;
}

/// What clients send that is no key, and still tells one.
#[derive(Debug, Clone, Copy)]
enum Malformed {
    TooLong,
    NoBase64,
    Half,
    Two,
    Quoted,
}

impl Malformed {
    const ALL: [Self; 5] = [
        Self::TooLong,
        Self::NoBase64,
        Self::Half,
        Self::Two,
        Self::Quoted,
    ];

    fn headers(self, key: &str) -> Vec<String> {
        match self {
            Self::TooLong => vec![format!("{key}=")],
            Self::NoBase64 => vec![key.replacen('=', "!", 1)],
            Self::Half => vec![key[..24].to_owned()],
            Self::Two => vec![key.to_owned(), base64(&[7; 32])],
            Self::Quoted => vec![format!("\"{key}\"")],
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_leaves_nothing() {
    everywhere(async |world, protocol| {
        for kind in Malformed::ALL {
            let visit = world.visit(protocol).await;
            let mut ask = visit.append(Encoding::Json).without("s2-encryption-key");
            for value in kind.headers(&base64(&visit.key)) {
                ask = ask.header("s2-encryption-key", value);
            }
            let answer = visit.client.ask(ask).await;
            assert_eq!(answer.status, 422, "{kind:?}: {}", answer.text());
            visit.leaves_nothing(&format!("{kind:?}")).await;
        }
        let visit = world.visit(protocol).await;
        let ask = Ask::get(format!(
            "{}?s2-encryption-key={}",
            records("s"),
            base64(&visit.key)
        ));
        let answer = visit.client.ask(ask).await;
        assert_eq!(answer.status, 400, "{}", answer.text());
        visit.leaves_nothing("a key in a query").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_for_streams_without_a_cipher_leave_nothing() {
    everywhere(async |world, protocol| {
        let visit = world.visit(protocol).await;
        let basin = format!("plain-{protocol}").replace(['/', '.'], "-");
        let config = json!({ "create_stream_on_append": true });
        let ask = Ask::post("/v1/basins").json(&json!({ "basin": basin, "config": config }));
        let answer = visit.client.ask(ask.without("s2-basin")).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        visit
            .succeed(visit.append(Encoding::Json).basin(&basin))
            .await;
        let ask = visit.read(Encoding::Json, "seq_num=0&count=1");
        visit.succeed(ask.basin(&basin)).await;
        // The record is none of ours to hide: the connection to the upstream may still hold it.
        let key = [Secret::key("key", &visit.key)];
        visit.leaves_none_of(&key, "calls to a plain stream").await;
    })
    .await;
}

/// How a client leaves.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    /// After the end of its session.
    AtTheEnd,
    /// In the middle of it, saying so.
    Early,
    /// As when it is killed.
    Killed,
}

const LEAVES: [Leaves; 3] = [Leaves::AtTheEnd, Leaves::Early, Leaves::Killed];

#[tokio::test(flavor = "multi_thread")]
async fn append_sessions_leave_nothing() {
    everywhere(async |world, protocol| {
        for leaves in LEAVES {
            let visit = world.visit(protocol).await;
            let mut session = visit.append_session().await;
            visit.key_is_present().await;
            match leaves {
                Leaves::AtTheEnd => {
                    session.finish();
                    assert_eq!(session.live.frame().await.unwrap(), None);
                }
                Leaves::Early => session.break_off().await,
                Leaves::Killed => visit.client.vanish(),
            }
            drop(session);
            visit
                .leaves_nothing(&format!("an append session, {leaves:?}"))
                .await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn read_sessions_leave_nothing() {
    everywhere(async |world, protocol| {
        for encoding in [Encoding::Frames, Encoding::Events] {
            for leaves in [Leaves::Early, Leaves::Killed] {
                let visit = world.visit(protocol).await;
                visit.succeed(visit.append(Encoding::Proto)).await;
                let live = visit.read_session(encoding).await;
                visit.key_is_present().await;
                if let Leaves::Killed = leaves {
                    visit.client.vanish();
                }
                drop(live);
                let path = format!("a read session, {encoding:?}, {leaves:?}");
                visit.leaves_nothing(&path).await;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_break_off_leave_nothing() {
    everywhere(async |world, protocol| {
        let visit = world.visit(protocol).await;
        let whole = visit.append(Encoding::Json);
        let half = whole.body_bytes().slice(..whole.body_bytes().len() - 3);
        let (sender, body) = channel();
        sender.send(Ok(half)).await.unwrap();
        let (client, ask) = (&visit.client, whole.raw(""));
        let asking = client.send(ask, body);
        let present = until("the request has arrived", async || {
            let found = search(visit.world.program.id(), &visit.secrets()).await;
            let base64 = |found: &Found| found.what.contains("base64");
            found.iter().any(base64)
        });
        tokio::select! {
            // Standing still for long it may take the head for overdue.
            answer = asking => assert!(answer.is_err(), "an answer to half a request"),
            () = present => visit.client.vanish(),
        }
        drop(sender);
        visit.leaves_nothing("half a request").await;
    })
    .await;
}
