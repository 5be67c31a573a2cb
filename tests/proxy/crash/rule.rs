//! What clients do to basins: change their ciphers, make them and delete them.

use rand::RngExt as _;
use serde_json::json;

use super::{
    basin::{Cipher, Exists},
    work::{Done, Gone, Worker},
};
use crate::harness::Ask;

impl Worker {
    /// Gives a basin its next cipher.
    pub async fn change_cipher(&mut self, at: usize) -> Done {
        let (name, to) = {
            let mut model = self.model();
            let basin = &mut model.basins[at];
            let to = basin.next();
            basin.changing(to);
            (basin.name.clone(), to)
        };
        let config = json!({ "stream_cipher": to, "create_stream_on_append": true });
        let path = format!("/v1/basins/{name}");
        let ask = match self.random.random() {
            true => Ask::new("PATCH", path).json(&json!({ "stream_cipher": to })),
            false => Ask::new("PUT", path).json(&json!({ "config": config })),
        };
        let answer = self.ask_all(ask).await?;
        let mut model = self.model();
        model.count(format!("cipher {} {}", answer.status, answer.code()));
        match (answer.status, &*answer.code()) {
            (200, _) => model.basins[at].changed(to),
            (409, "transaction_conflict") => model.basins[at].unchanged(),
            _ => panic!("change of {name}: {}", answer.text()),
        }
        Ok(())
    }

    /// Makes a basin, uses it, or deletes it.
    pub async fn grow(&mut self, at: usize, streams: &[usize]) -> Done {
        let exists = self.model().basins[at].exists;
        match (exists, self.random.random_range(0..4)) {
            (Exists::No, _) => self.make_basin(at).await,
            (Exists::Maybe, _) => Err(Gone),
            (Exists::Yes, 0) => self.delete_basin(at).await,
            (Exists::Yes, pick) => self.append(streams[pick % streams.len()]).await,
        }
    }

    async fn make_basin(&mut self, at: usize) -> Done {
        let (name, to) = {
            let mut model = self.model();
            let basin = &mut model.basins[at];
            let to = basin.next();
            basin.making(to);
            (basin.name.clone(), to)
        };
        let answer = self.ask_all(make_basin(&name, to)).await?;
        let mut model = self.model();
        model.count(format!("make basin {} {}", answer.status, answer.code()));
        let basin = &mut model.basins[at];
        match (answer.status, &*answer.code()) {
            (201, _) => {
                basin.changed(to);
                basin.exists = Exists::Yes;
            }
            (409, "basin_deletion_pending" | "transaction_conflict") => basin.exists = Exists::No,
            _ => panic!("creation of {name}: {}", answer.text()),
        }
        Ok(())
    }

    async fn delete_basin(&mut self, at: usize) -> Done {
        let name = self.model().basins[at].name.clone();
        self.model().basin_deleted(at, false);
        let ask = Ask::new("DELETE", format!("/v1/basins/{name}"));
        let answer = self.ask_all(ask).await?;
        let mut model = self.model();
        model.count(format!("delete basin {} {}", answer.status, answer.code()));
        match (answer.status, &*answer.code()) {
            (202, _) => model.basin_deleted(at, true),
            (409, "transaction_conflict") => {}
            _ => panic!("deletion of {name}: {}", answer.text()),
        }
        Ok(())
    }
}

/// A request for a basin with this cipher that makes streams on demand.
pub fn make_basin(name: &str, cipher: Cipher) -> Ask {
    let config = json!({ "stream_cipher": cipher, "create_stream_on_append": true });
    Ask::post("/v1/basins").json(&json!({ "basin": name, "config": config }))
}
