//! What clients do while the upstream lies, and what must be so afterwards.

use serde_json::json;
use streamseal::registry::rules::RuleCipher;

use super::{
    CLEAR, OTHER, append, basin_rule, body_of, create, ensure, keyed_by, outcome, read, session,
    stream_rule,
};
use crate::harness::{Ask, Client, KEY, Stack, records};

/// What a client does with a stream. Each ends with an append with [`KEY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing {
    Creates,
    Appends,
    AppendsInASession,
    Ensures,
    Reads,
    DeletesAndCreates,
}

impl Doing {
    pub const ALL: [Self; 6] = [
        Self::Creates,
        Self::Appends,
        Self::AppendsInASession,
        Self::Ensures,
        Self::Reads,
        Self::DeletesAndCreates,
    ];

    /// Does it, checks that each answer is a success or an error, and says whether the last append was acked.
    pub async fn run(self, client: &Client, basin: &str, stream: &str) -> bool {
        let path = format!("/v1/streams/{stream}");
        let body = body_in(basin, stream);
        let last = append(stream, &body).key(&KEY);
        let asks = match self {
            Self::Creates => vec![create(stream)],
            Self::Appends => vec![],
            Self::AppendsInASession => vec![session(stream, &body).key(&KEY)],
            Self::Ensures => vec![ensure(stream)],
            Self::Reads => vec![read(stream).key(&KEY), Ask::get(records(stream) + "/tail")],
            Self::DeletesAndCreates => vec![Ask::new("DELETE", path), create(stream)],
        };
        let mut status = 0;
        for ask in asks.into_iter().chain([last]) {
            let answer = client.ask(ask.basin(basin)).await;
            status = outcome(&answer).0;
            let is_answer = [200, 201, 202].contains(&status) || status >= 400;
            assert!(is_answer, "{basin}/{stream}: {status}");
        }
        status == 200
    }
}

/// The body of every record with [`KEY`]: it says where it is from.
fn body_in(basin: &str, stream: &str) -> String {
    body_of(&format!("{basin}/{stream}"), &KEY)
}

/// What is known of a stream once the upstream is honest again.
pub struct Left<'a> {
    pub stream: &'a str,
    /// Records with [`KEY`] that are stored for certain, and were never deleted.
    pub stored: usize,
    /// Whether nothing but [`KEY`] may append.
    pub has_one_key: bool,
}

impl Left<'_> {
    /// Checks that what was acked opens, that nothing else is taken for it, and that no other key gets in.
    pub async fn check(&self, client: &Client, basin: &str, why: &str) {
        let why = format!("{why}, {basin}/{}", self.stream);
        let ask = |ask: Ask| client.ask(ask.basin(basin));
        if self.stored > 0 && self.has_one_key {
            let wrong = outcome(&ask(keyed_by(self.stream, &OTHER)).await);
            assert_eq!(wrong, (400, "decryption_failed".to_owned()), "{why}");
            let clear = ask(append(self.stream, CLEAR)).await;
            assert_eq!(clear.status, 422, "{why}: {}", clear.text());
        }
        let sent = body_in(basin, self.stream);
        let appended = ask(append(self.stream, &sent).key(&KEY)).await;
        assert!(appended.status == 200 || appended.status >= 400, "{why}");
        let opened = ask(read(self.stream).key(&KEY)).await;
        if opened.status != 200 {
            assert_eq!(self.stored, 0, "{why}: {}", opened.text());
            assert!(opened.status >= 400, "{why}: {}", opened.status);
            return;
        }
        let bodies = super::bodies(&opened);
        assert!(bodies.iter().all(|body| *body == sent), "{why}: {bodies:?}");
        let stored = self.stored + usize::from(appended.status == 200);
        assert!(bodies.len() >= stored, "{why}: {bodies:?}, {stored}");
    }
}

/// How a deployment's streams get their cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    None,
    Basins,
    Streams,
}

impl Rules {
    pub const ALL: [Self; 3] = [Self::None, Self::Basins, Self::Streams];

    /// A deployment with these rules for all its basins.
    pub async fn start(self) -> Stack {
        Stack::with(|config| match self {
            Self::None => {}
            Self::Basins => config.basins = vec![basin_rule("*-basin-*")],
            Self::Streams => {
                config.streams = vec![stream_rule("*-basin-*/**", RuleCipher::Aegis256)];
            }
        })
        .await
    }

    /// Makes a basin whose new streams are sealed.
    pub async fn create_basin(self, client: &Client, basin: &str) {
        let made = client.ask(self.basin_creation(basin)).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }

    /// The creation of such a basin.
    pub fn basin_creation(self, basin: &str) -> Ask {
        let cipher = (self != Self::Streams).then_some("aegis-256");
        let config = json!({ "stream_cipher": cipher, "create_stream_on_append": true,
            "create_stream_on_read": true });
        Ask::post("/v1/basins").json(&json!({ "basin": basin, "config": config }))
    }
}
