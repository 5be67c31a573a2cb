//! A damaged file is refused or holds what it held: no entry is lost or changed without a word.

use super::*;

/// Everything that a store holds, or why it does not open.
async fn content(config: &Config) -> Result<(Vec<RecordedBasin>, Vec<Recorded>), Error> {
    let store = Embedded::open(config)?;
    Ok((store.basins().await?, store.streams().await?))
}

/// Asserts that `bytes` in place of the store are refused, or change nothing. Says which.
async fn is_refused(
    config: &Config,
    bytes: &[u8],
    whole: &(Vec<RecordedBasin>, Vec<Recorded>),
    what: &str,
) -> bool {
    std::fs::write(&config.path, bytes).unwrap();
    // What an earlier round wrote is not to make this one look old.
    let _none = std::fs::remove_file(config.path.with_file_name("store.redb.witness"));
    match content(config).await {
        Ok(found) => {
            assert_eq!(found, *whole, "{what}");
            goes_on(config, &found, what).await;
            false
        }
        Err(error) => {
            let text = error.to_string();
            let helps = ["backup", "check `store.path`", "run the release"];
            assert!(
                helps.iter().any(|help| text.contains(help)),
                "{what}: {text}"
            );
            true
        }
    }
}

/// Asserts that a store whose damage was not noticed takes changes, and keeps what it held.
async fn goes_on(config: &Config, before: &(Vec<RecordedBasin>, Vec<Recorded>), what: &str) {
    let names: Vec<String> = (0..20).map(|at| format!("later/{at}")).collect();
    let store = Embedded::open(config).unwrap();
    for name in &names {
        let change = put(name, Revision::NONE);
        store.commit(vec![change]).await.unwrap();
    }
    drop(store);
    let (basins, streams) = content(config)
        .await
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(basins, before.0, "{what}");
    let is_later = |(path, _): &&Recorded| path.stream.as_str().starts_with("later/");
    let (later, others): (Vec<_>, Vec<_>) = streams.iter().partition(is_later);
    assert_eq!(later.len(), names.len(), "{what}");
    assert!(others.into_iter().eq(&before.1), "{what}");
}

#[tokio::test]
async fn flipped_bits_are_refused_or_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    let names: Vec<String> = (0..40).map(|at| format!("stream/{at}")).collect();
    filled(
        &config,
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    )
    .await;
    let whole = content(&config).await.unwrap();
    let good = std::fs::read(&config.path).unwrap();
    // Positions that hold something: most of the file is room to grow.
    let used: Vec<usize> = (0..good.len()).filter(|at| good[*at] != 0).collect();
    let seed = rand::random::<u64>();
    println!("seed {seed}");
    let mut random = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed);
    let mut refused = 0;
    for _ in 0..200 {
        let at = used[rand::RngExt::random_range(&mut random, 0..used.len())];
        let bit = rand::RngExt::random_range(&mut random, 0..8);
        let mut bytes = good.clone();
        bytes[at] ^= 1 << bit;
        let what = format!("bit {bit} of byte {at}");
        refused += u32::from(is_refused(&config, &bytes, &whole, &what).await);
    }
    assert!(refused > 20, "only {refused} of 200 were noticed");
}

#[tokio::test]
async fn truncated_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    filled(&config, &["a", "b", "c"]).await;
    let whole = content(&config).await.unwrap();
    let good = std::fs::read(&config.path).unwrap();
    let lengths = (0..40).map(|step| step * good.len() / 40);
    for length in lengths.chain([1, 8, 100, 4096, 8192, good.len() - 1]) {
        let what = format!("{length} of {} bytes", good.len());
        is_refused(&config, &good[..length], &whole, &what).await;
    }
    for (start, end) in [(0, 4096), (4096, 8192), (8192, good.len() / 2)] {
        let mut bytes = good.clone();
        bytes[start..end].fill(0);
        let what = format!("{start} to {end} zeroed");
        is_refused(&config, &bytes, &whole, &what).await;
    }
}
