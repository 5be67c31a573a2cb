//! A JSON object of which a few fields are taken, set or left alone, and all others survive verbatim.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor},
    ser::SerializeMap as _,
};
use serde_json::value::RawValue;

use crate::proxy::Error;

/// Most fields of an object. S2's own have a dozen; each further one costs its search through all before it,
/// and a body of 2 MiB has room for 250,000.
const MAX_FIELDS: usize = 256;

/// Most objects in a list: the most that S2 puts on a page.
const MAX_LISTED: usize = 1000;

/// Fields in their order, with their values unparsed.
#[derive(Debug, Default)]
pub(super) struct Object(Vec<(String, Box<RawValue>)>);

impl Object {
    /// Parses a client's body.
    ///
    /// # Errors
    /// [`Error::BadJson`] when it is no object, or has a field twice, or more than [`MAX_FIELDS`].
    pub(super) fn of_client(json: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(json).map_err(bad_json)
    }

    /// Parses an upstream's answer.
    ///
    /// # Errors
    /// [`Error::Garbage`] when it is no object, or has a field twice, or more than [`MAX_FIELDS`].
    pub(super) fn of_upstream(json: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(json).map_err(|_| Error::Garbage("unexpected JSON"))
    }

    /// Takes a field out; `None` when it is absent.
    ///
    /// # Errors
    /// [`Error::BadJson`] when its value is of another type.
    pub(super) fn take<T: DeserializeOwned>(&mut self, field: &str) -> Result<Option<T>, Error> {
        let Some(at) = self.0.iter().position(|(name, _)| name == field) else {
            return Ok(None);
        };
        let (_, value) = self.0.remove(at);
        serde_json::from_str(value.get())
            .map(Some)
            .map_err(bad_json)
    }

    /// Reads a field and leaves it; `None` when it is absent or of another type.
    pub(super) fn peek<T: DeserializeOwned>(&self, field: &str) -> Option<T> {
        let (_, value) = self.0.iter().find(|(name, _)| name == field)?;
        serde_json::from_str(value.get()).ok()
    }

    /// The text in a field that no other field could be taken for: readers of JSON differ in what they make of
    /// names in other spelling.
    ///
    /// # Errors
    /// [`Error::BadJson`] when there is no such field, or it holds no text, or another one is spelled alike.
    pub(super) fn only(&self, field: &str) -> Result<String, Error> {
        let alike = |name: &str| !name.is_ascii() || name.eq_ignore_ascii_case(field);
        if self.0.iter().any(|(name, _)| name != field && alike(name)) {
            return Err(Error::BadJson(format!("unexpected field beside `{field}`")));
        }
        let (_, value) = self
            .0
            .iter()
            .find(|(name, _)| name == field)
            .ok_or_else(|| Error::BadJson(format!("missing field `{field}`")))?;
        serde_json::from_str(value.get()).map_err(bad_json)
    }

    /// Sets a field where it stands, or at the end.
    pub(super) fn set<T: Serialize>(&mut self, field: &str, value: &T) -> Result<(), Error> {
        let value = serde_json::value::to_raw_value(value)
            .map_err(|_| Error::Garbage("JSON that cannot be written"))?;
        match self.0.iter_mut().find(|(name, _)| name == field) {
            Some((_, old)) => *old = value,
            None => self.0.push((field.to_owned(), value)),
        }
        Ok(())
    }

