//! Files of earlier formats hold what they held, and no earlier release opens them again.

use super::*;
use crate::crypto::{Purpose, StoreKey};

/// Entries as format 2 has them: without a word of managed keys.
const BASIN: &str = r#"{"stream_cipher":"aegis-256","declared":false,"deleted":false}"#;
const STREAM: &str = r#"{"state":{"live":{"cipher":"aegis-256","created_at":"2026-01-01T00:00:00Z"}},"origin":"created","key_check":null}"#;

/// Rows of a file of format 2, tagged under this key, with the ledger that they add up to.
struct Before {
    key: StoreKey,
    sum: Digest,
    entries: u64,
}

impl Before {
    fn row(&mut self, txn: &redb::WriteTransaction, table: &'static str, name: &str, entry: &str) {
        let revision = 3u64;
        let places = [table.as_bytes(), name.as_bytes()];
        let tagged = [
            places[0],
            places[1],
            &revision.to_le_bytes(),
            entry.as_bytes(),
        ];
        let tag = self.key.digest(Purpose::Entry, &tagged);
        let row = format!("{{\"revision\":{revision},\"entry\":{entry},\"tag\":\"{tag}\"}}");
        let share = [places[0], places[1], row.as_bytes()];
        self.sum = self.sum.xor(self.key.digest(Purpose::Share, &share));
        self.entries += 1;
        put_row(txn, table, name, row.as_bytes());
    }

    fn ledger(&self, txn: &redb::WriteTransaction, generation: u64) {
        let nonce = Digest::from_bytes([9; 32]);
        let cover = self.key.digest(Purpose::Cover, &[nonce.as_bytes()]);
        let covered = self.sum.xor(cover);
        let parts = [
            [7; 16].as_slice(),
            &generation.to_le_bytes(),
            &self.entries.to_le_bytes(),
            nonce.as_bytes(),
            covered.as_bytes(),
        ];
        let tag = self.key.digest(Purpose::Ledger, &parts);
        let entries = self.entries;
        let ledger = format!(
            "{{\"generation\":{generation},\"entries\":{entries},\"nonce\":\"{nonce}\",\"covered\":\"{covered}\",\"tag\":\"{tag}\"}}"
        );
        put_row(txn, "meta", "ledger", ledger.as_bytes());
    }
}

/// A file of format 2 or 3, as earlier releases wrote it.
fn earlier(config: &Config, version: u32, edit: impl FnOnce(&redb::WriteTransaction)) {
    earlier_with(config, version, STREAM, edit);
}

fn earlier_with(
    config: &Config,
    version: u32,
    stream: &str,
    edit: impl FnOnce(&redb::WriteTransaction),
) {
    let key = config.key().unwrap();
    make(&config.path, |txn| {
        put_row(txn, "meta", "format", &version.to_le_bytes());
        put_row(txn, "meta", "store_id", &[7; 16]);
        put_row(txn, "meta", "keyed", &[u8::from(key.is_some())]);
        let mut before = Before {
            key: key.as_ref().map_or_else(StoreKey::public, StoreKey::new),
            sum: Digest::ZERO,
            entries: 0,
        };
        before.row(txn, "basins", "test-basin", BASIN);
        before.row(txn, "streams", "test-basin/a", stream);
        before.ledger(txn, 17);
        edit(txn);
    });
}

#[tokio::test]
async fn listed_streams_of_earlier_formats_count_as_admitted() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let listed = STREAM.replace("created\",\"key", "baseline\",\"key");
    let listed = listed.replace(r#""cipher":"aegis-256""#, r#""cipher":null"#);
    assert!(listed.contains("baseline"));
    earlier_with(&config, 3, &listed, |_| {});
    let store = Embedded::open(&config).unwrap();
    let entry = store.stream(&path("a")).await.unwrap().entry.unwrap();
    assert_eq!(
        (entry.origin, entry.state.cipher()),
        (Origin::Admitted, None)
    );
}

