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
    /// Refused: it is a plain one that the proxy did not record before its basin got a cipher.
    pub is_stranded: bool,
    /// Known to be recorded as plain: it was read while its basin had a cipher.
    is_recorded: bool,
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
    /// Ciphers that an intent may have that a kill left open: the stream gets it when it is created.
    intended: Vec<Cipher>,
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
            is_recorded: false,
            life: None,
            before: None,
            lives: HashMap::new(),
            open: None,
            planned: None,
            intended: Vec::new(),
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
            self.planned = self.open.map(|open| self.possible(basin, open));
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

    /// Whether requests need a key, or must not have one; `None` where only the proxy can tell.
    pub fn takes_key(&self, basin: &Basin) -> Option<bool> {
        let known = self.life.as_ref().filter(|_| !self.is_stranded);
        let possible = match (self.kind, known, &self.planned) {
            (Kind::Contended, ..) => basin.cycle.clone(),
            (_, Some(life), _) => vec![self.lives[life]],
            (_, None, Some(planned)) => planned.clone(),
            (_, None, None) => self.possible(basin, self.open.unwrap_or(basin.now())),
        };
        match possible.iter().filter(|cipher| cipher.is_some()).count() {
            0 => Some(false),
            sealed if sealed == possible.len() => Some(true),
            _ => None,
        }
    }

    /// What it may get if it is created since then.
    fn possible(&self, basin: &Basin, since: Point) -> Vec<Cipher> {
        [basin.since(since), self.intended.clone()].concat()
    }

    /// Whether it may be refused as made around the proxy: a plain stream that a kill kept from being recorded.
    pub fn may_be_unknown(&self, basin: &Basin) -> bool {
        let life = self.life.as_ref().filter(|_| self.kind != Kind::Contended);
        let is_sealed = life.is_some_and(|life| self.lives[life].is_some());
        basin.may_be_plain() && !is_sealed && !self.is_recorded
    }

    /// Records were acked from this sequence number on, sent with a key or without one.
    pub fn acked(&mut self, basin: &Basin, start: u64, ids: &[u64], with_key: bool) {
        self.is_there(basin);
        if self.kind == Kind::Contended {
            return;
        }
        if let Some(planned) = &mut self.planned {
            planned.retain(|cipher| cipher.is_some() == with_key);
        }
        let takes = self.takes_key(basin);
        assert_ne!(
            takes,
            Some(!with_key),
            "{}: an ack with the wrong key",
            self.name
        );
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
        self.is_recorded = false;
        self.life = None;
        self.open = None;
        self.planned = None;
        self.intended.clear();
        self.acks.clear();
        self.seen.clear();
        self.unread = 0;
    }

    /// A deletion had no answer that says what became of it.
    pub fn may_be_deleted(&mut self) {
        if self.exists == Exists::Yes {
            self.exists = Exists::Maybe;
        }
        // The next life may be plain and not recorded yet.
        self.is_recorded = false;
    }

    /// It is not there after a restart.
    pub fn check_gone(&mut self, basin: &Basin) {
        assert!(
            self.exists != Exists::Yes,
            "{} is lost with its records {:?}",
            self.name,
            self.acks
        );
        let since = match self.kind {
            Kind::Contended => 0,
            Kind::Owned | Kind::Shared => self.open.unwrap_or(basin.now()),
        };
        // A deletion without an answer is not recorded as done: the next life keeps the cipher of this one.
        let former = match &self.life {
            Some(life) => vec![self.lives[life]],
            None => self.planned.clone().unwrap_or_default(),
        };
        let mut intended = [self.possible(basin, since), former].concat();
        intended.retain(Option::is_some);
        intended.sort_unstable();
        intended.dedup();
        self.deleted();
        self.intended = intended;
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
            let explained = self.is_stranded || basin.wavers() || self.may_be_unknown(basin);
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
            // So may an intent of any time, which no request settled since.
            let possible = self.possible(basin, 0).into_iter().chain(before);
            self.planned = Some(possible.chain(basin.cycle.iter().copied()).collect());
        }
        if !self.is_stranded {
            self.lives(basin, observed.created_at, observed.shown);
            let has_cipher = basin.since(basin.now()).iter().all(Option::is_some);
            // A contended stream may be deleted and made again at any time.
            let is_known = has_cipher && self.kind != Kind::Contended;
            self.is_recorded = observed.shown.is_none() && is_known;
        }
        self.read(observed.records.unwrap_or_default());
        self.open = None;
        self.intended.clear();
        self.touched = false;
    }

    /// A list shows this cipher for a life of it.
    pub fn shows(&self, created_at: &str, shown: Cipher) {
        if let Some(cipher) = self.lives.get(created_at) {
            let is_fine = *cipher == shown || self.may_be_taken_over(*cipher, shown);
            assert!(is_fine, "the cipher shown for {} changed", self.name);
        }
    }

    /// Whether it may be an empty plain stream that was not recorded, which a first append with a key sealed.
    fn may_be_taken_over(&self, earlier: Cipher, shown: Cipher) -> bool {
        earlier.is_none() && shown.is_some() && !self.is_recorded
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
        if let Some(earlier) = self.lives.get(&created_at).copied() {
            assert!(
                earlier == shown || self.may_be_taken_over(earlier, shown),
                "the cipher of {}/{name} changed",
                basin.name
            );
            self.lives.insert(created_at.clone(), shown);
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
            // An intent without an outcome is settled with the cipher of its next use.
            let settled = !self.intended.is_empty() && basin.since(0).contains(&shown);
            assert!(
                planned.contains(&shown) || settled,
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
