//! What is known of a stream, its records and its cipher, and whether what is seen agrees with it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::basin::{Basin, Cipher, Exists, Point};

/// Who does what to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One client creates, appends and deletes: everything is known.
    Owned,
    /// Everybody creates and appends, nobody deletes.
    Shared,
    /// Everybody does everything: only what always holds is known.
    Contended,
}

/// A stream.
#[derive(Debug)]
pub struct Stream {
    pub basin: usize,
    pub name: String,
    pub kind: Kind,
    pub exists: Exists,
    /// Whether anything was asked of it since the last check.
    pub touched: bool,
    /// Acked as a plain one just when its basin got its first cipher: refused from then on.
    pub is_stranded: bool,
    /// The life that it has, once it was seen.
    life: Option<String>,
    /// The life that it had at the last check.
    before: Option<String>,
    /// The cipher of each life that was seen.
    lives: HashMap<String, Cipher>,
    /// Since when it may have been created.
    open: Option<Point>,
    /// What its cipher may be, until it is seen.
    planned: Option<Vec<Cipher>>,
    acks: BTreeMap<u64, u64>,
    seen: HashSet<u64>,
    /// The first record that was not read yet.
    pub unread: u64,
}

/// A stream as it is after a restart.
pub struct Observed {
    pub created_at: String,
    pub shown: Cipher,
    /// What the upstream stores says, if it stores anything.
    pub stored: Option<Cipher>,
    /// Sequence number and body of each record from the first unread one on; `None` if the proxy
    /// refuses the stream for having been made around it.
    pub records: Option<Vec<(u64, u64)>>,
}

impl Stream {
    pub fn new(basin: usize, name: &str, kind: Kind) -> Self {
        Self {
            basin,
            name: name.to_owned(),
            kind,
            exists: Exists::No,
            touched: false,
            is_stranded: false,
            life: None,
            before: None,
            lives: HashMap::new(),
            open: None,
            planned: None,
            acks: BTreeMap::new(),
            seen: HashSet::new(),
            unread: 0,
        }
    }

    /// Something that may create it is about to be asked.
    pub fn may_begin(&mut self, basin: &Basin) {
        self.touched = true;
        match self.kind {
            Kind::Contended => {}
            Kind::Owned if self.exists == Exists::No => self.open = Some(basin.now()),
            Kind::Owned | Kind::Shared => {
                self.open.get_or_insert(basin.now());
            }
        }
    }

    /// It is there: an append or a create says so.
    pub fn is_there(&mut self, basin: &Basin) {
        if self.kind != Kind::Contended && self.exists != Exists::Yes {
            self.exists = Exists::Yes;
            self.planned = self.open.map(|open| basin.since(open));
        }
    }

    /// What would have created it had no answer.
    pub fn may_be_there(&mut self) {
        if self.exists == Exists::No {
            self.exists = Exists::Maybe;
        }
    }

    /// The answer to a create.
    pub fn created(&mut self, basin: &Basin, created_at: String, shown: Cipher) {
        self.is_there(basin);
        match self.kind {
            Kind::Contended => {}
            Kind::Owned | Kind::Shared => self.lives(basin, created_at, shown),
        }
    }

    /// Records were acked from this sequence number on.
    pub fn acked(&mut self, basin: &Basin, start: u64, ids: &[u64]) {
        self.is_there(basin);
        if self.kind == Kind::Contended {
            return;
        }
        for (seq, id) in (start..).zip(ids) {
            let earlier = self.acks.insert(seq, *id);
            assert_eq!(earlier, None, "{}: {seq} is acked twice", self.name);
        }
    }

    /// A deletion was carried out.
    pub fn deleted(&mut self) {
        if self.kind == Kind::Contended {
            return;
        }
        self.exists = Exists::No;
        self.is_stranded = false;
        self.life = None;
        self.open = None;
        self.planned = None;
        self.acks.clear();
        self.seen.clear();
        self.unread = 0;
    }

    /// A deletion had no answer that says what became of it.
    pub fn may_be_deleted(&mut self) {
        if self.exists == Exists::Yes {
            self.exists = Exists::Maybe;
        }
    }

