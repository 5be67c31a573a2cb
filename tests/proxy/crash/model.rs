//! Everything that is known of the deployment: what was asked, what was answered, what must follow.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    basin::{Basin, Cipher, Exists},
    stream::{Kind, Stream},
};

/// Clients at work in each round.
pub const WORKERS: usize = 5;

/// Basins that all share, by their place.
const PLAIN: usize = 0;
const SEALED: usize = 1;
const MIXED: usize = 2;
const OTHER: usize = 3;

/// The deployment as it must be.
#[derive(Default)]
pub struct Model {
    pub basins: Vec<Basin>,
    pub streams: Vec<Stream>,
    /// What became of requests, for the summary.
    pub counts: BTreeMap<String, usize>,
    sent: Vec<Sent>,
}

/// A record that somebody sent.
struct Sent {
    stream: usize,
    with_key: bool,
    /// Whether it may stand on the wire in clear; `None` until its round is checked.
    may_be_plain: Option<bool>,
}

/// What a worker works on.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    /// Streams that are its own.
    pub owned: Vec<usize>,
    pub shared: Vec<usize>,
    pub contended: Vec<usize>,
    /// Basins of which it alone changes the cipher.
    pub ciphers: Vec<usize>,
    /// Basins that it alone makes and deletes, each with its streams.
    pub young: Vec<(usize, Vec<usize>)>,
}

impl Model {
    /// A plan for every worker, and nothing of it done.
    pub fn new() -> (Self, Vec<Tasks>) {
        const A: Cipher = Some("aegis-256");
        const G: Cipher = Some("aes-256-gcm");
        let basins = vec![
            Basin::new("plain-basin", &[None], false),
            Basin::new("sealed-basin", &[A, G], false),
            Basin::new("mixed-basin", &[None, A, G], false),
            Basin::new("other-basin", &[None, G, A], false),
        ];
        let mut model = Self {
            basins,
            streams: Vec::new(),
            counts: BTreeMap::new(),
            sent: Vec::new(),
        };
        let shared = model.add(Kind::Shared, "shared", &[SEALED, SEALED, PLAIN]);
        let contended = model.add(Kind::Contended, "contended", &[SEALED, SEALED, MIXED]);
        let mut tasks: Vec<Tasks> = (0..WORKERS)
            .map(|worker| {
                let basins = [SEALED, SEALED, MIXED, MIXED, OTHER, PLAIN];
                Tasks {
                    owned: model.add(Kind::Owned, &format!("own-{worker}"), &basins),
                    shared: shared.clone(),
                    contended: contended.clone(),
                    ..Tasks::default()
                }
            })
            .collect();
        tasks[1].ciphers = vec![SEALED];
        tasks[2].ciphers = vec![MIXED];
        tasks[3].ciphers = vec![OTHER];
        for worker in [0, 4] {
            let basin = model.basins.len();
            let name = format!("young-basin-{worker}");
            model.basins.push(Basin::new(&name, &[A, None, G], true));
            let streams = model.add(Kind::Owned, "in-young", &[basin, basin]);
            tasks[worker].young.push((basin, streams));
        }
        (model, tasks)
    }

    fn add(&mut self, kind: Kind, name: &str, basins: &[usize]) -> Vec<usize> {
        let first = self.streams.len();
        for (at, basin) in basins.iter().enumerate() {
            let name = format!("{name}-{at}");
            self.streams.push(Stream::new(*basin, &name, kind));
        }
        (first..self.streams.len()).collect()
    }

    /// A stream with its basin.
    pub fn stream(&mut self, at: usize) -> (&mut Stream, &Basin) {
        let stream = &mut self.streams[at];
        let basin = &self.basins[stream.basin];
        (stream, basin)
    }

    /// New records for a stream, sent with a key or without one.
    pub fn send(&mut self, stream: usize, count: usize, with_key: bool) -> Vec<u64> {
        let first = self.sent.len();
        self.sent.resize_with(first + count, || Sent {
            stream,
            with_key,
            may_be_plain: None,
        });
        (first as u64..self.sent.len() as u64).collect()
    }

    /// A body that was read from a stream must have been sent to it.
    pub fn was_sent(&self, stream: usize, id: u64) {
        let sent = usize::try_from(id).ok().and_then(|id| self.sent.get(id));
        let sent = sent.unwrap_or_else(|| panic!("nobody sent {id}"));
        assert_eq!(sent.stream, stream, "{id} was sent to another stream");
    }

    /// A basin was deleted for certain, or perhaps.
    pub fn basin_deleted(&mut self, at: usize, for_certain: bool) {
        let exists = match for_certain {
            true => Exists::No,
            false => Exists::Maybe,
        };
        self.basins[at].exists = exists;
        for stream in self.streams.iter_mut().filter(|stream| stream.basin == at) {
            stream.touched = true;
            match for_certain {
                true => stream.deleted(),
                false => stream.may_be_deleted(),
            }
        }
    }

    /// A round is checked, whose bodies in clear were these: the next begins.
    pub fn begin(&mut self, on_the_wire: &BTreeSet<u64>) {
        for sent in self.sent.iter_mut().rev() {
            if sent.may_be_plain.is_some() {
                break;
            }
            let stream = &self.streams[sent.stream];
            let may_be_plain = stream.may_have_been_plain(&self.basins[stream.basin]);
            sent.may_be_plain = Some(may_be_plain && !sent.with_key);
        }
        for id in on_the_wire {
            let sent = &self.sent[*id as usize];
            let stream = &self.streams[sent.stream];
            assert_eq!(
                sent.may_be_plain,
                Some(true),
                "body {id} went upstream in clear: {stream:?} of {:?}",
                self.basins[stream.basin]
            );
        }
        self.streams.iter_mut().for_each(Stream::begin);
        self.basins.iter_mut().for_each(Basin::begin);
    }

    /// Counts what became of a request.
    pub fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }
}
