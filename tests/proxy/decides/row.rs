//! The table "decides": lies to every question that the proxy can ask.

use serde_json::{Value, json};

use super::lies::{
    Asked, LONG_AGO, Liar, NOT_YET,
    Question::{self, Append, BasinProbe, Create, Delete, Ensure, List, Read, Tail},
    Reply, acks, deleted, fails, lists, mismatch, provisions, says, stream, tail,
};

/// What an upstream that lies answers, to which questions.
pub struct Row {
    pub name: &'static str,
    pub lies: &'static [(Question, Liar)],
    /// Whether the answers say that the stream is another, empty one: such a word is taken for what it says, and
    /// then another key is right.
    pub renews: bool,
}

impl Row {
    /// The false answer to a question, if this row has one.
    pub fn answer(&self, asked: &Asked) -> Option<Reply> {
        let mut lies = self.lies.iter();
        let (_, liar) = lies.find(|(question, _)| *question == asked.question)?;
        Some(liar(asked))
    }

    /// Whether an append gets a false answer.
    pub fn answers_appends(&self) -> bool {
        self.answers(Append)
    }

    /// Whether a question gets a false answer.
    pub fn answers(&self, question: Question) -> bool {
        self.lies.iter().any(|(answered, _)| *answered == question)
    }
}

const fn row(name: &'static str, lies: &'static [(Question, Liar)]) -> Row {
    Row {
        name,
        lies,
        renews: false,
    }
}

const fn renews(name: &'static str, lies: &'static [(Question, Liar)]) -> Row {
    Row {
        name,
        lies,
        renews: true,
    }
}

fn at(asked: &Asked, created_at: &str) -> Value {
    stream(&asked.stream, created_at)
}

fn made(asked: &Asked, created_at: &str) -> Reply {
    provisions(201, &at(asked, created_at), "created")
}

fn absent(_: &Asked) -> Reply {
    lists(&[])
}

fn in_cipher(asked: &Asked, cipher: Value) -> Value {
    let mut stream = at(asked, &asked.made);
    stream["cipher"] = cipher;
    stream
}

fn auto_create(on: bool) -> Reply {
    says(
        200,
        &json!({ "create_stream_on_append": on, "create_stream_on_read": on }),
    )
}

fn no_stream(_: &Asked) -> Reply {
    fails(404, "stream_not_found")
}

fn taken(_: &Asked) -> Reply {
    fails(409, "resource_already_exists")
}

fn broken(_: &Asked) -> Reply {
    fails(500, "other")
}

