//! Every row of "decides" with everything that a client does, with and without rules: the stream is sealed or
//! the request is refused, and nothing is plain.

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::{
    CLEAR, append,
    board::Board,
    doing::{
        Doing::{self, Appends, AppendsInASession, Creates, DeletesAndCreates, Ensures, Reads},
        Left, Rules,
    },
    lies::Question,
    never_plain, read, row,
    row::Row,
};
use crate::harness::{Ask, Client, Stack};

/// Rows that run at the same time, each in a basin of its own.
const AT_ONCE: usize = 8;

/// A deployment whose upstream answers by the board.
struct Table {
    rules: Rules,
    stack: Stack,
    board: Board,
    client: Client,
    direct: Client,
}

/// Streams that are new when the lies begin, by what is done first.
const NEW: [(&str, Doing); 5] = [
    ("newCreates", Creates),
    ("newAppends", Appends),
    ("newEnsures", Ensures),
    ("newReads", Reads),
    ("newSession", AppendsInASession),
];

impl Table {
    async fn start(rules: Rules) -> Self {
        let stack = rules.start().await;
        Self {
            rules,
            board: Board::of(&stack),
            client: stack.h2().await,
            direct: stack.direct().await,
            stack,
        }
    }

    async fn change(&self, basin: &str, cipher: Value) {
        let change = json!({ "stream_cipher": cipher });
        let ask = Ask::new("PATCH", format!("/v1/basins/{basin}")).json(&change);
        assert_eq!(self.client.ask(ask).await.status, 200);
    }

    /// Makes a basin with two streams that are sealed, and one that is plain where there are such.
    async fn prepare(&self, basin: &str) {
        let is_ruled = self.rules != Rules::None;
        let rules = if is_ruled { self.rules } else { Rules::Streams };
        rules.create_basin(&self.client, basin).await;
        if !is_ruled {
            let clear = append("plain", CLEAR).basin(basin);
            assert_eq!(self.client.ask(clear).await.status, 200);
            self.change(basin, json!("aegis-256")).await;
        }
        for stream in ["old", "deleted"] {
            assert!(Appends.run(&self.client, basin, stream).await);
        }
        if self.rules == Rules::None {
            // A new stream gets another cipher than the old ones have.
            self.change(basin, json!("aes-256-gcm")).await;
        }
    }

    /// What is worth doing for a row. Without rules the proxy has most to ask, so that most is done there.
    fn does(&self, doing: Doing, row: &Row) -> bool {
        let asks = |question| row.answers(question);
        let always = [
            Question::BasinProbe,
            Question::List,
            Question::Tail,
            Question::Append,
        ];
        let is_for_all = always.into_iter().any(asks);
        match doing {
            Appends => true,
            Creates => is_for_all || asks(Question::Create),
            Ensures => is_for_all || asks(Question::Ensure),
            Reads => self.rules == Rules::None && (is_for_all || asks(Question::Read)),
            AppendsInASession => self.rules == Rules::None && is_for_all,
            DeletesAndCreates => {
                asks(Question::Delete) || asks(Question::Create) || asks(Question::List)
            }
        }
    }

    /// Does everything with streams that were there before the lies.
    async fn use_old(&self, basin: &str, row: &Row) -> Vec<Left<'_>> {
        let (client, counts) = (&self.client, !row.answers_appends());
        let mut stored = 1;
        for (_, doing) in NEW.iter().filter(|(_, doing)| self.does(*doing, row)) {
            let acked = doing.run(client, basin, "old").await;
            stored += usize::from(acked && counts);
        }
        if self.does(DeletesAndCreates, row) {
            DeletesAndCreates.run(client, basin, "deleted").await;
        }
        if self.rules == Rules::None {
            for doing in [Appends, Ensures] {
                doing.run(client, basin, "plain").await;
            }
        }
        vec![left("old", stored, row), left("deleted", 0, row)]
    }

    /// Does each thing first with a stream that was not there.
    async fn use_new(&self, basin: &str, row: &Row) -> Vec<Left<'_>> {
        let mut all = Vec::new();
        for (stream, doing) in NEW.iter().filter(|(_, doing)| self.does(*doing, row)) {
            let acked = doing.run(&self.client, basin, stream).await;
            let stored = usize::from(acked && !row.answers_appends());
            all.push(left(stream, stored, row));
        }
        all
    }

    /// Runs a row in two basins: one that was made before the lies, and one that is made among them.
    async fn run(&self, at: usize, row: &'static Row) {
        let why = format!("{:?}, {}", self.rules, row.name);
        let (before, among) = (format!("before-basin-{at}"), format!("among-basin-{at}"));
        self.prepare(&before).await;
        self.board.lie(&self.direct, &before, &[row]).await;
        let mut left = self.use_old(&before, row).await;
        left.extend(self.use_new(&before, row).await);
        self.finish(&before, left, &why).await;
        if !row.answers(Question::List) && !row.answers(Question::BasinProbe) {
            return;
        }
        self.board.lie(&self.direct, &among, &[row]).await;
        let made = self.rules.basin_creation(&among);
        self.client.ask(made).await;
        let left = self.use_new(&among, row).await;
        self.finish(&among, left, &why).await;
    }

    async fn finish(&self, basin: &str, left: Vec<Left<'_>>, why: &str) {
        self.board.be_honest(basin);
        never_plain(&self.stack.tap, why);
        for left in left {
            left.check(&self.client, basin, why).await;
        }
        if self.rules == Rules::None {
            let plain = self.client.ask(read("plain").basin(basin)).await;
            let is_plain = plain.status == 200;
            let clear = |bodies: Vec<String>| bodies.iter().all(|body| body == CLEAR);
            assert!(!is_plain || clear(super::bodies(&plain)), "{why}");
        }
    }
}

fn left<'a>(stream: &'a str, stored: usize, row: &Row) -> Left<'a> {
    Left {
        stream,
        stored,
        has_one_key: !row.renews,
    }
}

async fn every_row(rules: Rules) {
    let table = Table::start(rules).await;
    let rows = stream::iter(row::ROWS.iter().enumerate());
    rows.for_each_concurrent(AT_ONCE, |(at, row)| table.run(at, row))
        .await;
    never_plain(&table.stack.tap, &format!("{rules:?}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_makes_a_stream_plain() {
    every_row(Rules::None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_makes_a_stream_of_a_declared_basin_plain() {
    every_row(Rules::Basins).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_makes_a_declared_stream_plain() {
    every_row(Rules::Streams).await;
}

#[test]
fn rows_answer_every_question_about_streams() {
    let all = [
        Question::BasinProbe,
        Question::List,
        Question::Create,
        Question::Ensure,
        Question::Delete,
        Question::Tail,
        Question::Append,
        Question::Read,
    ];
    let lied: Vec<_> = row::ROWS.iter().flat_map(|row| row.lies).collect();
    for question in all {
        assert!(lied.iter().any(|(to, _)| *to == question), "{question:?}");
    }
    let mut names: Vec<_> = row::ROWS.iter().map(|row| row.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), row::ROWS.len(), "a name twice");
}
