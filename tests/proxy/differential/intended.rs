//! Every difference to S2 that is meant, with its reason. Whatever is not here fails the test.

use super::{
    compare::Seen,
    ops::{Append, Call, Key, Odd, Op, Place, What},
    world::World,
};

/// A difference that is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Intended {
    /// S2's documents say 422 `invalid` for a key that is missing or no key; `s2-lite` says 400
    /// `bad_header`.
    KeyErrorCode,
    /// S2 checks the configuration of a stream that a request may create before it looks for the stream.
    /// Only the upstream knows what a configuration may be, and it is not asked where no stream can come
    /// of it, or before it is known that the stream is to be encrypted.
    UnusedStreamConfig,
    /// A read with a key that is not the stream's is refused before it starts. S2 refuses it at the first
    /// record that does not open, in the middle of a session, or not at all where there is none.
    KeyCheckOnRead,
    /// S2 stores records under a key that is not the stream's, and later reads fail. They are refused, and
    /// sent to us alone: the two would not hold the same records afterwards.
    KeyCheckOnAppend,
    /// S2 repeats the answer to a creation with the same token and leaves the basin as it is, even if its
    /// cipher was removed meanwhile. Only the upstream knows the token, and it is not trusted to say that
    /// a client has the cipher it asked for: the basin gets it. The same is then done to S2's.
    CipherAgainByToken,
    /// S2 ignores a field that it does not know, even twice. A body that has a field twice may mean one
    /// thing here and another upstream: it is refused, and sent to us alone.
    FieldTwice,
    /// A record that is just below 1 MiB outgrows what the upstream takes once it is encrypted, and noise
    /// cannot be compressed. It is refused, and sent to us alone.
    NoRoomToEncrypt,
    /// S2 ignores a key for a stream that it does not encrypt, and for a basin that does not exist. Who sends one
    /// takes the stream for encrypted: the request is refused. An append is sent to us alone, for S2 would store it.
    KeyOnPlain,
}

/// S2's limit for a record and a batch.
const MIB: usize = 1 << 20;

impl Intended {
    /// The difference because of which an operation cannot be sent to S2.
    pub async fn only_ours(world: &World, op: &Op) -> Option<Self> {
        let append = match &op.call {
            Call::Append(append) => append,
            Call::Odd(odd) => return has_field_twice(odd).then_some(Self::FieldTwice),
            _ => return None,
        };
        if world.is_plain && world.has_basin && IGNORED_ON_PLAIN.contains(&append.key) {
            return Some(Self::KeyOnPlain);
        }
        if append.key == Key::Other && world.known(&append.at).key.is_some() {
            return Some(Self::KeyCheckOnAppend);
        }
        let growth = growth(&world.cipher(&append.at).await.flatten()?);
        append.outgrows(growth).then_some(Self::NoRoomToEncrypt)
    }

    /// Whether it cannot be told which it is: a record that may not fit would create its stream, with us
    /// before it is refused.
    pub async fn is_open(world: &World, op: &Op) -> bool {
        match &op.call {
            Call::Append(append) => {
                append.outgrows(growth("aegis-256")) && world.cipher(&append.at).await.is_none()
            }
            _ => false,
        }
    }

    /// Whether our refusal of what was sent to us alone is right.
    pub fn is_refused(self, op: &Op, ours: &Seen) -> bool {
        let Call::Append(append) = &op.call else {
            return self == Self::FieldTwice && (400..500).contains(&ours.status);
        };
        if !append.is_sound() {
            return (400..500).contains(&ours.status);
        }
        match self {
            Self::KeyCheckOnAppend => (ours.status, ours.code()) == (400, "decryption_failed"),
            Self::KeyOnPlain => is_key_on_plain(ours),
            Self::NoRoomToEncrypt if append.key != Key::Right => (400..500).contains(&ours.status),
            Self::NoRoomToEncrypt => {
                let terminal = &ours.body["frames"][0];
                (ours.status, ours.code()) == (422, "invalid")
                    || terminal["terminal"] == 422 && terminal["json"]["code"] == "invalid"
            }
            Self::UnusedStreamConfig
            | Self::KeyErrorCode
            | Self::KeyCheckOnRead
            | Self::FieldTwice
            | Self::CipherAgainByToken => false,
        }
    }

