//! What of a new configuration can come in force while the proxy runs, and what has to wait.

use toml::Value;

use super::Failure;
use crate::config::Config;

/// What comes in force of `wanted` on a proxy that runs with `running`: certificates, the access token, the
/// rules, the rights of clients, and `store.plain_streams`, which the rules decide where it is left out. Who
/// decides who comes in (`listen.authenticate`) is not among them: connections that are open came in under the
/// old rule.
pub(super) fn effective(running: &Config, wanted: &Config) -> Config {
    let mut effective = running.clone();
    if running.listen.plaintext == wanted.listen.plaintext {
        effective.listen.tls = wanted.listen.tls.clone();
    }
    effective.upstream.tls = wanted.upstream.tls.clone();
    effective.upstream.access_token_file = wanted.upstream.access_token_file.clone();
    effective.upstream.forward_unknown = wanted.upstream.forward_unknown;
    effective.basins = wanted.basins.clone();
    effective.streams = wanted.streams.clone();
    effective.projects = wanted.projects.clone();
    effective.store.plain_streams = wanted.store.plain_streams;
    effective.clients = wanted.clients.clone();
    effective
}

/// The keys whose values differ.
pub(super) fn differences(one: &Config, other: &Config) -> Result<Vec<String>, Failure> {
    let table = |config: &Config| {
        Value::try_from(config).map_err(|error| Failure::Config(error.to_string()))
    };
    let (one, other) = (table(one)?, table(other)?);
    let mut keys = Vec::new();
    collect_differences("", Some(&one), Some(&other), &mut keys);
    Ok(keys)
}

fn collect_differences(
    key: &str,
    one: Option<&Value>,
    other: Option<&Value>,
    keys: &mut Vec<String>,
) {
    match (one, other) {
        (Some(Value::Table(one)), Some(Value::Table(other))) => {
            let names = one
                .keys()
                .chain(other.keys().filter(|name| !one.contains_key(*name)));
            for name in names {
                let inner = match key {
                    "" => name.clone(),
                    key => format!("{key}.{name}"),
                };
                collect_differences(&inner, one.get(name), other.get(name), keys);
            }
        }
        (one, other) if one != other => keys.push(key.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{server, store, upstream};

    fn parsed(text: &str) -> Config {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path)).unwrap()
    }

    #[test]
    fn only_certificates_token_and_rules_change_while_it_runs() {
        let running = parsed("[listen.tls]\nself_signed = true\n");
        let wanted = parsed(
            "[listen]\naddress = \"127.0.0.1:1\"\nauthenticate = \"none\"\n\
             [listen.tls]\ncert_file = \"c\"\nkey_file = \"k\"\nclient_ca_file = \"ca\"\n\
             [upstream]\naccount_endpoint = \"http://other\"\naccess_token_file = \"t\"\n\
             [upstream.tls]\nca_file = \"uca\"\n\
             [store]\nunknown_streams = \"plain\"\nplain_streams = \"refuse\"\n[keys]\ncheck = \"off\"\n\
             [kms]\nprovider = \"aws\"\n[limits]\ndrain_timeout = \"1s\"\n\
             [[clients]]\nsubject = \"CN=a\"\nmatch = [\"b/s\"]\nscopes = [\"read\"]\n\
             [[basins]]\nmatch = \"b\"\nstream_cipher = \"none\"\n[[streams]]\nmatch = \"b/s\"\ncipher = \"none\"\n",
        );
        let effective = effective(&running, &wanted);
        let expected = Config {
            listen: server::Config {
                tls: wanted.listen.tls.clone(),
                ..running.listen.clone()
            },
            upstream: upstream::Config {
                account_endpoint: running.upstream.account_endpoint.clone(),
                ..wanted.upstream.clone()
            },
            store: store::Config {
                plain_streams: wanted.store.plain_streams,
                ..running.store.clone()
            },
            clients: wanted.clients.clone(),
            basins: wanted.basins.clone(),
            streams: wanted.streams.clone(),
            ..running
        };
        assert_eq!(effective, expected);
        let mut waiting = differences(&effective, &wanted).unwrap();
        waiting.sort();
        let keys = [
            "keys.check",
            "kms.provider",
            "limits.drain_timeout",
            "listen.address",
            "listen.authenticate",
            "store.unknown_streams",
            "upstream.account_endpoint",
        ];
        assert_eq!(waiting, keys);
    }

    #[test]
    fn a_listener_keeps_its_tls_when_the_next_one_has_none() {
        let running = parsed("[listen.tls]\nself_signed = true\nclient_ca_file = \"ca\"\n");
        let wanted = parsed("[listen]\nplaintext = true\n");
        assert_eq!(effective(&running, &wanted), running);
        let waiting = differences(&running, &wanted).unwrap();
        assert!(
            waiting.contains(&"listen.plaintext".to_owned()),
            "{waiting:?}"
        );
        assert!(
            waiting.contains(&"listen.tls.client_ca_file".to_owned()),
            "{waiting:?}"
        );
    }

    #[test]
    fn nothing_waits_when_nothing_else_changed() {
        let running = parsed("[listen.tls]\nself_signed = true\n");
        assert_eq!(
            differences(&running, &running).unwrap(),
            Vec::<String>::new()
        );
    }
}
