//! The transit engine: what is sent, what each answer means, and answers that are none.

use super::*;

impl World {
    /// How unwrapping fails, on a stream that was wrapped well.
    async fn fails(&self, act: Act) -> Error {
        let (dek, stream) = (Key::generate().unwrap(), stream());
        self.server.act(Act::Serve);
        let wrapped = self.kms.wrap(&dek, &stream, 0).await.unwrap();
        self.server.act(act);
        let unwrapped = self.kms.unwrap(&wrapped.key, &wrapped.blob, &stream, 0);
        let error = unwrapped.await.unwrap_err();
        let shown = format!("{error} {error:?} {}", error.reason());
        assert!(!shown.contains(TOKEN) && !shown.contains(&*dek.to_base64()));
        assert!(error.reason().len() <= 256, "{shown}");
        assert!(!error.reason().contains(char::is_control), "{shown}");
        error
    }

    async fn does_not_wrap(&self, act: Act) -> Error {
        self.server.act(act);
        let dek = Key::generate().unwrap();
        self.kms.wrap(&dek, &stream(), 0).await.unwrap_err()
    }
}

#[tokio::test]
async fn what_is_sent_is_the_documented_request() {
    let (server, dir) = (transit().await, tempfile::tempdir().unwrap());
    let mut config = vault_config(&server.url, dir.path().join("token"));
    config.namespace = "teams/storage".to_owned();
    let vault = Vault::new(&config).unwrap();
    let (dek, stream) = (Key::generate().unwrap(), stream());
    let context = Context {
        stream: &stream,
        epoch: 3,
    };
    let wrapped = vault.wrap(&dek, context, Connection::Kept).await.unwrap();
    let call = server.last();
    assert_eq!(call.path, "/v1/transit/encrypt/a-key");
    assert_eq!(call.headers["x-vault-token"], TOKEN);
    assert_eq!(call.headers["x-vault-namespace"], "teams/storage");
    let bound = format!("streamseal/v1/data-key\0{stream}\x003");
    let bound = STANDARD.encode(bound);
    let sent = json!({ "plaintext": *dek.to_base64(), "associated_data": bound });
    assert_eq!(call.json(), sent);
    let text = String::from_utf8(wrapped.blob.clone()).unwrap();
    assert!(text.starts_with("vault:v1:"));
    assert_eq!(wrapped.key, "a-key");
    let key = vault
        .unwrap(&wrapped.key, &wrapped.blob, context, Connection::Kept)
        .await
        .unwrap();
    assert_eq!(key, dek);
    let call = server.last();
    assert_eq!(call.path, "/v1/transit/decrypt/a-key");
    assert_eq!(
        call.json(),
        json!({ "ciphertext": text, "associated_data": bound })
    );
}

#[tokio::test(start_paused = true)]
async fn refusals_are_told_apart() {
    let world = World::start().await;
    for (status, text, outcome) in [
        (
            400,
            "cipher: message authentication failed",
            KmsOutcome::InvalidCiphertext,
        ),
        (
            400,
            "invalid ciphertext: no prefix",
            KmsOutcome::InvalidCiphertext,
        ),
        (400, "encryption key not found", KmsOutcome::Denied),
        (
            400,
            "ciphertext or signature version is disallowed by policy (too old)",
            KmsOutcome::Denied,
        ),
        (
            400,
            "'[0].associated_data' provided for non-AEAD cipher suite rsa-2048",
            KmsOutcome::Misconfigured,
        ),
        (
            400,
            "missing 'context' for key derivation; the key was",
            KmsOutcome::Misconfigured,
        ),
        (403, "permission denied", KmsOutcome::Unauthorized),
        (404, "no handler for route", KmsOutcome::Misconfigured),
        (405, "unsupported operation", KmsOutcome::Misconfigured),
        (429, "rate limit quota exceeded", KmsOutcome::Unreachable),
        (500, "internal error", KmsOutcome::Unreachable),
        (503, "Vault is sealed", KmsOutcome::Unreachable),
    ] {
        let (status, body) = refusal(status, text);
        let error = world.fails(Act::Answer(status, body)).await;
        assert_eq!(error.outcome(), outcome, "{status} {text}");
        assert!(error.reason().contains(text), "{error:?}");
        assert!(!error.to_string().contains(text), "for clients: {error}");
    }
}