    /// The difference that two answers show, if it is one that is meant.
    pub fn between(world: &World, op: &Op, ours: &Seen, native: &Seen) -> Option<Self> {
        let blamed = native.body["message"].as_str().unwrap_or_default();
        let is_about_config =
            native.code() == "bad_header" && blamed.contains("`s2-stream-config`");
        // The head alone does not say what is wrong.
        let is_head = matches!(&op.call, Call::Read(read) if read.head && read.config.is_some());
        let is_about_config = is_about_config || is_head && native.status == 400;
        if is_about_config && (400..500).contains(&ours.status) {
            return Some(Self::UnusedStreamConfig);
        }
        let (at, key, head) = op.call.keyed()?;
        let unusable = [
            Key::Absent,
            Key::Half,
            Key::NotBase64,
            Key::Long,
            Key::Empty,
        ];
        let is = |seen: &Seen, status, code| {
            // A client that takes no encoding at all is told nothing but that by the status.
            [status, 406].contains(&seen.status) && (head || seen.code() == code)
        };
        let ours_is = |status, code| is(ours, status, code);
        let native_is = |status, code| is(native, status, code);
        if unusable.contains(&key) && ours_is(422, "invalid") && native_is(400, "bad_header") {
            let message = native.body["message"].as_str().unwrap_or("encryption key");
            return message
                .contains("encryption key")
                .then_some(Self::KeyErrorCode);
        }
        let is_read = matches!(op.call, Call::Read(_));
        if world.is_plain && IGNORED_ON_PLAIN.contains(&key) {
            // The head alone does not say what is wrong.
            let is_refused = is_key_on_plain(ours) || head && ours.status == 422;
            return is_refused.then_some(Self::KeyOnPlain);
        }
        let is_another = key == Key::Other && at.is_some_and(|at| world.known(at).key.is_some());
        if is_read && is_another && ours_is(400, "decryption_failed") {
            let delivers = native.body["records"].as_array();
            let only_commands = delivers
                .is_none_or(|records| records.iter().all(|record| record["headers"][0][0] == ""));
            return only_commands.then_some(Self::KeyCheckOnRead);
        }
        None
    }
}

/// Keys that S2 does not look at where there is nothing to encrypt. It refuses those that are too long.
const IGNORED_ON_PLAIN: [Key; 3] = [Key::Other, Key::Half, Key::NotBase64];

fn is_key_on_plain(ours: &Seen) -> bool {
    let message = ours.body["message"].as_str().unwrap_or_default();
    (ours.status, ours.code()) == (422, "invalid") && message.contains("is not encrypted, but")
}

/// Whether a basin call has the one field twice that it is given twice.
fn has_field_twice(odd: &Odd) -> bool {
    let is_basin_call = odd.path.starts_with("/v1/basins");
    is_basin_call && odd.body.matches("\"stream_cipher\"").count() > 1
}

/// What a cipher adds to a record without headers.
fn growth(cipher: &str) -> usize {
    match cipher {
        "aegis-256" => 50,
        "aes-256-gcm" => 30,
        other => panic!("{other}"),
    }
}

impl Call {
    /// The stream, the key, and whether only the head of the answer is wanted, of a call that takes a key.
    fn keyed(&self) -> Option<(Option<&Place>, Key, bool)> {
        match self {
            Self::Append(append) => Some((Some(&append.at), append.key, false)),
            Self::Read(read) => Some((Some(&read.at), read.key, read.head)),
            Self::Odd(odd) if odd.path.contains("/records?") => {
                Some((None, Key::Absent, odd.method == "HEAD"))
            }
            _ => None,
        }
    }
}

impl Append {
    /// Whether S2 has nothing against it but, perhaps, its conditions.
    fn is_sound(&self) -> bool {
        let bad = |what: &What| match what {
            What::BadTrim | What::UnknownCommand | What::EmptyName => true,
            What::Fence(token) => token.len() > 36,
            What::Data { .. } | What::Trim(_) => false,
        };
        self.config.is_none()
            && self.inputs.iter().all(|input| {
                let mut records = input.records.iter();
                let size: usize = input.records.iter().map(|record| record.what.size()).sum();
                (1..=1000).contains(&(input.records.len() * input.times))
                    && size * input.times <= MIB
                    && !records.any(|record| bad(&record.what))
            })
    }

    /// Whether a record of it fits into 1 MiB, but not with this much more.
    fn outgrows(&self, growth: usize) -> bool {
        let mut records = self.inputs.iter().flat_map(|input| &input.records);
        records.any(|record| match &record.what {
            What::Data { body, .. } if body.noise && self.encoding.is_binary() => {
                let size = record.what.size();
                size <= MIB && size + growth > MIB
            }
            _ => false,
        })
    }
}

impl What {
    /// Metered size, near enough for commands.
    fn size(&self) -> usize {
        match self {
            Self::Data { headers, body } => {
                let headers = headers.iter();
                let headers = headers.map(|(name, value)| 2 + name.len() + value.len);
                8 + headers.sum::<usize>() + body.len
            }
            _ => 32,
        }
    }
}
