//! API keys, master keys and data keys against worked examples: every value on the way, and nothing moved.

use aes_kw::{KeyInit as _, KwAes256};
use hkdf::Hkdf;
use sha2::{Digest as _, Sha256};

use super::hex;
use crate::{
    crypto::{ApiKey, Dek, DekPlace, Digest, Key, MasterKey, Pepper, Wrapped},
    stream::StreamId,
};

/// A worked example: the fields of the file, decoded.
struct Example {
    json: serde_json::Value,
    project: String,
    stream: StreamId,
    mk_epoch: u32,
    dek_epoch: u32,
}

impl Example {
    fn all() -> Vec<Self> {
        let text = include_str!("../../../tests/vectors/api_keys.json");
        let file: serde_json::Value = serde_json::from_str(text).unwrap();
        let all: Vec<Self> = file["keys"]
            .as_array()
            .unwrap()
            .iter()
            .map(Self::of)
            .collect();
        assert_eq!(all.len(), 4);
        all
    }

    fn of(json: &serde_json::Value) -> Self {
        let name = |name: &str| json[name].as_str().unwrap();
        let number = |name: &str| u32::try_from(json[name].as_u64().unwrap()).unwrap();
        Self {
            project: String::from_utf8(hex(name("project_id"))).unwrap(),
            stream: StreamId::new(
                &name("basin").parse().unwrap(),
                &name("stream").parse().unwrap(),
            ),
            mk_epoch: number("mk_epoch"),
            dek_epoch: number("dek_epoch"),
            json: json.clone(),
        }
    }

    fn bytes<const N: usize>(&self, name: &str) -> [u8; N] {
        hex(self.json[name].as_str().unwrap()).try_into().unwrap()
    }

    fn pepper(&self) -> Pepper {
        Pepper::new(Key::from_bytes(self.bytes("pepper")))
    }

    fn api_key(&self) -> ApiKey {
        ApiKey::parse(self.json["token"].as_str().unwrap().as_bytes()).unwrap()
    }

    fn master(&self) -> MasterKey {
        let key = self.api_key();
        key.master_key(&self.pepper(), &self.project, self.mk_epoch)
            .unwrap()
    }

    fn dek(&self) -> Dek {
        Dek::from_key(Key::from_bytes(self.bytes("dek")))
    }

    fn place(&self) -> DekPlace<'_> {
        DekPlace {
            project: &self.project,
            stream: &self.stream,
            epoch: self.dek_epoch,
        }
    }

    fn wrapped(&self) -> Wrapped {
        Wrapped::from_bytes(self.bytes("wrapped_dek"))
    }

    /// HKDF as the crate has it, without this crate's own derivations.
    fn expanded(salt: &[u8], material: &[u8], info: &[&[u8]]) -> [u8; 32] {
        let mut out = [0; 32];
        let hkdf = Hkdf::<Sha256>::new(Some(salt), material);
        hkdf.expand(&info.concat(), &mut out).unwrap();
        out
    }

    fn lp(part: &[u8]) -> Vec<u8> {
        let length = u16::try_from(part.len()).unwrap().to_be_bytes();
        [&length[..], part].concat()
    }
}

#[test]
fn every_value_of_the_worked_examples() {
    for example in Example::all() {
        let name = &example.json["name"];
        let stream: [u8; 32] = example.bytes("stream_id");
        assert_eq!(example.stream.as_bytes(), &stream, "{name}");
        let key = example.api_key();
        let text = example.json["token"].as_str().unwrap();
        assert_eq!(key.to_text().as_str(), text, "{name}");
        let credentials = key.credentials(&example.pepper());
        assert_eq!(
            credentials.lookup,
            Digest::from_bytes(example.bytes("lookup"))
        );
        let stored = Digest::from_bytes(example.bytes("verify_stored_sha256"));
        assert_eq!(credentials.verify, stored, "{name}");
        let master = example.master();
        assert_eq!(master.key().as_bytes(), &example.bytes::<32>("master_key"));
        let commit = master.commit(&example.project, example.mk_epoch);
        assert_eq!(commit, Digest::from_bytes(example.bytes("mk_commit")));
        let (dek, place) = (example.dek(), example.place());
        let wrapped = master.wrap_dek(&place, example.mk_epoch, &dek);
        assert_eq!(wrapped, example.wrapped(), "{name}");
        let unwrapped = master.unwrap_dek(&place, example.mk_epoch, &wrapped);
        assert_eq!(unwrapped, Some(dek.clone()), "{name}");
        let record_key = dek.record_key(&place);
        assert_eq!(record_key.as_bytes(), &example.bytes::<32>("record_key"));
        let commit = dek.commit(&place);
        assert_eq!(commit, Digest::from_bytes(example.bytes("dek_commit")));
    }
}

