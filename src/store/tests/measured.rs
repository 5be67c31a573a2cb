//! A measured store does what the store does, and counts it.

use super::*;
use crate::telemetry::metrics::Metrics;

#[tokio::test]
async fn calls_are_counted_by_how_they_ended() {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        path: dir.path().join("store"),
        ..Config::default()
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    let store = Measured::new(Embedded::init(&config).unwrap(), Arc::clone(&metrics));
    let name: BasinName = "some-basin".parse().unwrap();
    let change = |expected| Change::Basin {
        name: name.clone(),
        expected,
        entry: Some(BasinEntry::default()),
    };
    assert_eq!(store.holdings().basins, 0);
    store.commit(vec![change(Revision::NONE)]).await.unwrap();
    let again = store.commit(vec![change(Revision::NONE)]).await;
    assert!(matches!(again, Err(Error::Conflict(_))));
    assert!(store.basin(&name).await.unwrap().entry.is_some());
    assert!(store.streams_of(&name).await.unwrap().is_empty());
    let made = || put_project("payments", Some(project()), Revision::NONE);
    store.erase(vec![made()]).await.unwrap();
    let again = store.erase(vec![made()]).await;
    assert!(matches!(again, Err(Error::Conflict(_))));
    let text = metrics.render();
    let call = |operation: &str, outcome: &str, count: u64| {
        format!(
            "streamseal_store_operations_total{{operation=\"{operation}\",outcome=\"{outcome}\"}} {count}"
        )
    };
    for line in [
        call("commit", "ok", 1),
        call("commit", "conflict", 1),
        call("commit", "error", 0),
        call("basin", "ok", 1),
        call("streams_of", "ok", 1),
        "streamseal_store_operation_duration_seconds_count{operation=\"commit\"} 2".to_owned(),
        "streamseal_store_entries{kind=\"basin\"} 1".to_owned(),
        "streamseal_store_entries{kind=\"stream\"} 0".to_owned(),
        "streamseal_store_entries{kind=\"project\"} 1".to_owned(),
        call("erase", "ok", 1),
        call("erase", "conflict", 1),
        format!(
            "streamseal_store_size_bytes {}",
            std::fs::metadata(&config.path).unwrap().len()
        ),
    ] {
        assert!(text.contains(&line), "{line} not in\n{text}");
    }
    // What was there before counts from the start.
    drop(store);
    let metrics = Arc::new(Metrics::new().unwrap());
    let _store = Measured::new(Embedded::open(&config).unwrap(), Arc::clone(&metrics));
    let text = metrics.render();
    assert!(text.contains("streamseal_store_entries{kind=\"basin\"} 1"));
}