#[rustfmt::skip]
pub const ROWS: &[Row] = &[
    row("the basin is there",                      &[(BasinProbe, |_| says(200, &json!({})))]),
    row("there is no such basin",                  &[(BasinProbe, |_| fails(404, "basin_not_found"))]),
    row("the basin makes no streams",              &[(BasinProbe, |_| auto_create(false))]),
    row("the basin makes streams",                 &[(BasinProbe, |_| auto_create(true))]),
    row("the basin is nothing",                    &[(BasinProbe, |_| says(200, &Value::Null))]),
    row("the basin fails",                         &[(BasinProbe, broken)]),

    row("no stream is listed",                     &[(List, absent)]),
    row("listed, made long ago",                   &[(List, |asked| lists(&[at(asked, LONG_AGO)]))]),
    row("listed, as it is",                        &[(List, |asked| lists(&[at(asked, &asked.made)]))]),
    row("listed, made just now",                   &[(List, |asked| lists(&[at(asked, NOT_YET)]))]),
    row("listed, made at no time",                 &[(List, |asked| lists(&[at(asked, "")]))]),
    row("listed, being deleted",                   &[(List, |asked| lists(&[deleted(&asked.stream, &asked.made)]))]),
    row("listed twice",                            &[(List, |asked| lists(&[at(asked, LONG_AGO), at(asked, &asked.made)]))]),
    row("listed under another name",               &[(List, |asked| lists(&[stream("another", &asked.made)]))]),
    row("listed in no cipher",                     &[(List, |asked| lists(&[in_cipher(asked, json!("none"))]))]),
    row("listed in another cipher",                &[(List, |asked| lists(&[in_cipher(asked, json!("aes-256-gcm"))]))]),
    row("there are more streams, but none here",   &[(List, |_| says(200, &json!({ "streams": [], "has_more": true })))]),
    row("the list is nothing",                     &[(List, |_| says(200, &Value::Null))]),
    row("the list fails",                          &[(List, broken)]),

    row("created, long ago",                       &[(Create, |asked| made(asked, LONG_AGO))]),
    row("created, in the future",                  &[(Create, |asked| made(asked, NOT_YET))]),
    row("created, at the time it was",             &[(Create, |asked| made(asked, &asked.made))]),
    row("created, without a provision result",     &[(Create, |asked| says(201, &at(asked, NOT_YET)))]),
    row("created, another one",                    &[(Create, |asked| provisions(201, &stream("another", &asked.made), "created"))]),
    row("created, in no cipher",                   &[(Create, |asked| provisions(201, &in_cipher(asked, json!("none")), "created"))]),
    row("created, and nothing more",               &[(Create, |_| provisions(201, &json!({}), "created"))]),
    row("it was there already",                    &[(Create, |asked| provisions(200, &at(asked, &asked.made), "noop"))]),
    row("the name is taken",                       &[(Create, taken)]),
    row("no such basin to create in",              &[(Create, |_| fails(404, "basin_not_found"))]),
    row("the creation took too long",              &[(Create, |_| fails(408, "request_timeout"))]),
    row("the creation fails",                      &[(Create, broken)]),
    row("the creation is accepted",                &[(Create, |_| says(202, &json!({})))]),

    row("ensured, created long ago",               &[(Ensure, |asked| made(asked, LONG_AGO))]),
    row("ensured, created in the future",          &[(Ensure, |asked| made(asked, NOT_YET))]),
    row("ensured, created at the time it was",     &[(Ensure, |asked| made(asked, &asked.made))]),
    row("ensured, created as 200",                 &[(Ensure, |asked| provisions(200, &at(asked, NOT_YET), "created"))]),
    row("ensured, updated",                        &[(Ensure, |asked| provisions(200, &at(asked, NOT_YET), "updated"))]),
    row("ensured, nothing to do",                  &[(Ensure, |asked| provisions(200, &at(asked, NOT_YET), "noop"))]),
    row("ensured, in words that S2 has not",       &[(Ensure, |asked| provisions(200, &at(asked, NOT_YET), "plain"))]),
    row("no such stream to ensure",                &[(Ensure, no_stream)]),
    row("the ensure fails",                        &[(Ensure, broken)]),

    row("deleted",                                 &[(Delete, |_| says(202, &json!({})))]),
    row("no such stream to delete",                &[(Delete, no_stream)]),
    row("another deletion is faster",              &[(Delete, |_| fails(409, "conflict"))]),
    row("the deletion fails",                      &[(Delete, broken)]),

    row("the stream is empty",                     &[(Tail, |_| tail(0))]),
    row("the stream is long",                      &[(Tail, |_| tail(1 << 40))]),
    row("no such stream to have a tail",           &[(Tail, no_stream)]),
    row("the tail is nothing",                     &[(Tail, |_| says(200, &Value::Null))]),

    row("no such stream to append to",             &[(Append, no_stream)]),
    row("no such basin to append in",              &[(Append, |_| fails(404, "basin_not_found"))]),
    row("the tail is another: none",               &[(Append, |_| mismatch(0))]),
    row("the tail is another: seven",              &[(Append, |_| mismatch(7))]),
    row("the tail is another: the last",           &[(Append, |_| mismatch(u64::MAX))]),
    row("another fencing token",                   &[(Append, |_| says(412, &json!({ "fencing_token_mismatch": "x" })))]),
    row("appended, at the start",                  &[(Append, |asked| acks(asked, 0))]),
    row("appended, later",                         &[(Append, |asked| acks(asked, 7))]),
    row("the append conflicts",                    &[(Append, |_| fails(409, "stream_deletion_pending"))]),
    row("the append fails",                        &[(Append, broken)]),

    row("no such stream to read",                  &[(Read, no_stream)]),
    row("the read is beyond the tail",             &[(Read, |_| says(416, &json!({ "tail": { "seq_num": 0, "timestamp": 0 } })))]),

    // Stories that several answers tell together.
    row("it is there, and was before it was created",
        &[(BasinProbe, |_| auto_create(true)), (List, |asked| lists(&[at(asked, LONG_AGO)])),
          (Create, |asked| made(asked, LONG_AGO)), (Ensure, |asked| made(asked, LONG_AGO))]),
    row("it is not there, and nothing can be appended",
        &[(List, absent), (Tail, no_stream), (Append, no_stream), (Read, no_stream)]),
    row("it has records, but is not there",
        &[(List, absent), (Append, |_| mismatch(7))]),
    row("it has records, made long ago",
        &[(List, |asked| lists(&[at(asked, LONG_AGO)])), (Tail, |_| tail(7)), (Append, |_| mismatch(7))]),
    row("its name is taken, but it is not there",
        &[(List, absent), (Create, taken), (Ensure, taken), (Tail, no_stream)]),
    row("deleted, and made again by others",
        &[(Delete, |_| says(202, &json!({}))), (Create, taken), (List, |asked| lists(&[at(asked, NOT_YET)])),
          (Tail, |_| tail(7)), (Append, |_| mismatch(7))]),
    row("gone, and never to be deleted",
        &[(Delete, no_stream), (List, absent), (Tail, no_stream)]),
    row("everything fails",
        &[(BasinProbe, broken), (List, broken), (Create, broken), (Ensure, broken), (Delete, broken), (Tail, broken),
          (Append, broken), (Read, broken)]),
    renews("another one is there, and it is empty",
        &[(List, |asked| lists(&[at(asked, NOT_YET)])), (Tail, |_| tail(0))]),
    renews("another one was created, and it is empty",
        &[(Create, |asked| made(asked, NOT_YET)), (Ensure, |asked| made(asked, NOT_YET)), (Tail, |_| tail(0))]),
    renews("another one was there, and it is empty",
        &[(Create, taken), (Ensure, |asked| provisions(200, &at(asked, NOT_YET), "noop")),
          (List, |asked| lists(&[at(asked, NOT_YET)])), (Tail, |_| tail(0))]),
    renews("another one, empty, that acks everything",
        &[(Create, |asked| made(asked, NOT_YET)), (Ensure, |asked| made(asked, NOT_YET)), (Tail, |_| tail(0)),
          (List, |asked| lists(&[at(asked, NOT_YET)])), (Append, |asked| acks(asked, 0))]),
];