#[tokio::test]
async fn stores_of_earlier_formats_are_brought_up_to_date() {
    for (version, is_keyed) in [(2, false), (2, true), (3, false), (3, true)] {
        let dir = tempfile::tempdir().unwrap();
        let config = match is_keyed {
            true => keyed(&dir, 1),
            false => config(&dir),
        };
        earlier(&config, version, |_| {});
        // A look changes nothing.
        let error = Embedded::open_to_look(&config).err().unwrap();
        assert!(matches!(error, Error::Earlier(_)), "{error}");
        let format = row(&config.path, "meta", "format");
        assert_eq!(format, version.to_le_bytes());
        for _ in 0..2 {
            let store = Embedded::open(&config).unwrap();
            let found = store.stream(&path("a")).await.unwrap();
            assert_eq!(found.entry.as_deref(), Some(&sealed()));
            assert_eq!(found.revision, Revision(3));
            let basin = store.basin(&"test-basin".parse().unwrap()).await.unwrap();
            let cipher = basin.entry.unwrap().stream_cipher;
            assert_eq!(cipher, Some(Cipher::Aegis256));
            assert_eq!(store.projects().await.unwrap(), []);
            assert_eq!(store.rules().await.unwrap(), Versioned::none());
            let summary = store.summary().await.unwrap();
            // It says the same as before: no change was counted.
            assert_eq!((summary.format, summary.generation), (4, 17));
        }
        // What an earlier release would take for damaged, it does not open at all.
        let format = row(&config.path, "meta", "format");
        assert_eq!(format, 4u32.to_le_bytes());
        let store = Embedded::open(&config).unwrap();
        let keys = put_entry("a", Some(managed(&[Some(wrapped())])), Revision(3));
        let project = put_project("payments", Some(project()), Revision::NONE);
        let rules = put_rules(Some(rules()), Revision::NONE);
        store.commit(vec![keys, project, rules]).await.unwrap();
        drop(store);
        drop(Embedded::open(&config).unwrap());
    }
}

#[tokio::test]
async fn what_the_ledger_of_the_second_format_does_not_know_is_refused() {
    type Edit = fn(&redb::WriteTransaction);
    let edits: [(&str, Edit); 3] = [
        ("a row too few", |txn| {
            remove_row(txn, "streams", "test-basin/a");
        }),
        ("no ledger", |txn| remove_row(txn, "meta", "ledger")),
        ("a project that no release wrote", |txn| {
            put_row(txn, "projects", "payments", b"{}");
        }),
    ];
    for (what, edit) in edits {
        for is_keyed in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let config = match is_keyed {
                true => keyed(&dir, 1),
                false => config(&dir),
            };
            earlier(&config, 2, edit);
            let error = Embedded::open(&config).err();
            let error = error.unwrap_or_else(|| panic!("{what}: opened"));
            assert!(
                matches!(error, Error::Damaged(_) | Error::Altered(_)),
                "{what}: {error}"
            );
        }
    }
}

#[test]
fn fields_that_no_release_wrote_are_refused() {
    let stream = serde_json::to_string(&managed(&[Some(wrapped()), None])).unwrap();
    let project = serde_json::to_string(&project()).unwrap();
    let rules = serde_json::to_string(&rules()).unwrap();
    assert!(serde_json::from_str::<StreamEntry>(&stream).is_ok());
    assert!(serde_json::from_str::<ProjectEntry>(&project).is_ok());
    // In each object that there is.
    let grown = |text: &str| {
        let opens = text.match_indices('{').map(|(at, _)| at + 1);
        opens
            .map(|at| {
                let rest = if text[at..].starts_with('}') { "" } else { "," };
                format!("{}\"later\":1{rest}{}", &text[..at], &text[at..])
            })
            .collect::<Vec<_>>()
    };
    for text in grown(&stream) {
        assert!(
            serde_json::from_str::<StreamEntry>(&text).is_err(),
            "{text}"
        );
    }
    for text in grown(&rules) {
        assert!(serde_json::from_str::<RulesEntry>(&text).is_err(), "{text}");
    }
    for text in grown(&project) {
        assert!(
            serde_json::from_str::<ProjectEntry>(&text).is_err(),
            "{text}"
        );
    }
}
