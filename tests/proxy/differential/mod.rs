//! Whatever a client does, streamseal over a plain store answers as S2 with its own encryption does, but
//! for the differences that are listed with their reasons.
//!
//! `STREAMSEAL_DIFFERENTIAL_OPS` sets how many operations are compared at least, `STREAMSEAL_DIFFERENTIAL_SEED`
//! draws others. What failed is shrunk and added to `regressions.jsonl`, which is played first.

mod asks;
mod compare;
mod configs;
mod intended;
mod ops;
mod run;
mod settle;
mod strategy;
mod strategy_control;
mod strategy_odd;
mod strategy_read;
mod world;

use std::{cell::RefCell, io::Write as _};

use proptest::{
    strategy::Strategy as _,
    test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner},
};

use self::{ops::Op, run::Tally};

/// Operations that are compared at least.
const OPS: usize = 2000;

/// Sequences that once failed, one to a line.
const REGRESSIONS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/proxy/differential/regressions.jsonl"
);

/// Longest search for a shorter sequence that fails, in milliseconds.
const SHRINK_TIME: u32 = 60_000;

/// Where the operations of a run come from, unless `STREAMSEAL_DIFFERENTIAL_SEED` says otherwise. It is
/// always the same, so that a change is judged by itself; other seeds still come upon differences of wording.
const SEED: u64 = 1_795_327_334_357_682_250;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
    )
}

#[test]
fn random_operations_answer_as_in_s2() {
    let seed = number("STREAMSEAL_DIFFERENTIAL_SEED").unwrap_or(SEED);
    let wanted = number("STREAMSEAL_DIFFERENTIAL_OPS").map_or(OPS, |ops| ops as usize);
    println!("STREAMSEAL_DIFFERENTIAL_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        failure_persistence: None,
        max_shrink_time: SHRINK_TIME,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let tally = RefCell::new(Tally::default());
    while tally.borrow().compared < wanted {
        let sequence = strategy::sequences().new_tree(&mut runner).unwrap();
        let ran = runner.run_one(sequence, |ops| {
            let ran = run::play(&ops, &mut tally.borrow_mut());
            ran.map_err(TestCaseError::fail)
        });
        if let Err(TestError::Fail(why, ops)) = ran {
            let again = run::play(&ops, &mut Tally::default());
            let again = match again {
                Err(_) => {
                    keep(&ops);
                    format!("fails again, and is in {REGRESSIONS} now")
                }
                Ok(()) => "does not fail again, so it depends on time".to_owned(),
            };
            fail(
                &ops,
                &format!("{why}\nSTREAMSEAL_DIFFERENTIAL_SEED={seed}, {again}"),
            );
        }
    }
    let tally = tally.into_inner();
    println!("{tally:#?}");
    tally.assert_worth_it();
}

#[test]
fn what_once_failed_answers_as_in_s2() {
    let kept = std::fs::read_to_string(REGRESSIONS).unwrap();
    assert!(!kept.is_empty());
    for line in kept.lines() {
        let ops: Vec<Op> = serde_json::from_str(line).unwrap();
        if let Err(why) = run::play(&ops, &mut Tally::default()) {
            fail(&ops, &why);
        }
    }
}

/// Shows the sequence, and why it failed last: where there is only room for some lines, it is for these.
fn fail(ops: &[Op], why: &str) -> ! {
    let ops: Vec<String> = ops.iter().map(Op::line).collect();
    panic!("{}\n\n{why}", ops.join("\n"));
}

/// Adds a sequence to those that are played first.
fn keep(ops: &[Op]) {
    let line = serde_json::to_string(ops).unwrap();
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(REGRESSIONS)
        .unwrap();
    writeln!(file, "{line}").unwrap();
}