    /// It is not there after a restart.
    pub fn check_gone(&mut self) {
        assert!(
            self.exists != Exists::Yes,
            "{} is lost with its records {:?}",
            self.name,
            self.acks
        );
        self.deleted();
        self.life = None;
        self.touched = false;
    }

    /// It is there after a restart, like this.
    pub fn check(&mut self, basin: &Basin, observed: Observed) {
        let name = &self.name;
        if self.kind != Kind::Contended {
            assert!(
                self.exists != Exists::No,
                "{name} was not created, or came back"
            );
        }
        if observed.records.is_none() {
            let explained = self.is_stranded || basin.wavers();
            assert!(explained, "{name} is refused as made around the proxy");
            assert_eq!(observed.shown, None, "{name}");
        }
        self.is_stranded = observed.records.is_none();
        if let Some(stored) = observed.stored {
            assert_eq!(
                observed.shown, stored,
                "{name} shows another cipher than it has"
            );
        }
        self.is_there(basin);
        if self.kind == Kind::Contended {
            self.seen.clear();
            // An append that was sealed for the life before may have made the next.
            let before = self.before.iter().map(|before| self.lives[before]);
            self.planned = Some(basin.since(0).into_iter().chain(before).collect());
        }
        if !self.is_stranded {
            self.lives(basin, observed.created_at, observed.shown);
        }
        self.read(observed.records.unwrap_or_default());
        self.open = None;
        self.touched = false;
    }

    /// A list shows this cipher for a life of it.
    pub fn shows(&self, created_at: &str, shown: Cipher) {
        if let Some(cipher) = self.lives.get(created_at) {
            assert_eq!(*cipher, shown, "the cipher shown for {} changed", self.name);
        }
    }

    /// A new round begins.
    pub fn begin(&mut self) {
        self.before = self.life.clone();
    }

    /// Wants all of it read again at the next check.
    pub fn look_again(&mut self) {
        self.touched = true;
        self.unread = 0;
        self.seen.clear();
    }

    /// Whether its records may have gone upstream in clear since the last check.
    pub fn may_have_been_plain(&self, basin: &Basin) -> bool {
        let before = self.before.as_ref();
        let was_plain = before.is_some_and(|life| self.lives.get(life) == Some(&None));
        match (before, &self.life) {
            (Some(before), Some(now)) if before == now => was_plain,
            _ => was_plain || self.is_stranded || basin.since(0).contains(&None),
        }
    }

    fn lives(&mut self, basin: &Basin, created_at: String, shown: Cipher) {
        let name = &self.name;
        if let Some(earlier) = self.lives.get(&created_at) {
            assert_eq!(
                *earlier, shown,
                "the cipher of {}/{name} changed",
                basin.name
            );
            if self.kind != Kind::Contended {
                let life = self
                    .life
                    .as_ref()
                    .unwrap_or_else(|| panic!("{name} came back"));
                assert_eq!(*life, created_at, "{name} came back");
            }
        } else {
            if self.kind != Kind::Contended {
                assert_eq!(self.life, None, "{name} was made again, nobody deleted it");
            }
            let planned = self.planned.as_ref().expect("somebody created it");
            assert!(
                planned.contains(&shown),
                "{}/{name} has {shown:?}, not one of {planned:?}: {self:?}",
                basin.name
            );
            self.lives.insert(created_at.clone(), shown);
        }
        self.life = Some(created_at);
    }

    fn read(&mut self, records: Vec<(u64, u64)>) {
        let name = &self.name;
        let mut missing = self.acks.split_off(&self.unread);
        let acked = missing.clone();
        for (seq, id) in records {
            assert!(self.seen.insert(id), "{name}: body {id} is stored twice");
            if let Some(acked) = missing.remove(&seq) {
                assert_eq!(acked, id, "{name}: another record than acked at {seq}");
            }
            if self.kind != Kind::Contended {
                self.unread = seq + 1;
            }
        }
        assert!(
            missing.is_empty() || self.is_stranded,
            "{name}: acked records are lost: {missing:?}"
        );
        self.acks.extend(acked);
    }
}
