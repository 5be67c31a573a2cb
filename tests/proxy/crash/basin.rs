//! What is known of a basin and its cipher: since the last check, and now.

/// What new streams of a basin get; nothing is plain.
pub type Cipher = Option<&'static str>;

/// The cipher of this name.
pub fn cipher(json: &serde_json::Value) -> Cipher {
    match json.as_str() {
        None => None,
        Some("aegis-256") => Some("aegis-256"),
        Some("aes-256-gcm") => Some("aes-256-gcm"),
        Some(other) => panic!("{other}"),
    }
}

/// Whether something is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exists {
    Yes,
    No,
    /// Something that would make or end it had no answer.
    Maybe,
}

/// A point in a basin's history.
pub type Point = usize;

/// A basin.
#[derive(Debug)]
pub struct Basin {
    pub name: String,
    /// The ciphers that it goes through.
    pub cycle: Vec<Cipher>,
    /// Whether it is deleted and made again, which one client alone does.
    pub is_young: bool,
    pub exists: Exists,
    /// What its cipher may have been since the last check, oldest first.
    history: Vec<Vec<Cipher>>,
}

impl Basin {
    pub fn new(name: &str, cycle: &[Cipher], is_young: bool) -> Self {
        Self {
            name: name.to_owned(),
            cycle: cycle.to_owned(),
            is_young,
            exists: Exists::No,
            history: vec![vec![cycle[0]]],
        }
    }

    /// Now.
    pub fn now(&self) -> Point {
        self.history.len() - 1
    }

    /// Every cipher that it may have had from then on.
    pub fn since(&self, point: Point) -> Vec<Cipher> {
        self.history[point..].concat()
    }

    /// Whether it may have been with and without a cipher since the last check.
    pub fn wavers(&self) -> bool {
        let all = self.since(0);
        all.contains(&None) && all.iter().any(Option::is_some)
    }

    /// Whether it may have had another cipher since the last check.
    pub fn changes(&self) -> bool {
        let all = self.since(0);
        all.iter().any(|cipher| *cipher != all[0])
    }

    /// Whether it may have been without a cipher at any time.
    pub fn may_be_plain(&self) -> bool {
        self.cycle.contains(&None)
    }

    /// The one that comes after the one it has.
    pub fn next(&self) -> Cipher {
        let now = self.history[self.now()][0];
        let at = self.cycle.iter().position(|cipher| *cipher == now);
        self.cycle[(at.unwrap() + 1) % self.cycle.len()]
    }

    /// It may get this cipher from now on.
    pub fn changing(&mut self, to: Cipher) {
        let now = self.history[self.now()].clone();
        self.history.push([now, vec![to]].concat());
    }

    /// It may be made with this cipher from now on. One that is made without a cipher, where one with a
    /// cipher was deleted, keeps that in force until the answer: no answer can leave it too secret.
    pub fn making(&mut self, with: Cipher) {
        let mut possible = vec![with];
        if with.is_none() {
            possible.extend(&self.cycle);
        }
        self.exists = Exists::Maybe;
        self.history.push(possible);
    }

    /// It has this cipher.
    pub fn changed(&mut self, to: Cipher) {
        self.history.push(vec![to]);
    }

    /// The change was refused.
    pub fn unchanged(&mut self) {
        let before = self.history[self.now() - 1].clone();
        self.history.push(before);
    }

    /// What it shows after a restart must be what it may be.
    pub fn check(&mut self, shown: Cipher) {
        let possible = &self.history[self.now()];
        assert!(
            possible.contains(&shown),
            "{} shows {shown:?} after a restart, not one of {possible:?}",
            self.name
        );
        self.exists = Exists::Yes;
        self.history.push(vec![shown]);
    }

    /// Begins a new round with what it has now.
    pub fn begin(&mut self) {
        self.history.drain(..self.history.len() - 1);
    }
}
