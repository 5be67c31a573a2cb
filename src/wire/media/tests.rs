//! Media types are classified as S2 classifies them.

use proptest::prelude::*;
use s2_api::mime as api;

use super::*;

fn assert_as_in_s2(value: &str) {
    let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, value.clone());
    headers.insert(ACCEPT, value.clone());
    let mime = api::parse(&value);
    let is = |test: fn(&_) -> bool| mime.as_ref().is_some_and(test);
    let theirs = if is(api::is_json) {
        Some(Media::Json)
    } else if is(api::is_protobuf) {
        Some(Media::Proto)
    } else if is(api::is_s2s_proto) {
        Some(Media::S2s)
    } else if is(api::is_event_stream) {
        Some(Media::EventStream)
    } else {
        None
    };
    assert_eq!(Media::content_type(&headers), theirs, "{value:?}");
    assert_eq!(Media::accept(&headers), theirs, "{value:?}");
}

#[test]
fn media_types_are_read_as_in_s2() {
    for value in [
        "application/json",
        "APPLICATION/JSON",
        " application/json ",
        "application/json; charset=utf-8",
        "application/json;charset=utf-8;x=y",
        "application/json;",
        "application/json; ",
        "application/json ;x=y",
        "application/json;x",
        "application/json;x=",
        "application/json;=y",
        "application/json;x=;y=z",
        "application/json;x=\"a;b\"",
        "application/json;x=\"\"",
        "application/json;x=\"\"\"",
        "application/json;x=\"a\" ; y=z",
        "application/json;x=\"a\"y",
        "application/json;x=\"a",
        "application/json;x=y ;a=b",
        "application/json;x=y;;a=b",
        "application/json;\tx=y",
        "application/ld+json",
        "application/+json",
        "application/a+b+json",
        "application/json+",
        "application/++json",
        "application/json+x",
        "application/x-protobuf",
        "application/protobuf",
        "application/protobuf+json",
        "application/Protobuf+x",
        "s2s/proto",
        "S2S/PROTO; a=b",
        "s2s/proto+x",
        "text/event-stream",
        "text/event-stream;a=b",
        "text/event-stream+x",
        "text/json",
        "text/plain",
        "*/*",
        "",
        "/",
        "a/",
        "/a",
        "a/;b=c",
        "not/a/mime, application/json",
        "application/json, text/event-stream",
        "text/html,application/json",
        ",application/json",
        "application/j\u{e4}son",
        "application",
    ] {
        assert_as_in_s2(value);
    }
}

#[test]
fn names_are_canonical() {
    for media in [Media::Json, Media::Proto, Media::S2s, Media::EventStream] {
        let mut headers = HeaderMap::new();
        assert_eq!(Media::accept(&headers), None);
        headers.insert(ACCEPT, HeaderValue::from_static(media.as_str()));
        assert_eq!(Media::accept(&headers), Some(media));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_read_as_in_s2(
        essence in "(application|text|s2s|a)?/?(json|\\+json|x\\+json|protobuf|proto|event-stream)?",
        rest in "[;=\",a /+\t]{0,10}",
    ) {
        assert_as_in_s2(&format!("{essence}{rest}"));
    }
}