    /// The object as JSON.
    pub(super) fn to_json(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(self).map_err(|_| Error::Garbage("JSON that cannot be written"))
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if fields.iter().any(|(known, _)| *known == name) {
                        return Err(A::Error::custom(format_args!("duplicate field `{name}`")));
                    }
                    if fields.len() == MAX_FIELDS {
                        return Err(A::Error::custom("too many fields"));
                    }
                    fields.push((name, value));
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// A page of a list. An upstream that sends more than S2 does is cut off.
#[derive(Debug, Default, Serialize)]
#[serde(transparent)]
pub(super) struct Page(Vec<Object>);

impl Page {
    /// A page of these.
    pub(super) fn of(objects: Vec<Object>) -> Self {
        Self(objects)
    }

    /// The objects on it, for another page.
    pub(super) fn into_objects(self) -> Vec<Object> {
        self.0
    }

    /// The objects on it.
    pub(super) fn objects(&mut self) -> impl Iterator<Item = &mut Object> {
        self.0.iter_mut()
    }
}

impl<'de> Deserialize<'de> for Page {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Objects;

        impl<'de> Visitor<'de> for Objects {
            type Value = Page;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of JSON objects")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Page, A::Error> {
                let mut objects = Vec::new();
                while let Some(object) = list.next_element()? {
                    if objects.len() == MAX_LISTED {
                        return Err(A::Error::custom("too long a list"));
                    }
                    objects.push(object);
                }
                Ok(Page(objects))
            }
        }

        deserializer.deserialize_seq(Objects)
    }
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn bad_json(error: serde_json::Error) -> Error {
    Error::BadJson(error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use serde_json::Value;

    use super::*;

    #[test]
    fn other_fields_survive_verbatim_and_in_order() {
        let json =
            br#"{"z":1.50,"config":{"stream_cipher":"aegis-256"},"new":[1, {"a":null}],"n":1e400}"#;
        let mut object = Object::of_client(json).unwrap();
        let config: Option<Object> = object.take("config").unwrap();
        assert!(config.is_some());
        object.set("n", &7).unwrap();
        assert_eq!(
            String::from_utf8(object.to_json().unwrap()).unwrap(),
            r#"{"z":1.50,"new":[1, {"a":null}],"n":7}"#
        );
    }

    #[test]
    fn a_page_is_no_longer_than_those_of_s2() {
        let of = |count| format!("[{}]", vec!["{}"; count].join(","));
        let mut page: Page = serde_json::from_str(&of(MAX_LISTED)).unwrap();
        assert_eq!(page.objects().count(), 1000);
        let longer = serde_json::from_str::<Page>(&of(MAX_LISTED + 1)).unwrap_err();
        assert!(
            longer.to_string().starts_with("too long a list"),
            "{longer}"
        );
    }

    #[test]
    fn a_field_twice_is_refused() {
        let json = br#"{"stream_cipher":null,"stream_cipher":"aegis-256"}"#;
        let error = Object::of_client(json).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("duplicate field `stream_cipher`")
        );
    }

    fn wide(fields: usize) -> Vec<u8> {
        let fields: Vec<_> = (0..fields).map(|n| format!("\"{n}\":0")).collect();
        format!("{{{}}}", fields.join(",")).into_bytes()
    }

    #[test]
    fn more_fields_than_anybody_sends_are_refused() {
        assert!(Object::of_client(&wide(MAX_FIELDS)).is_ok());
        let error = Object::of_client(&wide(MAX_FIELDS + 1)).unwrap_err();
        assert!(error.to_string().starts_with("too many fields"), "{error}");
        // Two MiB of fields were a minute of searching.
        assert!(Object::of_upstream(&wide(250_000)).is_err());
    }

    #[test]
    fn depth_is_no_trouble() {
        let deep = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        let mut object = Object::of_client(deep(1_000_000).as_bytes()).unwrap();
        assert_eq!(object.to_json().unwrap().len(), 2_000_006);
        assert!(object.take::<Value>("a").is_err());
    }

    proptest! {
        #[test]
        fn an_object_is_what_any_parser_sees_in_it(
            pieces in vec(
                prop_oneof![
                    Just("{"), Just("}"), Just("\"a\""), Just("\"\\u0061\""), Just("\"config\""),
                    Just(":"), Just(","), Just("null"), Just("1e400"), Just("[]"), Just(" "), Just("\u{e9}"),
                ],
                0..12,
            ),
            whole in any::<bool>(),
        ) {
            let text = pieces.concat();
            let text = if whole { format!("{{\"config\":{{}},\"a\":{text}}}") } else { text };
            let Ok(mut object) = Object::of_client(text.as_bytes()) else { return Ok(()) };
            let written = object.to_json().unwrap();
            // A number beyond every float is only kept as text.
            if let Ok(seen) = serde_json::from_str::<Value>(&text) {
                prop_assert_eq!(serde_json::from_slice::<Value>(&written).unwrap(), seen.clone());
                if let Ok(config) = object.take::<Value>("config") {
                    prop_assert_eq!(config.as_ref(), seen.get("config"));
                }
                object.set("config", &7).unwrap();
                let written: Value = serde_json::from_slice(&object.to_json().unwrap()).unwrap();
                prop_assert_eq!(&written["config"], 7);
                prop_assert_eq!(written.get("a"), seen.get("a"));
            }
        }
    }
}
