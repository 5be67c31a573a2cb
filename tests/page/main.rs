//! The status page shows in a real browser what there is to see, takes names for text whatever is in them,
//! is usable by keyboard, and asks nobody but its own listener.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "that is how a test fails"
)]
#![allow(missing_docs, reason = "tests are read, not linked to")]

mod browser;
#[allow(dead_code, unused_imports, reason = "other tests need the rest of it")]
#[path = "../proxy/harness/mod.rs"]
mod harness;

use std::net::SocketAddr;

use serde_json::json;

use browser::Browser;
use harness::{Ask, BASIN, KEY, Stack, records};

/// A name that is a page of its own to whoever does not take it for text.
const HOSTILE: &str = "<img src=x onerror=\"document.title='taken over'\">";

/// A deployment with an admin listener, and its URL.
async fn stack(change: impl FnOnce(&mut streamseal::config::Config)) -> (Stack, String) {
    let stack = Stack::with(|config| {
        let address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        config.admin.address = address.into();
        change(config);
    })
    .await;
    let url = format!("http://{}", stack.admin.unwrap());
    (stack, url)
}

async fn append(stack: &Stack, stream: &str, key: &[u8]) -> u16 {
    let batch = json!({ "records": [{ "body": "the plaintext" }] });
    let ask = Ask::post(records(stream)).key(key).json(&batch);
    stack.h2().await.ask(ask).await.status
}

async fn populated() -> (Stack, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, harness::base64(&KEY)).unwrap();
    let (stack, url) = stack(|config| {
        config.streams = vec![streamseal::registry::rules::StreamRule {
            r#match: format!("{BASIN}/legacy/*"),
            cipher: streamseal::registry::rules::RuleCipher::Aegis256,
            key: streamseal::registry::rules::KeySource::File,
            key_file: file.clone().into(),
            header_overrides: false,
        }];
    })
    .await;
    stack.create_basin(Some("aes-256-gcm")).await;
    let names = (0..60).map(|at| format!("app/orders/{at:02}"));
    let names = names.chain(["legacy/billing", HOSTILE, "turned\u{202e}round"].map(str::to_owned));
    for name in names {
        assert_eq!(append(&stack, &name, &KEY).await, 200, "{name}");
    }
    let empty = json!({ "stream": "empty" });
    let made = stack
        .h2()
        .await
        .ask(Ask::post("/v1/streams").json(&empty))
        .await;
    assert_eq!(made.status, 201);
    assert_eq!(append(&stack, "app/orders/07", &[9; 32]).await, 400);
    (stack, url)
}

/// The texts in a column of the list of streams.
fn column(page: &Browser, number: usize) -> Vec<String> {
    page.texts(&format!("#streams td:nth-child({number})"))
}

