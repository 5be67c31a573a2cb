//! No bytes from the network make a decoder panic, or mean here what they do not mean to S2: the fuzz targets
//! on their corpus, and on what comes of altering it.
//!
//! `.ci/fuzz` runs the same targets under libFuzzer, which finds more and takes longer.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::BuildHasher as _,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    path::PathBuf,
};

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use targets::Target;

/// Inputs for each target besides the corpus.
const CASES: u32 = 3000;

/// Largest file of the corpus.
const MAX_FILE_BYTES: usize = 4096;

/// Most files of one target.
const MAX_FILES: usize = 60;

/// Repeats the inputs of an earlier run: the number that it printed.
const SEED: &str = "STREAMSEAL_FUZZ_SEED";

fn corpus_root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus")
}

/// The files of one target, in the order of their names.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let files = fs::read_dir(corpus_root().join(name)).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let read = |path: PathBuf| {
        let data = fs::read(&path).unwrap();
        (path, data)
    };
    files.into_iter().map(read).collect()
}

/// Replays a target's corpus, then feeds it random and altered inputs.
fn holds(name: &str) {
    let (_, target) = targets::ALL
        .into_iter()
        .find(|(known, _)| *known == name)
        .unwrap();
    let corpus = corpus(name);
    for (path, data) in &corpus {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| target(data))) {
            eprintln!("{} breaks the promise", path.display());
            resume_unwind(panic);
        }
    }
    let seeds = corpus.into_iter().map(|(_, data)| data).collect();
    drive(target, &inputs(seeds));
}

fn drive(target: Target, inputs: &impl Strategy<Value = Vec<u8>>) {
    let seed = match std::env::var(SEED) {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => RandomState::new().hash_one(CASES),
    };
    println!("{SEED}={seed}");
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &key);
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Config::default()
    };
    let run = TestRunner::new_with_rng(config, rng).run(inputs, |data| {
        target(&data);
        Ok(())
    });
    run.unwrap_or_else(|failure| panic!("{failure}"));
}

/// Random bytes, and seeds with pieces cut out, put in, and taken from each other.
fn inputs(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let bytes = |size| vec(any::<u8>(), size);
    let piece = (select(seeds.clone()), any::<(Index, Index)>()).prop_map(|(seed, (from, to))| {
        let (from, to) = (from.index(seed.len() + 1), to.index(seed.len() + 1));
        seed[from.min(to)..from.max(to)].to_vec()
    });
    let put_in = prop_oneof![
        2 => Just(Vec::new()),
        4 => bytes(1..2),
        1 => bytes(2..12),
        1 => (select(vec![0, 0x7f, 0x80, 0xff]), 1usize..10).prop_map(|(byte, n)| vec![byte; n]),
        2 => piece,
    ];
    let edits = vec((any::<Index>(), 0usize..6, put_in), 1..5);
    let altered = (select(seeds), edits).prop_map(|(mut data, edits)| {
        for (at, cut, put_in) in edits {
            let at = at.index(data.len() + 1);
            let end = data.len().min(at + cut);
            data.splice(at..end, put_in);
        }
        data
    });
    prop_oneof![1 => bytes(0..300), 9 => altered]
}

#[test]
fn sealed_records_open_to_what_was_sealed_or_not_at_all() {
    holds("sealed_record");
}

#[test]
fn protobuf_is_read_as_in_s2_and_survives_sealing() {
    holds("protobuf");
}

#[test]
fn frames_are_those_of_s2_however_they_are_cut() {
    holds("s2s_frames");
}

#[test]
fn json_is_read_and_written_as_in_s2() {
    holds("json_body");
}

#[test]
fn whatever_is_in_it_an_event_is_one_event() {
    holds("sse");
}

#[test]
fn requests_with_records_never_pass_for_others() {
    holds("request");
}

#[test]
fn the_corpus_is_small_and_each_target_has_one() {
    let folders = fs::read_dir(corpus_root()).unwrap();
    let name = |folder: fs::DirEntry| folder.file_name().into_string().unwrap();
    let mut folders: Vec<String> = folders.map(|folder| name(folder.unwrap())).collect();
    folders.sort();
    assert_eq!(folders, targets::ALL.map(|(name, _)| name));
    for folder in folders {
        let files = corpus(&folder);
        assert!((5..=MAX_FILES).contains(&files.len()), "{folder}");
        for (path, data) in files {
            assert!(data.len() <= MAX_FILE_BYTES, "{}", path.display());
        }
    }
}