/// The values that stay inside, worked out once more with the crates alone.
#[test]
fn the_values_in_between() {
    for example in Example::all() {
        let secret: [u8; 16] = example.bytes("auth_secret");
        let pepper: [u8; 32] = example.bytes("pepper");
        let verify = Example::expanded(&pepper, &secret, &[b"streamseal/v1/verify"]);
        assert_eq!(verify, example.bytes::<32>("verify"));
        let stored: [u8; 32] = Sha256::digest(verify).into();
        assert_eq!(stored, example.bytes::<32>("verify_stored_sha256"));
        let project = example.project.as_bytes();
        let (mk_epoch, dek_epoch) = (
            example.mk_epoch.to_be_bytes(),
            example.dek_epoch.to_be_bytes(),
        );
        let lp_project = Example::lp(project);
        let label: &[u8] = b"streamseal/v1/token-wrap";
        let token_wrap = Example::expanded(&pepper, &secret, &[label, &lp_project, &mk_epoch]);
        assert_eq!(token_wrap, example.bytes::<32>("token_wrap_key"));
        let master: [u8; 32] = example.bytes("master_key");
        let label: &[u8] = b"streamseal/v1/dek-wrap";
        let lp_stream = Example::lp(&example.bytes::<32>("stream_id"));
        let info: [&[u8]; 4] = [label, &lp_stream, &mk_epoch, &dek_epoch];
        let kek = Example::expanded(project, &master, &info);
        assert_eq!(kek, example.bytes::<32>("dek_kek"));
        let mut wrapped = [0; Wrapped::BYTES];
        KwAes256::new(&kek.into())
            .wrap_key(&example.bytes::<32>("dek"), &mut wrapped)
            .unwrap();
        assert_eq!(&wrapped, example.wrapped().as_bytes());
    }
}

#[test]
fn every_flipped_bit_of_a_wrapped_key_is_refused() {
    let example = &Example::all()[0];
    let (master, place) = (example.master(), example.place());
    for bit in 0..Wrapped::BYTES * 8 {
        let mut bytes = *example.wrapped().as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let flipped = Wrapped::from_bytes(bytes);
        let unwrapped = master.unwrap_dek(&place, example.mk_epoch, &flipped);
        assert!(unwrapped.is_none(), "bit {bit}");
    }
}

#[test]
fn a_wrapped_key_opens_in_its_own_place_alone() {
    let example = &Example::all()[0];
    let (master, wrapped) = (example.master(), example.wrapped());
    let place = example.place();
    let other_stream = StreamId::new(&"my-basin-0001".parse().unwrap(), &"a/b/d".parse().unwrap());
    let opens =
        |place: &DekPlace<'_>, mk_epoch| master.unwrap_dek(place, mk_epoch, &wrapped).is_some();
    assert!(opens(&place, example.mk_epoch));
    for project in ["project-b", "project-", "project-aa", ""] {
        assert!(!opens(&DekPlace { project, ..place }, example.mk_epoch));
    }
    let stream = &other_stream;
    assert!(!opens(&DekPlace { stream, ..place }, example.mk_epoch));
    for epoch in [0, 1, place.epoch + 1, u32::MAX] {
        assert!(!opens(&DekPlace { epoch, ..place }, example.mk_epoch));
    }
    for mk_epoch in [0, example.mk_epoch + 1, u32::MAX] {
        assert!(!opens(&place, mk_epoch));
    }
    let other = MasterKey::generate().unwrap();
    assert!(
        other
            .unwrap_dek(&place, example.mk_epoch, &wrapped)
            .is_none()
    );
}

#[test]
fn commitments_tell_keys_and_places_apart() {
    let example = &Example::all()[0];
    let (dek, place) = (example.dek(), example.place());
    let commit = dek.commit(&place);
    assert_ne!(Dek::generate().unwrap().commit(&place), commit);
    let elsewhere = DekPlace {
        epoch: place.epoch + 1,
        ..place
    };
    assert_ne!(dek.commit(&elsewhere), commit);
    assert!(dek.record_key(&elsewhere) != dek.record_key(&place));
    let project = "project-b";
    let elsewhere = DekPlace { project, ..place };
    assert_ne!(dek.commit(&elsewhere), commit);
    assert!(dek.record_key(&elsewhere) != dek.record_key(&place));
}

#[test]
fn links_lead_from_one_master_key_to_the_other_and_nowhere_else() {
    let [old, new] = [(); 2].map(|()| MasterKey::generate().unwrap());
    let link = old.link("p", 1, &new, 2);
    assert_eq!(old.follow("p", 1, &link, 2), Some(new.clone()));
    for (project, from, to) in [("q", 1, 2), ("p", 2, 2), ("p", 1, 3), ("p", 2, 1)] {
        assert_eq!(old.follow(project, from, &link, to), None);
    }
    assert_eq!(new.follow("p", 1, &link, 2), None);
}