#[tokio::test(flavor = "multi_thread")]
async fn it_shows_what_there_is() {
    let (stack, url) = populated().await;
    let page = Browser::open(&url);
    page.until("document.querySelectorAll('#streams td.name').length === 25");
    page.until("document.querySelectorAll('#errors tr').length === 1");
    page.until("document.querySelector('#ready').textContent === 'ready'");
    let all = page.texts("body").concat();
    for text in [
        env!("CARGO_PKG_VERSION"),
        &format!("https://{}", stack.address),
        &url,
        &stack.config.upstream.account_endpoint,
        "reachable",
        "this host only",
        "upstream checks tokens",
        stack.config.store.path.to_str().unwrap(),
        "1 basin, 64 streams",
        "not authenticated: no store.key_file",
        "decryption_failed",
        "test-basin/app/orders/07",
        "page 1, 25 shown",
    ] {
        assert!(all.contains(text), "{text} not in\n{all}");
    }
    assert_eq!(page.texts("#checks .pill"), ["ok", "ok", "ok"]);
    let certificates = page.texts("#certificates td");
    assert_eq!(certificates[0], "listener");
    let days: i64 = certificates[3].parse().unwrap();
    assert!(days > 100, "{certificates:?}");
    assert_eq!(page.texts("#basins td")[..3], [BASIN, "aes-256-gcm", "API"]);
    assert_eq!(page.texts("#errors .pill"), ["client"]);

    page.eval("byId('rows').value = '100'; byId('rows').dispatchEvent(new Event('change'))");
    page.until("document.querySelectorAll('#streams td.name').length === 64");
    let (streams, ciphers) = (column(&page, 2), column(&page, 3));
    let (sources, checks) = (column(&page, 4), column(&page, 5));
    for (name, cipher, source, check) in [
        ("app/orders/00", "aes-256-gcm", "client", "pinned"),
        ("empty", "aes-256-gcm", "client", "not pinned yet"),
        ("legacy/billing", "aegis-256", "file", "pinned"),
    ] {
        let at = streams.iter().position(|one| one == name).unwrap();
        assert_eq!(
            (&*ciphers[at], &*sources[at], &*checks[at]),
            (cipher, source, check),
            "{name}"
        );
    }
    // Rates take two looks.
    page.until("[...document.querySelectorAll('.tile output')].slice(0, 4).every((one) => one.textContent !== '–')");
    page.until("document.querySelector('.tile .curve').getAttribute('d').length > 10");
    assert_eq!(page.complaints(&url), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_text_whatever_is_in_them() {
    let (_stack, url) = populated().await;
    let page = Browser::open(&url);
    page.until("document.querySelectorAll('#streams td.name').length === 25");
    assert_eq!(column(&page, 2)[0], HOSTILE);
    assert_eq!(page.eval("document.querySelectorAll('img').length"), 0);
    assert_eq!(page.eval("document.title"), "streamseal");
    assert_eq!(page.complaints(&url), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_cannot_turn_round_what_stands_beside_it() {
    let (_stack, url) = populated().await;
    let page = Browser::open(&url);
    page.until("document.querySelectorAll('#streams td.name').length === 25");
    page.press("/", "/");
    page.type_in("turned");
    page.until("document.querySelectorAll('#streams td.name').length === 1");
    assert_eq!(column(&page, 2), ["turned\\u202eround"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_was_taken_over_runs_nothing_more_and_sends_nothing_elsewhere() {
    let (_stack, url) = stack(|_| {}).await;
    let page = Browser::open(&url);
    let inline = "(() => { const s = document.createElement('script'); s.textContent = 'window.ran = 1'; \
                  document.body.append(s); return window.ran === undefined; })()";
    assert_eq!(page.eval(inline), true);
    let elsewhere = "fetch('http://127.0.0.1:1/').then(() => 'sent', () => 'kept')";
    assert_eq!(page.eval(elsewhere), "kept");
    let complaints = page.complaints(&url).concat();
    assert!(
        complaints.contains("Content Security Policy"),
        "{complaints}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_filter_and_the_pages_work_by_keyboard() {
    let (_stack, url) = populated().await;
    let page = Browser::open(&url);
    page.until("document.querySelectorAll('#streams td.name').length === 25");
    page.press("Tab", "");
    assert_eq!(page.focused(), "skip");
    page.press("Tab", "");
    assert_eq!(page.focused(), "filter");
    for id in ["rows", "next"] {
        page.press("Tab", "");
        assert_eq!(page.focused(), id);
    }
    let first = column(&page, 2);
    page.press("Enter", "\r");
    page.until("byId('streams-count').textContent === 'page 2, 25 shown'");
    let second = column(&page, 2);
    page.press("Enter", "\r");
    page.until("byId('streams-count').textContent === 'page 3, 14 on the last page'");
    assert_eq!(page.eval("byId('next').disabled"), true);
    let mut all = [first.clone(), second, column(&page, 2)].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 64);
    page.eval("byId('previous').focus()");
    page.press("Enter", "\r");
    page.press("Enter", "\r");
    page.until("byId('streams-count').textContent === 'page 1, 25 shown'");
    assert_eq!(column(&page, 2), first);

    page.press("/", "/");
    assert_eq!(page.focused(), "filter");
    page.type_in("ORDERS/1");
    page.until("document.querySelectorAll('#streams td.name').length === 10");
    assert!(
        column(&page, 2)
            .iter()
            .all(|name| name.starts_with("app/orders/1"))
    );
    page.type_in("x");
    page.until("document.querySelector('#streams').innerText.includes('Nothing matches')");
    page.press("Escape", "");
    page.until("document.querySelectorAll('#streams td.name').length === 25");
    // In a field it is a character like any other.
    page.press("/", "/");
    page.until("byId('filter').value === '/'");
    assert_eq!(page.complaints(&url), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_asks_for_the_token_and_keeps_it_in_the_tab() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "a-token-of-24-characters").unwrap();
    let (_stack, url) = stack(|config| config.admin.token_file = file.into()).await;
    let page = Browser::open(&url);
    page.until("!byId('login').hidden && document.activeElement.id === 'token'");
    page.type_in("a-token-of-24-characterz");
    page.press("Enter", "\r");
    page.until("byId('banner').textContent === 'The token is not the right one.'");
    page.eval("byId('token').focus()");
    page.type_in("a-token-of-24-characters");
    page.press("Enter", "\r");
    page.until(
        "byId('login').hidden && byId('ready').textContent === 'ready' && byId('banner').hidden",
    );
    assert!(page.texts("#listeners").concat().contains("token"));
    assert_eq!(page.eval("localStorage.length + document.cookie.length"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_when_the_proxy_is_gone() {
    let (mut stack, url) = stack(|_| {}).await;
    let page = Browser::open(&url);
    page.until("byId('ready').textContent === 'ready'");
    stack.stop().await;
    page.until("byId('ready').textContent === 'unreachable' && !byId('banner').hidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_has_light_and_dark_colours() {
    let (stack, url) = populated().await;
    let page = Browser::open(&url);
    page.until("document.querySelectorAll('#streams td.name').length === 25");
    page.eval("byId('rows').value = '10'; byId('rows').dispatchEvent(new Event('change'))");
    // Something for the curves to show.
    for round in 0..6 {
        for at in 0..(5 + 7 * (round % 3)) {
            assert_eq!(
                append(&stack, &format!("app/orders/{at:02}"), &KEY).await,
                200
            );
        }
        let seen =
            "(document.querySelector('.tile .curve').getAttribute('d') || '').split('L').length";
        page.until(&format!("{seen} > {}", round + 1));
    }
    let mut grounds = Vec::new();
    for colours in ["light", "dark"] {
        let file = page.picture(colours);
        assert!(std::fs::metadata(file).unwrap().len() > 10_000);
        grounds.push(page.eval("getComputedStyle(document.body).backgroundColor"));
    }
    assert_eq!(grounds, ["rgb(246, 247, 246)", "rgb(16, 20, 23)"]);
    page.resize(390);
    let wide =
        page.eval("document.documentElement.scrollWidth > document.documentElement.clientWidth");
    assert_eq!(wide, false, "it scrolls sideways");
}