#[tokio::test]
async fn wrapping_never_finds_fault_with_a_ciphertext() {
    let world = World::start().await;
    for text in [
        "whatever",
        "'[0].associated_data' provided for non-AEAD",
        "encryption key not found",
    ] {
        let (status, body) = refusal(400, text);
        let error = world.does_not_wrap(Act::Answer(status, body)).await;
        assert!(matches!(error, Error::Misconfigured(_)), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn answers_that_are_none_are_no_keys() {
    let world = World::start().await;
    let long = format!("\u{1b}[31m{}", "é".repeat(40_000));
    for act in [
        Act::BreakOff,
        Act::Endless,
        Act::Answer(200, String::new()),
        Act::Answer(200, "{".repeat(1000)),
        Act::Answer(200, "x".repeat(70_000)),
        Act::Answer(200, json!({ "data": null }).to_string()),
        Act::Answer(200, json!({ "data": {} }).to_string()),
        Act::Answer(200, json!({ "data": { "plaintext": 1 } }).to_string()),
        Act::Answer(500, long.clone()),
        Act::Answer(502, refusal(502, &long[..20_001]).1),
    ] {
        let began = Instant::now();
        let error = world.fails(act.clone()).await;
        assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
        let error = world.does_not_wrap(act).await;
        assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
        assert!(
            began.elapsed() < CALL_TIMEOUT,
            "it was read to the end of time"
        );
    }
    let no_ciphertext = json!({ "data": { "ciphertext": "" } }).to_string();
    let error = world.does_not_wrap(Act::Answer(200, no_ciphertext)).await;
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
    for no_key in [
        STANDARD.encode([1; 16]),
        STANDARD.encode([1; 33]),
        "!".into(),
        String::new(),
    ] {
        let answer = json!({ "data": { "plaintext": no_key } }).to_string();
        let error = world.fails(Act::Answer(200, answer)).await;
        assert!(matches!(error, Error::InvalidCiphertext(_)), "{error:?}");
        assert!(no_key.is_empty() || !error.reason().contains(&no_key));
    }
    assert_eq!(world.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn silence_is_waited_out() {
    let world = World::start().await;
    let (dek, stream) = (Key::generate().unwrap(), stream());
    let wrapped = world.kms.wrap(&dek, &stream, 0).await.unwrap();
    world.server.act(Act::Hang);
    let began = Instant::now();
    let unwrapped = world.kms.unwrap(&wrapped.key, &wrapped.blob, &stream, 0);
    let error = unwrapped.await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
    assert!(began.elapsed() <= CALL_TIMEOUT + Duration::from_secs(1));
}

#[tokio::test]
async fn nobody_listens() {
    let world = World::start().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let config = vault_config(&url, world.dir.path().join("token"));
    let vault = Vault::new(&config).unwrap();
    let (dek, stream) = (Key::generate().unwrap(), stream());
    let context = Context {
        stream: &stream,
        epoch: 0,
    };
    let failed = vault
        .wrap(&dek, context, Connection::Kept)
        .await
        .unwrap_err();
    let error = failed.error;
    assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (world, elsewhere) = (World::start().await, transit().await);
    let to = format!("{}/v1/transit/decrypt/a-key", elsewhere.url);
    let error = world.fails(Act::Redirect(to.clone())).await;
    assert!(matches!(error, Error::Misconfigured(_)), "{error:?}");
    let error = world.does_not_wrap(Act::Redirect(to)).await;
    assert!(matches!(error, Error::Misconfigured(_)), "{error:?}");
    assert_eq!(elsewhere.count(), 0);
}

#[tokio::test]
async fn the_token_is_the_one_in_the_file_now() {
    let world = World::start().await;
    let file = world.dir.path().join("token");
    let (dek, stream) = (Key::generate().unwrap(), stream());
    std::fs::write(&file, "another").unwrap();
    let error = world.kms.wrap(&dek, &stream, 0).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized(_)), "{error:?}");
    for no_token in ["", "two tokens", "line\nbreak"] {
        std::fs::write(&file, no_token).unwrap();
        let calls = world.server.count();
        let error = world.kms.wrap(&dek, &stream, 0).await.unwrap_err();
        assert!(matches!(error, Error::Misconfigured(_)), "{error:?}");
        assert!(no_token.is_empty() || !error.reason().contains(no_token));
        assert_eq!(world.server.count(), calls, "asked without a token");
    }
    std::fs::write(&file, TOKEN).unwrap();
    world.kms.wrap(&dek, &stream, 0).await.unwrap();
}

#[tokio::test]
async fn what_the_store_says_of_a_key_goes_into_no_path() {
    let world = World::start().await;
    let (dek, stream) = (Key::generate().unwrap(), stream());
    let wrapped = world.kms.wrap(&dek, &stream, 0).await.unwrap();
    let calls = world.server.count();
    let hostile: [(&str, &[u8]); 7] = [
        ("../keys/a-key", &wrapped.blob),
        ("a-key?x=", &wrapped.blob),
        ("a-key#", &wrapped.blob),
        ("", &wrapped.blob),
        ("a-key", b""),
        ("a-key", b"\xff"),
        ("a-key", b"vault:v1:\"\n"),
    ];
    for (key, blob) in hostile {
        let error = world.kms.unwrap(key, blob, &stream, 0).await.unwrap_err();
        assert!(matches!(error, Error::InvalidCiphertext(_)), "{error:?}");
    }
    let huge = [wrapped.blob.as_slice(), &[b'A'; 1 << 20]].concat();
    let error = world.kms.unwrap("a-key", &huge, &stream, 0).await;
    assert!(matches!(error, Err(Error::InvalidCiphertext(_))));
    assert_eq!(world.server.count(), calls);
}

#[tokio::test(start_paused = true)]
async fn kept_connection_ends_when_it_is_not_used() {
    let world = World::start().await;
    let held = Arc::strong_count(&world.server.state);
    let dek = Key::generate().unwrap();
    world.kms.wrap(&dek, &stream(), 0).await.unwrap();
    let began = Instant::now();
    // Each connection of the server holds its state.
    until(|| Arc::strong_count(&world.server.state) == held).await;
    let kept = began.elapsed();
    assert!(kept >= IDLE_TIMEOUT && kept < 3 * IDLE_TIMEOUT, "{kept:?}");
}
