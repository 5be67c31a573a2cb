//! A configuration that seals less than the one before takes effect only once it says so.

use std::{fs, process::Command};

use serde_json::json;
use streamseal::{
    config::Config,
    registry::rules::{KeySource, RuleCipher, StreamRule},
    store::PlainStreams,
};

use crate::harness::{Ask, KEY, Stack, base64, records};

const SECRET: &str = "a body that was sealed until the file was cut";

/// Basins of the rules below, and streams in them that a rule seals.
const BASINS: [&str; 3] = ["legacy-basin", "header-basin", "orders-basin"];

fn written(key: &str) -> String {
    format!(
        "[[streams]]\n\
         match = \"*/public\"\n\
         cipher = \"none\"\n\
         [[streams]]\n\
         match = \"legacy-*/**\"\n\
         cipher = \"aes-256-gcm\"\n\
         key = \"file\"\n\
         key_file = \"{key}\"\n\
         [[streams]]\n\
         match = \"header-*/**\"\n\
         cipher = \"aegis-256\"\n\
         [[basins]]\n\
         match = \"other-*\"\n\
         stream_cipher = \"none\"\n\
         [[basins]]\n\
         match = \"orders-*\"\n\
         stream_cipher = \"aegis-256\"\n\
         # The end.\n"
    )
}

fn stream_rule(glob: &str, cipher: RuleCipher) -> StreamRule {
    StreamRule {
        r#match: glob.to_owned(),
        cipher,
        key: KeySource::Header,
        key_file: Default::default(),
        header_overrides: false,
    }
}

/// A proxy with these rules and the basins.
async fn start(rules: &Config) -> Stack {
    let stack = Stack::with(|config| take(config, rules)).await;
    let client = stack.h2().await;
    for basin in BASINS {
        let config = json!({ "create_stream_on_append": true });
        let body = json!({ "basin": basin, "config": config });
        let made = client.ask(Ask::post("/v1/basins").json(&body)).await;
        assert_eq!(made.status, 201, "{}", made.text());
    }
    stack
}

fn take(config: &mut Config, rules: &Config) {
    config.basins = rules.basins.clone();
    config.streams = rules.streams.clone();
}

