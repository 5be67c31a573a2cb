//! Rules on their way into force. What seals more is recorded before it takes effect, what seals less after: the
//! store never knows of fewer sealing rules than are in force, at whatever moment the process ends.

use super::Rules;
use crate::store::{self, Change, Revision, RulesEntry, Store};

/// Why rules do not come into force.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// They seal less than those in force last, and do not say so.
    #[error(
        "the configuration seals less than the one that was in force last, and does not say so:\n{}",
        .0.join("\n")
    )]
    SealsLess(Vec<String>),
    /// The store cannot tell or record it.
    #[error("cannot compare with the rules that were in force last: {0}")]
    Store(#[from] store::Error),
}

/// Rules that may come into force now.
#[must_use]
pub struct Succession {
    /// What is recorded now: what seals by the rules before or after.
    recorded: RulesEntry,
    revision: Revision,
    next: RulesEntry,
}

impl Succession {
    /// Compares with what was in force last, and records what comes to it.
    ///
    /// # Errors
    /// The rules seal less and do not say so, or the store fails. Nothing has changed then.
    pub async fn begin(store: &dyn Store, rules: &Rules) -> Result<Self, Refused> {
        let found = store.rules().await?;
        let last = found.entry.unwrap_or_default();
        let unsaid = rules.unsaid(&last);
        if !unsaid.is_empty() {
            return Err(Refused::SealsLess(unsaid));
        }
        let next = rules.in_force();
        let both = union(&last, &next);
        let revision = record(store, found.revision, &last, &both).await?;
        Ok(Self {
            recorded: both,
            revision,
            next,
        })
    }

    /// Records that the rules are in force, and no others.
    ///
    /// # Errors
    /// The store fails. It then knows of rules that are no longer in force.
    pub async fn finish(self, store: &dyn Store) -> Result<(), store::Error> {
        record(store, self.revision, &self.recorded, &self.next).await?;
        Ok(())
    }
}

/// What seals by one of the two; a rule of both has the cipher of the next.
fn union(last: &RulesEntry, next: &RulesEntry) -> RulesEntry {
    let is_gone = |rule: &&_| !next.sealing.iter().any(|kept| kept.is_same(rule));
    let gone = last.sealing.iter().filter(is_gone);
    RulesEntry {
        sealing: next.sealing.iter().chain(gone).cloned().collect(),
        refuses_plain: last.refuses_plain || next.refuses_plain,
    }
}

/// Records a change, if it is one, and returns the revision of what is recorded then.
async fn record(
    store: &dyn Store,
    expected: Revision,
    from: &RulesEntry,
    to: &RulesEntry,
) -> Result<Revision, store::Error> {
    if from == to {
        return Ok(expected);
    }
    let entry = Some(to.clone());
    store
        .commit(vec![Change::Rules { expected, entry }])
        .await?;
    Ok(expected.next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        registry::rules::{BasinRule, StreamRule},
        store::{Embedded, Versioned},
    };

    const SEALED: &str = "[[streams]]\nmatch = \"audit-*/**\"\ncipher = \"aegis-256\"\n";
    const MORE: &str = "[[basins]]\nmatch = \"pay-*\"\nstream_cipher = \"aegis-256\"\n";
    const SAID: &str = "[[streams]]\nmatch = \"audit-*/**\"\ncipher = \"none\"\n";

    fn rules(text: &str) -> Rules {
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct File {
            basins: Vec<BasinRule>,
            streams: Vec<StreamRule>,
        }
        let file: File = toml::from_str(text).unwrap();
        Rules::compile(&file.basins, &file.streams).unwrap()
    }

    fn store(dir: &tempfile::TempDir) -> Embedded {
        let config = store::Config {
            path: dir.path().join("store.redb"),
            create: true,
            ..store::Config::default()
        };
        Embedded::open(&config).unwrap()
    }

    async fn put(store: &dyn Store, text: &str) -> Result<(), Refused> {
        let succession = Succession::begin(store, &rules(text)).await?;
        Ok(succession.finish(store).await?)
    }

    async fn is_refused(store: &dyn Store, text: &str) -> bool {
        let before = store.rules().await.unwrap();
        match put(store, text).await {
            Ok(()) => false,
            Err(Refused::SealsLess(_)) => {
                assert_eq!(store.rules().await.unwrap(), before);
                true
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[tokio::test]
    async fn none_said_once_is_enough() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        put(&store, "").await.unwrap();
        assert_eq!(store.rules().await.unwrap(), Versioned::none());
        put(&store, SEALED).await.unwrap();
        put(&store, SEALED).await.unwrap();
        assert_eq!(store.rules().await.unwrap().revision, Revision::NONE.next());
        assert!(is_refused(&store, "").await);
        assert!(is_refused(&store, MORE).await);
        put(&store, SAID).await.unwrap();
        put(&store, "").await.unwrap();
    }

    #[tokio::test]
    async fn a_crash_between_the_commits_forgets_no_rule() {
        let dir = tempfile::tempdir().unwrap();
        let store = store(&dir);
        put(&store, SEALED).await.unwrap();
        // The process ends before it is known that the new rules are in force.
        let more = SAID.to_owned() + MORE;
        let begun = Succession::begin(&store, &rules(&more)).await.unwrap();
        drop(begun);
        assert!(is_refused(&store, "").await);
        assert!(is_refused(&store, SEALED).await);
        assert!(is_refused(&store, MORE).await);
        put(&store, &(SEALED.to_owned() + MORE)).await.unwrap();
        put(&store, &more).await.unwrap();
        put(&store, MORE).await.unwrap();
    }
}
