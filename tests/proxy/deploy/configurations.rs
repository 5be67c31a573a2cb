//! Every configuration in `config/deploy` is taken as it is, once the files that it names exist; and what
//! it is shipped with brings these files to where it says.

use std::{
    fs,
    path::{Path, PathBuf},
};

use streamseal::config::Config;
use tempfile::TempDir;
use toml::{Table, Value};

use super::{files, yaml_values};
use crate::harness::{KEY, base64};

/// Where the files for deploying are.
fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/deploy")
}

/// Every configuration, those inside of Kubernetes ConfigMaps too: where it is, and its text.
fn configurations() -> Vec<(String, String)> {
    let mut found = files(&deploy(), "toml");
    for (path, text) in files(&deploy(), "yaml") {
        let inside = yaml_values(&text, "streamseal.toml");
        found.extend(inside.into_iter().map(|text| (path.clone(), text)));
    }
    assert_eq!(found.len(), 4, "of systemd, Compose, gateway and sidecar");
    found
}

/// Calls `with` for every `*_file` that the configuration names, with its section.
fn for_each_file(section: &str, table: &mut Table, with: &mut impl FnMut(&str, &str, &mut String)) {
    for (key, value) in table.iter_mut() {
        match value {
            Value::String(path) if key.ends_with("_file") => with(section, key, path),
            Value::Table(table) => for_each_file(key, table, with),
            Value::Array(tables) => {
                for table in tables.iter_mut().filter_map(Value::as_table_mut) {
                    for_each_file(key, table, with);
                }
            }
            _ => {}
        }
    }
}

/// Files of every kind that a configuration names.
struct Files {
    dir: TempDir,
}

impl Files {
    fn make() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let write = |name, text: String| fs::write(dir.path().join(name), text).unwrap();
        write("certificate", made.cert.pem());
        write("private-key", made.signing_key.serialize_pem());
        write("key", base64(&KEY));
        write("token", "a-token-of-some-length".to_owned());
        Self { dir }
    }

    /// The file for this key of this section.
    fn of(&self, section: &str, key: &str) -> String {
        let kind = match (section, key) {
            ("tls", "key_file" | "client_key_file") => "private-key",
            ("tls", _) => "certificate",
            (_, "key_file") => "key",
            (_, "access_token_file" | "token_file") => "token",
            other => panic!("a file of which kind? {other:?}"),
        };
        self.dir.path().join(kind).to_str().unwrap().to_owned()
    }
}

#[test]
fn every_shipped_configuration_is_taken() {
    let made = Files::make();
    for (path, text) in configurations() {
        let mut configuration: Table = text.parse().unwrap_or_else(|e| panic!("{path}: {e}"));
        for_each_file("", &mut configuration, &mut |section, key, file| {
            *file = made.of(section, key);
        });
        let file = made.dir.path().join("streamseal.toml");
        fs::write(&file, toml::to_string(&configuration).unwrap()).unwrap();
        let loaded = Config::load(Some(&file)).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert_eq!(loaded.check(), [""; 0], "{path}");
    }
}

/// The paths of the files that a configuration names.
fn named_files(text: &str) -> Vec<String> {
    let mut named = Vec::new();
    let mut configuration: Table = text.parse().unwrap();
    for_each_file("", &mut configuration, &mut |_, _, file| {
        named.push(file.clone())
    });
    assert!(!named.is_empty());
    named
}

#[test]
fn systemd_unit_loads_every_credential_that_its_configuration_names() {
    let text = |name| fs::read_to_string(deploy().join("systemd").join(name)).unwrap();
    let unit = text("streamseal.service");
    let mut credentials = 0;
    for file in named_files(&text("streamseal.toml")) {
        let Some(name) = file.strip_prefix("/run/credentials/streamseal.service/") else {
            assert!(file.starts_with("/etc/streamseal/tls/"), "{file}");
            continue;
        };
        assert!(
            unit.contains(&format!("\nLoadCredential={name}:")),
            "{name}"
        );
        credentials += 1;
    }
    assert_eq!(credentials, 3);
    // The config store's comes through the environment, for two units.
    for unit in [unit, text("streamseal-init.service")] {
        assert!(unit.contains("\nEnvironment=STREAMSEAL_STORE__KEY_FILE=%d/store.key\n"));
        assert!(unit.contains("\nLoadCredential=store.key:"));
    }
}

#[test]
fn compose_has_every_secret_that_its_configuration_names() {
    let text = |name| fs::read_to_string(deploy().join("compose").join(name)).unwrap();
    let compose = text("docker-compose.yaml");
    for file in named_files(&text("streamseal.toml")) {
        let name = file.strip_prefix("/run/secrets/").unwrap();
        assert!(compose.contains(&format!("\n      - {name}\n")), "{name}");
        let made = format!("\n  {name}:\n    file: ./secrets/{name}\n");
        assert!(compose.contains(&made), "{name}");
    }
}

#[test]
fn kubernetes_mounts_and_has_every_secret_that_its_configuration_names() {
    let kubernetes = deploy().join("kubernetes");
    let text = |name| fs::read_to_string(kubernetes.join(name)).unwrap();
    let gateway = text("gateway/config.yaml") + &text("gateway/gateway.yaml");
    for manifests in [gateway, text("sidecar.yaml")] {
        let mounts = yaml_values(&manifests, "mountPath");
        let [configuration] = &yaml_values(&manifests, "streamseal.toml")[..] else {
            panic!("one configuration");
        };
        for file in named_files(configuration) {
            let (directory, name) = file.rsplit_once('/').unwrap();
            assert!(mounts.iter().any(|mount| mount == directory), "{file}");
            // What kind of secret that is, Kubernetes defines; its entries are tls.crt and tls.key.
            if directory != "/run/tls" {
                assert!(
                    manifests.contains(&format!("\n  {name}: REPLACE-ME\n")),
                    "{name}"
                );
            }
        }
    }
}
