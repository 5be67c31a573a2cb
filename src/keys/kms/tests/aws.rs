//! AWS KMS: what is sent, what each answer means, and answers that are none.

use aws_config::{BehaviorVersion, SdkConfig};
use aws_sdk_kms::config::{Credentials, Region, SharedCredentialsProvider};

use super::*;

const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// The service, as far as its answers go: what it wraps is the key in clear.
async fn service() -> Server {
    Server::start(|call| {
        let asked = call.json();
        let answer = match call.headers["x-amz-target"].to_str().unwrap() {
            "TrentService.Encrypt" => json!({ "KeyId": ARN, "CiphertextBlob": asked["Plaintext"] }),
            "TrentService.Decrypt" => json!({ "KeyId": ARN, "Plaintext": asked["CiphertextBlob"] }),
            other => panic!("{other}"),
        };
        (200, answer.to_string())
    })
    .await
}

fn aws(server: &Server) -> Aws {
    Aws::new(&config(server), &environment())
}

/// What the SDK finds in the AWS environment.
fn environment() -> SdkConfig {
    let credentials = Credentials::new("AKIDEXAMPLE", SECRET, None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

fn config(server: &Server) -> AwsConfig {
    AwsConfig {
        key_id: "alias/streams".to_owned(),
        region: "eu-central-1".to_owned(),
        endpoint_url: server.url.clone(),
    }
}

fn service_error(code: &str) -> Act {
    let message = "User: arn:aws:sts::111122223333:assumed-role/x is not authorized";
    let body = json!({ "__type": code, "message": message });
    Act::Answer(400, body.to_string())
}

/// How one attempt of unwrapping fails.
async fn attempt(act: Act) -> Failed {
    let server = service().await;
    server.act(act);
    let stream = stream();
    let context = Context {
        stream: &stream,
        epoch: 1,
    };
    let unwrapped = aws(&server).unwrap(ARN, b"blob", context).await;
    assert_eq!(server.count(), 1, "the SDK makes its own attempts");
    unwrapped.unwrap_err()
}

async fn fails(act: Act) -> Error {
    let error = attempt(act).await.error;
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(SECRET));
    assert!(error.reason().len() <= 256 && !error.to_string().contains("arn:"));
    error
}

#[tokio::test]
async fn what_is_sent_names_key_stream_and_epoch() {
    let (server, stream) = (service().await, stream());
    let (aws, dek) = (aws(&server), Key::generate().unwrap());
    let context = Context {
        stream: &stream,
        epoch: 3,
    };
    let wrapped = aws.wrap(&dek, context).await.unwrap();
    let bound = json!({
        "streamseal:purpose": "streamseal/v1/data-key",
        "streamseal:stream": stream.to_string(),
        "streamseal:epoch": "3",
    });
    let sent = server.last().json();
    assert_eq!(sent["KeyId"], "alias/streams");
    assert_eq!(sent["EncryptionContext"], bound);
    assert_eq!(sent["Plaintext"], *dek.to_base64());
    assert_eq!(wrapped.key, ARN);
    let key = aws
        .unwrap(&wrapped.key, &wrapped.blob, context)
        .await
        .unwrap();
    assert_eq!(key, dek);
    let sent = server.last().json();
    assert_eq!(
        (&sent["KeyId"], &sent["EncryptionContext"]),
        (&json!(ARN), &bound)
    );
    assert_eq!(sent["CiphertextBlob"], STANDARD.encode(&wrapped.blob));
}

#[tokio::test]
async fn refusals_are_told_apart() {
    for (code, outcome) in [
        ("InvalidCiphertextException", KmsOutcome::InvalidCiphertext),
        ("IncorrectKeyException", KmsOutcome::InvalidCiphertext),
        ("AccessDeniedException", KmsOutcome::Unauthorized),
        ("DisabledException", KmsOutcome::Denied),
        ("NotFoundException", KmsOutcome::Denied),
        ("KMSInvalidStateException", KmsOutcome::Denied),
        ("ExpiredTokenException", KmsOutcome::Unauthorized),
        ("InvalidClientTokenId", KmsOutcome::Unauthorized),
        ("UnrecognizedClientException", KmsOutcome::Unauthorized),
        ("InvalidKeyUsageException", KmsOutcome::Misconfigured),
        ("ValidationException", KmsOutcome::Misconfigured),
        ("SomethingNewException", KmsOutcome::Misconfigured),
    ] {
        let error = fails(service_error(code)).await;
        assert_eq!(error.outcome(), outcome, "{code}");
        assert!(error.reason().starts_with(code), "{error:?}");
    }
}

#[tokio::test]
async fn what_may_pass_is_worth_another_attempt() {
    for (act, shortest) in [
        (service_error("ThrottlingException"), 0),
        (Act::Answer(503, String::new()), 0),
        (Act::BreakOff, 0),
        (Act::Later(429, "3".to_owned()), 3),
    ] {
        let failed = attempt(act).await;
        assert!(matches!(failed.error, Error::Unreachable(_)), "{failed:?}");
        let pause = failed.pause(Duration::ZERO);
        assert_eq!(pause, Some(Duration::from_secs(shortest)), "{failed:?}");
    }
    for code in ["AccessDeniedException", "DisabledException"] {
        let failed = attempt(service_error(code)).await;
        assert_eq!(failed.pause(Duration::ZERO), None, "{failed:?}");
    }
}

#[tokio::test]
async fn answers_that_are_none_are_no_keys() {
    for act in [
        Act::Endless,
        Act::Answer(200, String::new()),
        Act::Answer(200, "{".repeat(1000)),
        Act::Answer(200, format!("{{\"Plaintext\":\"{}", "A".repeat(70_000))),
        Act::Answer(200, json!({ "KeyId": ARN }).to_string()),
        Act::Answer(200, json!({ "Plaintext": 1 }).to_string()),
    ] {
        let error = fails(act).await;
        assert!(matches!(error, Error::Unreachable(_)), "{error:?}");
    }
    for no_key in [&[1; 31][..], &[1; 33], b""] {
        let answer = json!({ "Plaintext": STANDARD.encode(no_key) }).to_string();
        let error = fails(Act::Answer(200, answer)).await;
        assert!(matches!(error, Error::InvalidCiphertext(_)), "{error:?}");
    }
}

#[tokio::test]
async fn an_endless_answer_is_left_early() {
    let began = Instant::now();
    fails(Act::Endless).await;
    assert!(
        began.elapsed() < CALL_TIMEOUT / 2,
        "it was read to the end of time"
    );
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = service().await;
    let error = fails(Act::Redirect(elsewhere.url.clone())).await;
    assert!(matches!(error, Error::Misconfigured(_)), "{error:?}");
    assert_eq!(elsewhere.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn kept_connection_ends_when_it_is_not_used() {
    let (server, stream) = (service().await, stream());
    let context = Context {
        stream: &stream,
        epoch: 1,
    };
    let (aws, dek) = (aws(&server), Key::generate().unwrap());
    let held = Arc::strong_count(&server.state);
    for _ in 0..5 {
        aws.wrap(&dek, context).await.unwrap();
    }
    assert_eq!(server.connections(), 1);
    let began = Instant::now();
    // Each connection of the server holds its state.
    until(|| Arc::strong_count(&server.state) == held).await;
    let kept = began.elapsed();
    assert!(kept >= IDLE_TIMEOUT && kept < 3 * IDLE_TIMEOUT, "{kept:?}");
}

#[tokio::test]
async fn no_environment_sends_data_keys_in_clear() {
    let found = environment().into_builder();
    let found = found.endpoint_url("http://192.0.2.1:8080").build();
    let mut config = config(&service().await);
    config.endpoint_url.clear();
    let (aws, stream) = (Aws::new(&config, &found), stream());
    let context = Context {
        stream: &stream,
        epoch: 1,
    };
    let dek = Key::generate().unwrap();
    let error = aws.wrap(&dek, context).await.unwrap_err().error;
    assert!(matches!(error, Error::Misconfigured(_)), "{error:?}");
}