/// Appends to a new stream of each basin. Whatever comes of it, nothing goes up in clear.
async fn stays_sealed(stack: &Stack, stream: &str) {
    let client = stack.h2().await;
    let batch = json!({ "records": [{ "body": SECRET }] });
    for basin in BASINS {
        let ask = Ask::post(records(stream)).json(&batch).basin(basin);
        let answer = client.ask(ask.clone().key(&KEY)).await;
        let without = client.ask(ask).await;
        let status = [answer.status, without.status];
        assert!(
            status.contains(&200),
            "{basin} {status:?} {}",
            answer.text()
        );
    }
    assert!(!stack.tap.saw(SECRET.as_bytes()), "{stream}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_cut_leaves_no_sealed_stream_plain() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("key"), base64(&KEY)).unwrap();
    let text = written(at("key").to_str().unwrap());
    let load = |text: &str| {
        fs::write(at("cut.toml"), text).unwrap();
        Config::load(Some(&at("cut.toml")))
    };
    let whole = load(&text).unwrap();
    let mut stack = start(&whole).await;
    let mut refused = 0;
    let lines: Vec<_> = text.split_inclusive('\n').collect();
    for kept in 0..=lines.len() {
        let Ok(cut) = load(&lines[..kept].concat()) else {
            continue;
        };
        let before = stack.config_store().rules().await.unwrap();
        let reloaded = stack.reload(|config| take(config, &cut));
        stays_sealed(&stack, &format!("reloaded-{kept}")).await;
        if let Err(refusal) = &reloaded {
            refused += usize::from(refusal.contains("seals less"));
            assert_eq!(stack.config_store().rules().await.unwrap(), before);
        }
        stack.stop().await;
        take(&mut stack.config, &cut);
        let started = stack.go().await;
        assert_eq!(started.is_err(), reloaded.is_err(), "{kept}: {started:?}");
        take(&mut stack.config, &whole);
        if started.is_err() {
            stack.go().await.unwrap();
        } else {
            assert_eq!(stack.reload(|_| {}), Ok(Vec::new()));
        }
        stays_sealed(&stack, &format!("restarted-{kept}")).await;
    }
    assert!(refused > 3, "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn none_said_once_is_enough_and_then_the_rule_may_go() {
    let sealing = vec![stream_rule("orders-*/**", RuleCipher::Aegis256)];
    let rules = Config {
        streams: sealing.clone(),
        ..Config::default()
    };
    let mut stack = start(&rules).await;
    let refused = stack.reload(|config| config.streams.clear()).unwrap_err();
    assert!(
        refused.contains("[[streams]] match = \"orders-*/**\""),
        "{refused}"
    );
    assert!(refused.contains("\ncipher = \"none\""), "{refused}");
    assert_eq!(
        stack.reload(|config| config.streams[0].cipher = RuleCipher::None),
        Ok(Vec::new())
    );
    stack.restart(|config| config.streams.clear()).await;
    // Without a word in between it would be refused again.
    assert_eq!(
        stack.reload(|config| config.streams = sealing),
        Ok(Vec::new())
    );
    stack.stop().await;
    stack.config.streams.clear();
    let refused = stack.go().await.unwrap_err();
    assert!(refused.contains("seals less"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_from_elsewhere_is_not_less() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("key"), base64(&KEY)).unwrap();
    let from_file = StreamRule {
        key: KeySource::File,
        key_file: dir.path().join("key").into(),
        ..stream_rule("orders-*/**", RuleCipher::Aegis256)
    };
    let rules = Config {
        streams: vec![from_file],
        ..Config::default()
    };
    let mut stack = start(&rules).await;
    let header = vec![stream_rule("orders-*/**", RuleCipher::Aegis256)];
    assert_eq!(
        stack.reload(|config| config.streams = header.clone()),
        Ok(Vec::new())
    );
    stack.restart(|config| config.streams = rules.streams).await;
    stack.restart(|config| config.streams = header).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn check_config_says_what_the_next_start_would() {
    let rules = Config {
        streams: vec![stream_rule("orders-*/**", RuleCipher::Aegis256)],
        ..Config::default()
    };
    let mut stack = start(&rules).await;
    stack.config.streams.clear();
    let busy = stack.command(&["check-config"]);
    assert_eq!(busy.code, 0, "{busy:?}");
    assert!(busy.err.contains("cannot be known"), "{busy:?}");
    stack.stop().await;
    let store = stack.command(&["store", "export"]).ok();
    let less = stack.command(&["check-config"]);
    assert_eq!(less.code, 64, "{less:?}");
    assert!(less.err.contains("seals less"), "{less:?}");
    assert!(
        less.err
            .contains("match = \"orders-*/**\"\ncipher = \"none\""),
        "{less:?}"
    );
    assert_eq!(stack.command(&["serve"]).code, 64);
    stack.config.streams = vec![stream_rule("orders-*/**", RuleCipher::None)];
    let said = stack.command(&["check-config"]);
    assert_eq!((said.code, &*said.err), (0, ""), "{said:?}");
    assert_eq!(stack.command(&["store", "export"]).ok(), store);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_variable_that_sets_nothing_stops_every_start() {
    let stack = Stack::start().await;
    let file = stack.config.store.path.with_file_name("env.toml");
    fs::write(&file, stack.config.to_toml().unwrap()).unwrap();
    for command in ["serve", "check-config"] {
        let ran = Command::new(env!("CARGO_BIN_EXE_streamseal"))
            .arg(command)
            .arg("--config")
            .arg(&file)
            .env("STREAMSEAL_LISTEN_AUTHENTICATE", "mtls")
            .output()
            .unwrap();
        assert_eq!(ran.status.code(), Some(64));
        let said = String::from_utf8(ran.stderr).unwrap();
        let wanted = "STREAMSEAL_LISTEN_AUTHENTICATE sets nothing; did you mean STREAMSEAL_LISTEN__AUTHENTICATE?";
        assert!(said.contains(wanted), "{said}");
    }
}

/// The lines of an explanation, by what they are about.
fn explained(stack: &Stack, stream: &str) -> Vec<(String, String)> {
    let said = stack.command(&["check-config", "--explain", stream]).ok();
    let lines = said.lines().map(|line| line.split_once(": ").unwrap());
    lines
        .map(|(what, is)| (what.to_owned(), is.to_owned()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_explanation_names_what_decides() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("key"), base64(&KEY)).unwrap();
    fs::write(
        dir.path().join("c.toml"),
        written(dir.path().join("key").to_str().unwrap()),
    )
    .unwrap();
    let rules = Config::load(Some(&dir.path().join("c.toml"))).unwrap();
    let mut stack = start(&rules).await;
    stays_sealed(&stack, "used").await;
    // A basin that the API gave a cipher.
    stack.create_basin(Some("aes-256-gcm")).await;
    let outcome = |stack: &Stack, stream| explained(stack, stream).pop().unwrap().1;
    let while_it_runs = explained(&stack, "test-basin/s");
    assert!(while_it_runs.contains(&("config store, stream".to_owned(), "not asked".to_owned())));
    stack.stop().await;
    for (stream, wanted) in [
        (
            "legacy-basin/public",
            "plain: the rule for the stream says \"none\"",
        ),
        (
            "legacy-basin/new",
            "sealed with aes-256-gcm: the rule for the stream says so",
        ),
        (
            "orders-basin/used",
            "sealed with aegis-256: it is recorded so",
        ),
        (
            "orders-basin/new",
            "sealed with aegis-256 if it is made through the proxy: its basin says so; refused if",
        ),
        (
            "test-basin/new",
            "sealed with aes-256-gcm if it is made through the proxy: its basin says so; refused if",
        ),
        (
            "strange-basin/new",
            "refused: nothing seals it, and store.plain_streams is \"refuse\"",
        ),
        (
            "other-basin/new",
            "refused: nothing seals it, and store.plain_streams is \"refuse\"",
        ),
    ] {
        let found = outcome(&stack, stream);
        assert!(found.starts_with(wanted), "{stream}: {found}");
    }
    let facts = explained(&stack, "legacy-basin/used");
    let names: Vec<_> = facts.iter().map(|(what, _)| what.as_str()).collect();
    let order = [
        "stream",
        "rule for the stream",
        "config store, stream",
        "rule for the basin",
        "config store, basin",
        "outcome",
    ];
    assert_eq!(names, order);
    let rule = "streams[1], match = \"legacy-*/**\", cipher = \"aes-256-gcm\", key = \"file\"";
    assert_eq!(facts[1].1, rule);
    assert!(facts[2].1.contains("\"aes-256-gcm\""), "{facts:?}");
    assert_eq!(facts[3].1, "none of [[basins]] matches");
    stack.config.streams[1].cipher = RuleCipher::Aegis256;
    let found = outcome(&stack, "legacy-basin/used");
    assert!(
        found.starts_with("refused: the rule for the stream says aegis-256, and it is"),
        "{found}"
    );
    stack.config.store.plain_streams = Some(PlainStreams::Allow);
    assert_eq!(
        outcome(&stack, "strange-basin/new"),
        "plain: nothing seals it"
    );
}
