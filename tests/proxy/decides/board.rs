//! The rows of "decides" that are in force, in each basin its own: rows can run at the same time.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use serde_json::Value;

use super::{
    lies::{Asked, Reply},
    row::Row,
};
use crate::harness::{Ask, Client, Stack};

/// The stream that the upstream lists when it is asked for all.
pub const EXPECTED: &str = "newCreates";

/// Which rows are in force in which basin.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<HashMap<String, InForce>>>);

#[derive(Clone, Default)]
struct InForce {
    rows: Vec<&'static Row>,
    /// When the basin's streams were made.
    made: HashMap<String, String>,
}

impl Board {
    /// A board that the upstream of `stack` answers by.
    pub fn of(stack: &Stack) -> Self {
        let board = Self::default();
        let shared = Arc::clone(&board.0);
        stack
            .lite
            .lie(move |seen| answer(&shared.lock().unwrap(), Asked::of(seen)?));
        board
    }

    /// Puts rows in force in a basin. Of two answers to one question the first counts.
    pub async fn lie(&self, direct: &Client, basin: &str, rows: &[&'static Row]) {
        let list = match rows {
            [] => Value::Null,
            _ => {
                let ask = Ask::get("/v1/streams").basin(basin);
                direct.ask(ask).await.json()
            }
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let streams = list["streams"].as_array().cloned().unwrap_or_default();
        let made = streams.iter();
        let made = made.map(|stream| (text(&stream["name"]), text(&stream["created_at"])));
        let in_force = InForce {
            rows: rows.to_vec(),
            made: made.collect(),
        };
        self.0.lock().unwrap().insert(basin.to_owned(), in_force);
    }

    /// Lets the upstream tell the truth about a basin.
    pub fn be_honest(&self, basin: &str) {
        self.0.lock().unwrap().remove(basin);
    }
}

fn answer(board: &HashMap<String, InForce>, mut asked: Asked) -> Option<Reply> {
    let in_force = board.get(&asked.basin)?;
    if asked.stream.is_empty() {
        asked.stream = EXPECTED.to_owned();
    }
    if let Some(made) = in_force.made.get(&asked.stream) {
        asked.made.clone_from(made);
    }
    in_force.rows.iter().find_map(|row| row.answer(&asked))
}
