//! After a reload the rules hold exactly as after a restart with the same file.

use std::path::Path;

use serde_json::{Value, json};
use streamseal::{
    config::Config,
    registry::rules::{BasinRule, KeySource, RuleCipher, StreamRule},
    store::PlainStreams,
};

use crate::{
    harness::{Ask, BASIN, Client, KEY, Stack, base64, records},
    keys::OTHER,
};

/// A basin whose new streams are encrypted by its own configuration.
const SEALING: &str = "sealing-basin";

/// How a configuration comes in force.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    Reload,
    Restart,
}

/// Puts a change in force. What a client sees afterwards must not depend on how; the connection of before
/// lives through a reload.
async fn renew(
    stack: &mut Stack,
    client: Client,
    how: How,
    change: impl FnOnce(&mut Config),
) -> Client {
    match how {
        How::Reload => {
            assert_eq!(stack.reload(change), Ok(Vec::new()));
            client
        }
        How::Restart => {
            stack.restart(change).await;
            stack.h2().await
        }
    }
}

/// What a rule may say of a stream, and no rule at all.
const SAYS: [&str; 7] = ["nothing", "aegis", "gcm", "plain", "file", "other", "both"];

fn rule(dir: &Path, glob: String, says: &str) -> Option<StreamRule> {
    let (cipher, key_file, header_overrides) = match says {
        "aegis" => (RuleCipher::Aegis256, None, false),
        "gcm" => (RuleCipher::Aes256Gcm, None, false),
        "plain" => (RuleCipher::None, None, false),
        "file" => (RuleCipher::Aegis256, Some("key"), false),
        "other" => (RuleCipher::Aegis256, Some("other"), false),
        "both" => (RuleCipher::Aegis256, Some("other"), true),
        _ => return None,
    };
    Some(StreamRule {
        r#match: glob,
        cipher,
        key: key_file.map_or(KeySource::Header, |_| KeySource::File),
        key_file: key_file.map_or_else(Default::default, |name| dir.join(name).into()),
        header_overrides,
    })
}

/// A stream for each pair of what the rule says before and after, written or not before.
struct Case {
    basin: &'static str,
    before: &'static str,
    after: &'static str,
    written: bool,
}

impl Case {
    fn all() -> Vec<Self> {
        let mut cases = Vec::new();
        for basin in [BASIN, SEALING] {
            for before in SAYS {
                for (after, written) in SAYS.into_iter().flat_map(|s| [(s, false), (s, true)]) {
                    cases.push(Self {
                        basin,
                        before,
                        after,
                        written,
                    });
                }
            }
        }
        cases
    }

    fn stream(&self) -> String {
        format!("{}-{}-{}", self.before, self.after, self.written)
    }

    fn secret(&self, what: &str) -> String {
        format!("secret {what} of {}/{}", self.basin, self.stream())
    }

    fn append(&self, what: &str) -> Ask {
        let batch = json!({ "records": [{ "body": self.secret(what) }] });
        let ask = Ask::post(records(&self.stream())).json(&batch);
        ask.basin(self.basin)
    }

    fn rule(&self, dir: &Path, says: &str) -> Option<StreamRule> {
        rule(dir, format!("{}/{}", self.basin, self.stream()), says)
    }

    /// Whether it is encrypted under one of the two, by its rule or else by its basin.
    fn is_sealed_by(&self, says: &str) -> bool {
        match says {
            "nothing" => self.basin == SEALING,
            "plain" => false,
            _ => true,
        }
    }

    /// Everything that a client can see.
    async fn look(&self, client: &Client) -> Vec<String> {
        let read = Ask::get(records(&self.stream()) + "?seq_num=0").basin(self.basin);
        let list = Ask::get(format!("/v1/streams?prefix={}", self.stream())).basin(self.basin);
        let mut seen = Vec::new();
        for ask in [
            self.append("with a key").key(&KEY),
            self.append("without a key"),
            self.append("with another key").key(&OTHER),
            read.clone().key(&KEY),
            read,
            list,
        ] {
            let answer = client.ask(ask).await;
            let json: Value = serde_json::from_slice(&answer.body).unwrap();
            let bodies: Vec<_> = json["records"].as_array().into_iter().flatten().collect();
            let bodies: Vec<_> = bodies.iter().map(|record| &record["body"]).collect();
            let cipher = &json["streams"][0]["cipher"];
            seen.push(format!(
                "{} {} {bodies:?} {cipher}",
                answer.status, json["message"]
            ));
        }
        seen
    }
}

async fn make_basin(client: &Client, name: &str, cipher: Option<&str>) {
    let mut config = json!({ "create_stream_on_append": true });
    if let Some(cipher) = cipher {
        config["stream_cipher"] = cipher.into();
    }
    let basin = json!({ "basin": name, "config": config });
    let made = client.ask(Ask::post("/v1/basins").json(&basin)).await;
    assert_eq!(made.status, 201, "{}", made.text());
}

