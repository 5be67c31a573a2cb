//! The `[kms]` section: what is missing, and what must not be.

use super::*;

fn aws(change: impl FnOnce(&mut AwsConfig)) -> Vec<String> {
    let mut config = Config {
        provider: ProviderName::Aws,
        ..Config::default()
    };
    config.aws.key_id = "alias/streams".to_owned();
    change(&mut config.aws);
    config.problems()
}

fn vault(change: impl FnOnce(&mut VaultConfig)) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let url = "https://vault.internal:8200";
    let mut config = Config {
        provider: ProviderName::Vault,
        vault: vault_config(url, dir.path().join("token")),
        ..Config::default()
    };
    change(&mut config.vault);
    config.problems()
}

fn is_about(problems: &[String], key: &str) {
    let [problem] = problems else {
        panic!("{problems:?}");
    };
    assert!(problem.starts_with(&format!("{key}: ")), "{problem}");
}

#[test]
fn nothing_is_missing_where_nothing_is_wanted() {
    assert_eq!(Config::default().problems(), Vec::<String>::new());
    assert_eq!(aws(|_| {}), Vec::<String>::new());
    assert_eq!(vault(|_| {}), Vec::<String>::new());
}

#[test]
fn each_mistake_is_named_by_its_key() {
    for ttl in [Duration::ZERO, Duration::from_secs(86_401)] {
        let config = Config {
            cache_ttl: ttl,
            ..Config::default()
        };
        is_about(&config.problems(), "kms.cache_ttl");
    }
    let config = Config {
        cache_idle: Duration::from_secs(3601),
        ..Config::default()
    };
    is_about(&config.problems(), "kms.cache_idle");
    let config = Config {
        cache_bytes: bytesize::ByteSize::kib(1023),
        ..Config::default()
    };
    is_about(&config.problems(), "kms.cache_bytes");
    is_about(&aws(|aws| aws.key_id.clear()), "kms.aws.key_id");
    is_about(&aws(|aws| aws.key_id.push('\n')), "kms.aws.key_id");
    is_about(&aws(|aws| aws.region = "eu 1".into()), "kms.aws.region");
    is_about(&vault(|vault| vault.key.clear()), "kms.vault.key");
    is_about(&vault(|vault| vault.key = "../k".into()), "kms.vault.key");
    is_about(&vault(|vault| vault.mount.clear()), "kms.vault.mount");
    is_about(
        &vault(|vault| vault.mount = "a//b".into()),
        "kms.vault.mount",
    );
    is_about(
        &vault(|vault| vault.mount = "../sys".into()),
        "kms.vault.mount",
    );
    is_about(
        &vault(|vault| vault.namespace = "a\nb".into()),
        "kms.vault.namespace",
    );
    is_about(
        &vault(|vault| vault.token_file = no_file()),
        "kms.vault.token_file",
    );
    is_about(
        &vault(|vault| vault.token_file = "/none".into()),
        "kms.vault.token_file",
    );
    is_about(
        &vault(|vault| vault.ca_file = "/none".into()),
        "kms.vault.ca_file",
    );
    assert_eq!(
        vault(|vault| vault.mount = "teams/transit".into()),
        Vec::<String>::new()
    );
}

#[test]
fn data_keys_cross_no_network_in_clear() {
    for url in [
        "http://vault.internal:8200",
        "http://10.0.0.1",
        "http://127.0.0.1.example.com",
        "ftp://127.0.0.1",
        "vault.internal:8200",
        "https://user:secret@vault.internal",
        "https://vault.internal/v1",
        "https://",
        "",
    ] {
        let problems = vault(|vault| vault.address = url.into());
        is_about(&problems, "kms.vault.address");
        assert!(!problems.concat().contains("secret"));
        if !url.is_empty() {
            let problems = aws(|aws| aws.endpoint_url = url.into());
            is_about(&problems, "kms.aws.endpoint_url");
        }
    }
    for url in [
        "http://127.0.0.1:8200",
        "http://localhost:8200/",
        "http://[::1]:1",
        "https://h",
    ] {
        assert_eq!(
            vault(|vault| vault.address = url.into()),
            Vec::<String>::new()
        );
        assert_eq!(
            aws(|aws| aws.endpoint_url = url.into()),
            Vec::<String>::new()
        );
    }
}

#[test]
fn a_key_names_its_region() {
    for (key_id, region, found) in [
        ("arn:aws:kms:eu-central-1:1:key/2", "", Some("eu-central-1")),
        (
            "arn:aws-cn:kms:cn-north-1:1:alias/2",
            "",
            Some("cn-north-1"),
        ),
        (
            "arn:aws:kms:eu-central-1:1:key/2",
            "us-east-1",
            Some("us-east-1"),
        ),
        ("arn:aws:sns:eu-central-1:1:key/2", "", None),
        ("alias/streams", "", None),
    ] {
        let config = AwsConfig {
            key_id: key_id.into(),
            region: region.into(),
            ..AwsConfig::default()
        };
        assert_eq!(config.region(), found, "{key_id}");
    }
}

#[tokio::test]
async fn only_what_is_whole_starts() {
    let metrics = || Arc::new(Metrics::new().unwrap());
    let none = Kms::start(&Config::default(), metrics()).await.unwrap();
    assert!(none.is_none());
    let config = Config {
        provider: ProviderName::Vault,
        ..Config::default()
    };
    let error = Kms::start(&config, metrics()).await.unwrap_err();
    assert!(matches!(error, Error::Misconfigured(_)), "{error:?}");
    assert!(error.reason().contains("kms.vault.address"), "{error:?}");
}
