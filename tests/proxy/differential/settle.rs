//! Waiting until `s2-lite` has done what it does in the background, so that no answer is a matter of luck.

use super::{
    asks::stream_path,
    ops::{BASINS, Call, Place},
    world::World,
};
use crate::harness::{Ask, Client, KEY, nudge, until};

impl World {
    /// Waits until what was deleted is gone on both sides.
    pub async fn settle_deletion(&self, call: &Call) {
        let (path, basin) = match call {
            Call::DeleteBasin(basin) => (format!("/v1/basins/{}", BASINS[*basin]), *basin),
            Call::DeleteStream(at) => (stream_path(at), at.basin),
            other => panic!("{other:?} deletes nothing"),
        };
        let gone = async |client: &Client| {
            until("it is gone", async || {
                let ask = Ask::get(&path).basin(BASINS[basin]);
                let is_gone = client.ask(ask).await.status == 404;
                if !is_gone {
                    nudge(client).await;
                    if matches!(call, Call::DeleteBasin(_)) {
                        client.ask(Ask::new("DELETE", &path)).await;
                    }
                }
                is_gone
            })
            .await;
        };
        tokio::join!(gone(&self.ours.direct), gone(&self.native.direct));
    }

    /// Waits until records before the trim point are gone on both sides.
    pub async fn settle_trim(&self, at: &Place) {
        let known = self.known(at);
        let trimmed = async |client: &Client| {
            until("it is trimmed", async || {
                let ask = Ask::get(stream_path(at) + "/records?seq_num=0&count=1");
                let ask = ask.basin(BASINS[at.basin]).key(&known.key.unwrap_or(KEY));
                let answer = client.ask(ask.header("s2-format", "base64")).await;
                assert_eq!(answer.status, 200, "{}", answer.text());
                let first = answer.json()["records"][0]["seq_num"].as_u64();
                let is_trimmed = first.is_none_or(|first| first >= known.trimmed);
                if !is_trimmed {
                    nudge(client).await;
                }
                is_trimmed
            })
            .await;
        };
        tokio::join!(trimmed(&self.ours.direct), trimmed(&self.native.direct));
    }
}
