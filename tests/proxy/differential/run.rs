//! Playing a sequence of operations against both, one after the other.

use std::{collections::BTreeMap, panic::AssertUnwindSafe};

use futures_util::FutureExt as _;

use super::{
    compare::Seen,
    intended::Intended,
    ops::{Call, Op, Place},
    world::World,
};

/// What was compared.
#[derive(Debug, Default)]
pub struct Tally {
    /// Operations whose answers were compared, or that were sent to us alone and refused as they must be.
    pub compared: usize,
    /// Operations that could not be judged.
    pub skipped: usize,
    /// How often each difference was seen.
    pub intended: BTreeMap<Intended, usize>,
    /// Records that reads delivered.
    pub records: usize,
    /// Calls and the status of their answers.
    pub calls: BTreeMap<(String, u16), usize>,
}

impl Tally {
    /// Most operations must get through, or nothing is compared but refusals.
    pub fn assert_worth_it(&self) {
        let succeeded = self.calls.iter().filter(|((_, status), _)| *status < 300);
        let succeeded: usize = succeeded.map(|(_, count)| count).sum();
        assert!(
            succeeded * 3 > self.compared,
            "only {succeeded} of {} succeeded",
            self.compared
        );
    }
}

/// Plays a sequence on fresh servers.
///
/// # Errors
/// The first operation whose answers differ, and the answers.
pub fn play(ops: &[Op], tally: &mut Tally) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut world = World::start().await;
        for (at, op) in ops.iter().enumerate() {
            let step = AssertUnwindSafe(world.step(op, tally)).catch_unwind().await;
            let why = match step {
                Ok(Ok(())) if world.is_parted => return Ok(()),
                Ok(Ok(())) => continue,
                Ok(Err(why)) => why,
                Err(panic) => match panic.downcast_ref::<String>() {
                    Some(why) => why.clone(),
                    None => "a panic without words".to_owned(),
                },
            };
            return Err(format!("operation {at}: {}\n{why}", op.line()));
        }
        Ok(())
    })
}

impl World {
    async fn step(&mut self, op: &Op, tally: &mut Tally) -> Result<(), String> {
        self.look(&op.call).await;
        for at in self.made_by_reads(&op.call).await {
            self.delete(at).await?;
        }
        if let Some(intended) = Intended::only_ours(self, op).await {
            let reply = self.ours.reply(op, self.ask(op)).await?;
            let ours = Seen::of(op, &reply.answer);
            if !intended.is_refused(op, &ours) {
                return Err(format!("not refused for {intended:?}, but: {ours:?}"));
            }
            tally.note(op, &ours, Some(intended));
            return Ok(());
        }
        if Intended::is_open(self, op).await {
            tally.skipped += 1;
            return Ok(());
        }
        let (ours, native) = self.both(op).await?;
        let deletes = matches!(op.call, Call::DeleteBasin(_) | Call::DeleteStream(_));
        if deletes && (ours.retried || native.retried) {
            // What conflicted may have happened all the same: then the second attempt finds nothing.
            let gone = [&ours, &native].map(|reply| [202, 404].contains(&reply.answer.status));
            if gone != [true, true] {
                return Err(format!("ours: {ours:?}\nnative: {native:?}"));
            }
            tally.skipped += 1;
            // The proxy never heard that the deletion was carried out, so what comes back under the name stays
            // encrypted (docs of `registry::table`). In S2 the basin decides.
            self.is_parted = ours.answer.status == 404;
            self.deleted(op).await;
            return Ok(());
        }
        let [ours, native] = [ours, native].map(|reply| Seen::of(op, &reply.answer));
        let mut intended = None;
        if (ours.status, &ours.headers, &ours.body)
            != (native.status, &native.headers, &native.body)
        {
            intended = Intended::between(self, op, &ours, &native);
            if intended.is_none() {
                let ask = self.ask(op);
                return Err(format!("{ask:?}\nours: {ours:?}\nnative: {native:?}"));
            }
        }
        if self.level_cipher(op, &native).await {
            intended = Some(Intended::CipherAgainByToken);
        }
        tally.note(op, &native, intended);
        if native.status == 201 {
            self.note_creation(&op.call);
        }
        if deletes && native.status == 202 {
            self.deleted(op).await;
        }
        if let Call::Append(append) = &op.call
            && !native.acks.is_empty()
        {
            let before = self.known(&append.at).trimmed;
            self.learn(append, &native.acks).await;
            if self.known(&append.at).trimmed > before {
                self.settle_trim(&append.at).await;
            }
        }
        Ok(())
    }

    /// Deletes a stream on both sides.
    async fn delete(&mut self, at: Place) -> Result<(), String> {
        let op = Op {
            http1: false,
            origin: false,
            accept_encoding: None,
            call: Call::DeleteStream(at),
        };
        let (ours, native) = self.both(&op).await?;
        let statuses = [ours.answer.status, native.answer.status];
        if statuses.iter().any(|status| ![202, 404].contains(status)) {
            return Err(format!("ours: {ours:?}\nnative: {native:?}"));
        }
        self.deleted(&op).await;
        Ok(())
    }

    async fn deleted(&mut self, op: &Op) {
        self.forget(&op.call);
        self.settle_deletion(&op.call).await;
    }
}

impl Tally {
    fn note(&mut self, op: &Op, seen: &Seen, intended: Option<Intended>) {
        self.compared += 1;
        self.records += seen.body["records"].as_array().map_or(0, Vec::len);
        let name = format!("{:?}", op.call);
        let name = name
            .split([' ', '(', '{'])
            .next()
            .unwrap_or_default()
            .to_owned();
        *self.calls.entry((name, seen.status)).or_default() += 1;
        if let Some(intended) = intended {
            *self.intended.entry(intended).or_default() += 1;
        }
    }
}