/// What is seen of every case after its rule changed.
async fn after(how: How, cases: &[Case]) -> Vec<Vec<String>> {
    let dir = tempfile::tempdir().unwrap();
    for (name, key) in [("key", KEY), ("other", OTHER)] {
        std::fs::write(dir.path().join(name), base64(&key)).unwrap();
    }
    let rules = |says: fn(&Case) -> &str| -> Vec<StreamRule> {
        let rules = cases
            .iter()
            .filter_map(|case| case.rule(dir.path(), says(case)));
        rules.collect()
    };
    let mut stack = Stack::with(|config| {
        config.store.plain_streams = Some(PlainStreams::Allow);
        config.streams = rules(|case| case.before);
    })
    .await;
    let client = stack.h2().await;
    make_basin(&client, BASIN, None).await;
    make_basin(&client, SEALING, Some("aegis-256")).await;
    for case in cases.iter().filter(|case| case.written) {
        let append = case.append("of before");
        let append = match case.is_sealed_by(case.before) {
            true => append.key(&KEY),
            false => append,
        };
        let answer = client.ask(append).await;
        assert_eq!(answer.status, 200, "{} {}", case.stream(), answer.text());
    }
    // A rule that seals goes only once it said "none".
    let said = |case: &Case| match case.after {
        "nothing" if case.before != "nothing" => "plain",
        _ => case.before,
    };
    let said = stack.reload(|config| config.streams = rules(said));
    assert_eq!(said, Ok(Vec::new()));
    let change = |config: &mut Config| config.streams = rules(|case| case.after);
    let client = renew(&mut stack, client, how, change).await;
    let mut seen = Vec::new();
    for case in cases {
        seen.push(case.look(&client).await);
        let sealed_before = case.written && case.is_sealed_by(case.before);
        if sealed_before || case.is_sealed_by(case.after) && !case.written {
            for what in [
                "of before",
                "with a key",
                "without a key",
                "with another key",
            ] {
                let secret = case.secret(what);
                assert!(!stack.tap.saw(secret.as_bytes()), "{how:?}: {secret}");
            }
        }
    }
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_stream_rule_is_as_after_a_restart() {
    let cases = Case::all();
    let reloaded = after(How::Reload, &cases).await;
    let restarted = after(How::Restart, &cases).await;
    for ((case, reloaded), restarted) in cases.iter().zip(&reloaded).zip(&restarted) {
        assert_eq!(reloaded, restarted, "{}/{}", case.basin, case.stream());
    }
    // They are not all the same, or this would prove nothing.
    let count = |text: &str| {
        reloaded
            .iter()
            .flatten()
            .filter(|seen| seen.contains(text))
            .count()
    };
    for part in [
        "but the configuration declares",
        "not the one",
        "missing",
        "200 null",
    ] {
        assert!(count(part) > 10, "{part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_basin_rule_is_as_after_a_restart() {
    let ciphers = [
        None,
        Some(RuleCipher::None),
        Some(RuleCipher::Aegis256),
        Some(RuleCipher::Aes256Gcm),
    ];
    let rules = |cipher: Option<RuleCipher>| -> Vec<BasinRule> {
        let rule = cipher.map(|stream_cipher| BasinRule {
            r#match: BASIN.to_owned(),
            stream_cipher,
        });
        rule.into_iter().collect()
    };
    let new = |basin: &str| Case {
        basin: if basin == BASIN { BASIN } else { SEALING },
        before: "nothing",
        after: "nothing",
        written: false,
    };
    let old = Case {
        written: true,
        ..new(BASIN)
    };
    for (before, after) in ciphers
        .iter()
        .flat_map(|b| ciphers.iter().map(move |a| (*b, *a)))
    {
        let mut seen = Vec::new();
        for how in [How::Reload, How::Restart] {
            let mut stack = Stack::with(|config| config.basins = rules(before)).await;
            let client = stack.h2().await;
            make_basin(&client, BASIN, None).await;
            let written = old.append("of before");
            let written = match before {
                Some(RuleCipher::Aegis256 | RuleCipher::Aes256Gcm) => written.key(&KEY),
                _ => written,
            };
            let written = client.ask(written).await;
            assert_eq!(written.status, 200, "{}", written.text());
            if before.is_some() && after.is_none() {
                stack.say_none();
            }
            let change = |config: &mut Config| config.basins = rules(after);
            let client = renew(&mut stack, client, how, change).await;
            let path = format!("/v1/basins/{BASIN}");
            let basin = client.ask(Ask::get(path)).await.text();
            let new = new(BASIN);
            seen.push((old.look(&client).await, new.look(&client).await, basin));
            if after.is_some_and(|cipher| cipher != RuleCipher::None) {
                assert!(!stack.tap.saw(new.secret("with a key").as_bytes()));
            }
        }
        assert_eq!(seen[0], seen[1], "{before:?} to {after:?}");
    }
}
