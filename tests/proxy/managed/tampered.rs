//! Whatever the upstream or the config store says that is not what was sealed and wrapped there is refused.

use bytes::Bytes;
use s2_api::v1::stream::proto::{ReadBatch, SequencedRecord};
use streamseal::{
    config::Config,
    registry::rules::{KeySource, RuleCipher, StreamRule},
    store::{DataKey, DataKeys, Holder, StreamEntry, WrappedKey},
};

use super::setup::{CIPHERS, Managed, SECRET, appends, reads, rule};
use crate::harness::{
    Answer, Encoding, End, KEY, delivered, frame, input, project, record, records, seal,
};

/// A read whose upstream answers with this one record.
async fn played(managed: &Managed, stream: &str, body: Bytes) -> Answer {
    let player = managed.stack.lite.play(&records(stream));
    let record = SequencedRecord {
        seq_num: 0,
        timestamp: 1,
        headers: Vec::new(),
        body,
    };
    let batch = ReadBatch {
        records: vec![record],
        tail: None,
    };
    player.play(frame(&batch)).await;
    drop(player);
    managed
        .ask(reads(stream, "seq_num=0&count=1", Encoding::Frames))
        .await
}

fn is_refused(what: &str, answer: &Answer) {
    let got = delivered(Encoding::Frames, answer);
    let (status, code) = (400, "decryption_failed".to_owned());
    assert_eq!(
        got.end,
        End::Failed { status, code },
        "{what}: {}",
        answer.text()
    );
    assert!(got.records().is_empty(), "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_any_byte_of_a_record_is_refused() {
    for (rule, _) in CIPHERS {
        let managed = Managed::with(rule, |_| {}).await;
        managed.put("s", "before").await;
        managed.rotate("s").await;
        managed.put("s", SECRET).await;
        let sealed = managed.stack.stored("s").await[1].body.clone();
        let good = played(&managed, "s", sealed.clone()).await;
        assert_eq!(delivered(Encoding::Frames, &good).records()[0].body, SECRET);
        for at in 0..sealed.len() {
            // All of them where the layout is told, one elsewhere.
            let bits = if at < 6 { 0..8 } else { at % 8..at % 8 + 1 };
            for bit in bits {
                let mut flipped = sealed.to_vec();
                flipped[at] ^= 1 << bit;
                let answer = played(&managed, "s", flipped.into()).await;
                is_refused(&format!("byte {at}, bit {bit}"), &answer);
            }
        }
        for length in [0, 1, 2, 5, 6, 20, sealed.len() - 1] {
            let answer = played(&managed, "s", sealed.slice(..length)).await;
            is_refused(&format!("{length} bytes"), &answer);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_of_another_stream_epoch_or_kind_are_refused() {
    let own = StreamRule {
        key: KeySource::Header,
        ..rule("test-basin/own", RuleCipher::Aegis256)
    };
    let managed = Managed::with(RuleCipher::Aegis256, |config| config.streams.insert(0, own)).await;
    managed.put("s", SECRET).await;
    managed.put("other", SECRET).await;
    let moved = managed.stack.stored("other").await[0].body.clone();
    is_refused("moved", &played(&managed, "s", moved).await);
    let sealed = managed.stack.stored("s").await[0].body.clone();
    let mut renumbered = sealed.to_vec();
    renumbered[5] = 2;
    is_refused(
        "unknown epoch",
        &played(&managed, "s", renumbered.clone().into()).await,
    );
    managed.rotate("s").await;
    is_refused(
        "another epoch",
        &played(&managed, "s", renumbered.into()).await,
    );
    // A record as clients' keys seal it, in a managed stream.
    let native = seal("aegis-256", KEY, "s", &record(&[], SECRET)).body;
    is_refused("native", &played(&managed, "s", native).await);
    is_refused("plain", &played(&managed, "s", SECRET.into()).await);
    // A record with an epoch, in a stream with a key of its own.
    let put = appends("own", Encoding::Proto, &input([record(&[], SECRET)])).key(&KEY);
    assert_eq!(managed.ask(put).await.status, 200);
    managed.stack.store("own", [record(&[], sealed)]).await;
    let read = managed
        .ask(reads("own", "seq_num=1", Encoding::Json).key(&KEY))
        .await;
    assert_eq!((read.status, &*read.code()), (400, "decryption_failed"));
}

fn only(keys: &mut [DataKey]) -> &mut DataKey {
    keys.last_mut().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrapped_key_of_another_place_is_refused() {
    let managed = Managed::start().await;
    for stream in ["s", "other"] {
        managed.put(stream, SECRET).await;
    }
    managed.rotate("other").await;
    let good = managed.data_keys("s").await.unwrap();
    let other = managed.data_keys("other").await.unwrap();
    let mut spoiled: Vec<(&str, DataKey)> = Vec::new();
    let mut spoil = |what, change: &dyn Fn(&mut DataKey)| {
        let mut key = good.keys[0].clone();
        change(&mut key);
        spoiled.push((what, key));
    };
    spoil("another stream's", &|key| {
        key.wrapped.clone_from(&other.keys[0].wrapped)
    });
    spoil("another stream's whole row", &|key| {
        *key = other.keys[0].clone()
    });
    spoil("another epoch's of another stream", &|key| {
        key.wrapped.clone_from(&other.keys[1].wrapped);
    });
    spoil("another number", &|key| key.epoch = 2);
    spoil("another commitment", &|key| {
        key.commit = other.keys[0].commit
    });
    spoil("a flipped bit", &|key| {
        let Some(WrappedKey::Master { wrapped, .. }) = &mut key.wrapped else {
            panic!("{key:?}");
        };
        let mut bytes = *wrapped.as_bytes();
        bytes[17] ^= 0x10;
        *wrapped = streamseal::crypto::Wrapped::from_bytes(bytes);
    });
    spoil("a service's", &|key| {
        key.wrapped = Some(WrappedKey::Kms {
            key: "alias/none".to_owned(),
            blob: "AAAA".to_owned(),
        });
    });
    let stored = managed.stack.stored("s").await.len();
    for (what, key) in spoiled {
        managed
            .change("s", |entry| {
                *only(&mut entry.data_keys.as_mut().unwrap().keys) = key
            })
            .await;
        let batch = input([record(&[], SECRET)]);
        for ask in [
            appends("s", Encoding::Proto, &batch),
            appends("s", Encoding::Frames, &batch),
            reads("s", "seq_num=0", Encoding::Json),
        ] {
            let answer = managed.ask(ask).await;
            let got = (answer.status, answer.code());
            assert_eq!(got, (400, "decryption_failed".to_owned()), "{what}");
        }
    }
    assert_eq!(managed.stack.stored("s").await.len(), stored);
    // A master key of another number is none at hand.
    managed
        .change("s", |entry| {
            let keys = &mut entry.data_keys.as_mut().unwrap().keys;
            *only(keys) = good.keys[0].clone();
            if let Some(WrappedKey::Master { mk_epoch, .. }) = &mut only(keys).wrapped {
                *mk_epoch = 2;
            }
        })
        .await;
    let answer = managed.ask(reads("s", "seq_num=0", Encoding::Json)).await;
    assert_eq!((answer.status, &*answer.code()), (403, "permission_denied"));
    managed
        .change("s", |entry| entry.data_keys = Some(good))
        .await;
    assert_eq!(managed.bodies("s").await, [SECRET]);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_keys_of_another_project_are_refused_whoever_they_are_said_to_be_of() {
    let mut managed = Managed::start().await;
    for stream in ["s", "theirs/moved"] {
        managed.put(stream, SECRET).await;
    }
    // From now on it is another project that has these streams.
    let change = |config: &mut Config| {
        project(config, "others", &["*/theirs/**"]);
        config.projects.rotate_right(1);
    };
    managed.stack.reload(change).unwrap();
    let theirs = managed.stack.create_project("others").await;
    let client = managed.stack.h2().await;
    let batch = input([record(&[], "their own")]);
    let put = appends("theirs/s", Encoding::Proto, &batch);
    assert_eq!(client.ask(theirs.on(put)).await.status, 200);
    let sealed = managed.stack.stored("s").await[0].body.clone();
    managed.stack.store("theirs/s", [record(&[], sealed)]).await;
    let stolen = managed.data_keys("s").await.unwrap();
    let own = managed.data_keys("theirs/s").await.unwrap();
    assert_ne!(stolen.holder, own.holder);
    let given = |holder: &Holder, keys: &DataKeys| DataKeys {
        holder: holder.clone(),
        ..keys.clone()
    };
    let moved = managed.data_keys("theirs/moved").await.unwrap();
    for (stream, keys, code) in [
        ("theirs/moved", moved.clone(), None),
        (
            "theirs/moved",
            given(&own.holder, &moved),
            Some("decryption_failed"),
        ),
        ("theirs/s", stolen.clone(), None),
        (
            "theirs/s",
            given(&own.holder, &stolen),
            Some("decryption_failed"),
        ),
    ] {
        let stored = managed.stack.stored(stream).await.len();
        let what = format!("{stream} {:?}", keys.holder);
        let change = |entry: &mut StreamEntry| entry.data_keys = Some(keys);
        managed.change(stream, change).await;
        for encoding in Encoding::READS {
            let ask = reads(stream, "seq_num=0", encoding);
            let answer = client.ask(theirs.on(ask)).await;
            let got = delivered(encoding, &answer);
            let End::Failed { code: told, .. } = &got.end else {
                panic!("{what}: {:?}", got.end);
            };
            assert!(code.is_none_or(|code| told == code), "{what}: {told}");
            assert!(got.records().is_empty(), "{what}");
        }
        for encoding in [Encoding::Proto, Encoding::Frames] {
            let answer = client
                .ask(theirs.on(appends(stream, encoding, &batch)))
                .await;
            assert!(answer.status >= 400, "{what}: {}", answer.text());
        }
        assert_eq!(managed.stack.stored(stream).await.len(), stored, "{what}");
    }
    let back = |entry: &mut StreamEntry| entry.data_keys = Some(own);
    managed.change("theirs/s", back).await;
    let ask = reads("theirs/s", "seq_num=0&count=1", Encoding::Proto);
    let answer = client.ask(theirs.on(ask)).await;
    let [read] = &delivered(Encoding::Proto, &answer).records()[..] else {
        panic!("{}", answer.text());
    };
    assert_eq!(read.body, "their own");
    assert_eq!(managed.bodies("s").await, [SECRET]);
}

#[tokio::test(flavor = "multi_thread")]
async fn records_before_an_unusable_key_epoch_are_delivered() {
    let managed = Managed::start().await;
    for body in ["first", "second", "third", "fourth"] {
        managed.put("s", body).await;
        managed.rotate("s").await;
    }
    let keys = managed.data_keys("s").await.unwrap().keys;
    let shredded = |key: &mut DataKey| (key.wrapped, key.shredded_at) = (None, Some(1));
    let mixed_up = |key: &mut DataKey| key.wrapped.clone_from(&keys[0].wrapped);
    for (is_shredded, why) in [
        (true, "at seq_num 2 was shredded"),
        (false, "does not decrypt with this master key"),
    ] {
        let spoil = |entry: &mut StreamEntry| {
            let data_keys = &mut entry.data_keys.as_mut().unwrap().keys;
            data_keys.clone_from(&keys);
            match is_shredded {
                true => shredded(&mut data_keys[2]),
                false => mixed_up(&mut data_keys[2]),
            }
        };
        managed.change("s", spoil).await;
        for encoding in Encoding::READS {
            let answer = managed.ask(reads("s", "seq_num=0", encoding)).await;
            let got = delivered(encoding, &answer);
            let bodies: Vec<_> = got
                .records()
                .into_iter()
                .map(|record| record.body)
                .collect();
            let is_session = answer.status == 200;
            let wanted = if is_session {
                &["first", "second"][..]
            } else {
                &[]
            };
            assert_eq!(bodies, wanted, "{encoding:?} {why}");
            assert!(matches!(got.end, End::Failed { code, .. } if code == "decryption_failed"));
            assert!(answer.text().contains(why), "{}", answer.text());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shredded_epochs_are_gone_and_the_others_are_not() {
    let managed = Managed::start().await;
    managed.put("s", "first").await;
    managed.rotate("s").await;
    managed.put("s", "second").await;
    let shred = |key: &mut DataKey| (key.wrapped, key.shredded_at) = (None, Some(1));
    managed
        .change("s", |entry| {
            shred(&mut entry.data_keys.as_mut().unwrap().keys[0])
        })
        .await;
    for encoding in Encoding::READS {
        let answer = managed.ask(reads("s", "seq_num=0", encoding)).await;
        let end = delivered(encoding, &answer).end;
        assert!(matches!(end, End::Failed { code, .. } if code == "decryption_failed"));
        assert!(answer.text().contains("shredded"), "{}", answer.text());
    }
    let answer = managed.ask(reads("s", "seq_num=1", Encoding::Json)).await;
    assert_eq!(answer.json()["records"][0]["body"], "second");
    managed.put("s", "third").await;
    // All of them: no more records either, and no new key.
    managed
        .change("s", |entry| {
            let keys = &mut entry.data_keys.as_mut().unwrap().keys;
            keys.iter_mut().for_each(shred);
        })
        .await;
    for encoding in [Encoding::Proto, Encoding::Frames] {
        let answer = managed
            .ask(appends("s", encoding, &input([record(&[], "no")])))
            .await;
        assert_eq!((answer.status, &*answer.code()), (403, "permission_denied"));
    }
    let pass = managed.stack.pass(&managed.token).await;
    let path = super::setup::path("s");
    let rotated = managed.stack.proxy().rotate_key(&path, &pass).await;
    assert_eq!(rotated.unwrap_err().code().as_str(), "permission_denied");
    assert_eq!(managed.stack.stored("s").await.len(), 3);
    let metrics = managed.stack.metrics().render();
    assert!(!metrics.contains(r#"streamseal_decryption_failures_total{reason="shredded"} 0"#));
}
