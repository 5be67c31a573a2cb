//! The rows of "decides" in random orders, mixed with the calls of a client that also changes its basin's cipher.

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::{
    board::Board,
    doing::{Doing, Left, Rules},
    never_plain, row,
    row::Row,
};
use crate::harness::{Ask, Client, Tap};

/// Sequences for each kind of rules.
const SEQUENCES: u64 = 50;
/// Calls in one sequence.
const STEPS: usize = 5;
/// Sequences that run at the same time, each in a basin of its own.
const AT_ONCE: usize = 8;
/// Former incarnations of a stream that the proxy keeps for certain.
const RENEWALS: usize = 2;

/// Numbers that are the same in every run: xorshift.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % end as u64).unwrap()
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

/// Streams of each sequence.
const STREAMS: [&str; 2] = ["a", "b"];

/// What a sequence leaves of one stream.
#[derive(Clone, Copy, Default)]
struct Known {
    stored: usize,
    /// A client deleted it: what was stored may be gone.
    was_deleted: bool,
}

/// One sequence of lies and calls.
struct Sequence {
    numbers: Numbers,
    renewals: usize,
    known: [Known; 2],
    /// What was done, to be read when it went wrong.
    story: Vec<String>,
}

impl Sequence {
    fn new(seed: u64) -> Self {
        // The first numbers after a small seed are small, too.
        let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        numbers.below(2);
        Self {
            numbers,
            renewals: 0,
            known: Default::default(),
            story: Vec::new(),
        }
    }

    /// At most two rows, of which few renew.
    fn rows(&mut self) -> Vec<&'static Row> {
        let all: Vec<&'static Row> = row::ROWS.iter().collect();
        let mut rows = Vec::new();
        for _ in 0..self.numbers.below(3) {
            let row = self.numbers.pick(&all);
            if row.renews && self.renewals == RENEWALS {
                continue;
            }
            self.renewals += usize::from(row.renews);
            rows.push(row);
        }
        rows
    }

    async fn step(&mut self, client: &Client, basin: &str, rows: &[&'static Row]) {
        let names: Vec<_> = rows.iter().map(|row| row.name).collect();
        if self.numbers.below(5) == 0 {
            let ciphers = [json!("aegis-256"), json!("aes-256-gcm"), Value::Null];
            let cipher = ciphers[self.numbers.below(3)].clone();
            self.story.push(format!("{names:?}: cipher {cipher}"));
            let change = json!({ "stream_cipher": cipher });
            let path = format!("/v1/basins/{basin}");
            client.ask(Ask::new("PATCH", path).json(&change)).await;
            return;
        }
        let (at, doing) = (self.numbers.below(2), self.numbers.pick(&Doing::ALL));
        self.story
            .push(format!("{names:?}: {doing:?} {}", STREAMS[at]));
        let acked = doing.run(client, basin, STREAMS[at]).await;
        let known = &mut self.known[at];
        known.was_deleted |= doing == Doing::DeletesAndCreates;
        let is_true = !rows.iter().any(|row| row.answers_appends());
        known.stored += usize::from(acked && is_true);
    }
}

async fn run((tap, clients): (&Tap, &[Client; 2]), board: &Board, rules: Rules, seed: u64) {
    let basin = format!("random-basin-{seed}");
    let [client, direct] = clients;
    rules.create_basin(client, &basin).await;
    let mut sequence = Sequence::new(seed + 1);
    for _ in 0..STEPS {
        let rows = sequence.rows();
        board.lie(direct, &basin, &rows).await;
        sequence.step(client, &basin, &rows).await;
    }
    board.be_honest(&basin);
    let why = format!("{rules:?}, {:#?}", sequence.story);
    never_plain(tap, &why);
    for (stream, known) in STREAMS.iter().zip(sequence.known) {
        let left = Left {
            stream,
            stored: if known.was_deleted { 0 } else { known.stored },
            has_one_key: sequence.renewals == 0,
        };
        left.check(client, &basin, &why).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_order_of_lies_makes_a_stream_plain() {
    for rules in Rules::ALL {
        let stack = rules.start().await;
        let board = Board::of(&stack);
        let clients = [stack.h2().await, stack.direct().await];
        let seeds = stream::iter(0..SEQUENCES);
        let run = |seed| run((&stack.tap, &clients), &board, rules, seed);
        seeds.for_each_concurrent(AT_ONCE, run).await;
        never_plain(&stack.tap, &format!("{rules:?}"));
    }
}
