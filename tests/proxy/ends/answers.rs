//! An answer that the upstream cuts never looks complete, and a complete one stays so.

use super::exchange::{Mistakes, Outcome, Relayed, Version, placed};
use crate::harness::{
    Answer, Ask, Encoding, Fault, Frame, Packed, Place, RESET_CODES, Rule, Way, ack, append, frame,
    input, read, record,
};
use Version::{Http1, Http2};

/// Records in the streams that are read: more than one batch of S2's.
const STORED: usize = 1_050;
/// Records in the streams that are appended to: acks are all of the same length from here on.
const STORED_BEFORE: usize = 200;
/// Inputs of an append session.
const INPUTS: usize = 3;

/// One kind of request.
struct Row {
    name: &'static str,
    version: Version,
    is_plain: bool,
    encoding: Encoding,
    what: What,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Read,
    Append,
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("S2S read session",              Http2, false, Encoding::Frames, What::Read),
    row("SSE read session",              Http2, false, Encoding::Events, What::Read),
    row("SSE read session over HTTP/1.1", Http1, false, Encoding::Events, What::Read),
    row("JSON read",                     Http2, false, Encoding::Json,   What::Read),
    row("JSON read over HTTP/1.1",       Http1, false, Encoding::Json,   What::Read),
    row("protobuf read",                 Http2, false, Encoding::Proto,  What::Read),
    row("protobuf read over HTTP/1.1",   Http1, false, Encoding::Proto,  What::Read),
    row("plain S2S read session",        Http2, true,  Encoding::Frames, What::Read),
    row("plain SSE read over HTTP/1.1",  Http1, true,  Encoding::Events, What::Read),
    row("plain JSON read",               Http2, true,  Encoding::Json,   What::Read),
    row("plain JSON read over HTTP/1.1", Http1, true,  Encoding::Json,   What::Read),
    row("JSON append",                   Http2, false, Encoding::Json,   What::Append),
    row("protobuf append over HTTP/1.1", Http1, false, Encoding::Proto,  What::Append),
    row("plain JSON append",             Http2, true,  Encoding::Json,   What::Append),
    row("plain append over HTTP/1.1",    Http1, true,  Encoding::Proto,  What::Append),
    row("append session",                Http2, false, Encoding::Frames, What::Append),
    row("plain append session",          Http2, true,  Encoding::Frames, What::Append),
];

const fn row(
    name: &'static str,
    version: Version,
    is_plain: bool,
    encoding: Encoding,
    what: What,
) -> Row {
    Row {
        name,
        version,
        is_plain,
        encoding,
        what,
    }
}

impl Row {
    fn is_session(&self) -> bool {
        matches!(self.encoding, Encoding::Frames | Encoding::Events)
    }

    fn stream(&self) -> &'static str {
        match self.what {
            What::Read => "read",
            What::Append => "appended",
        }
    }

    /// Records that the request reads or appends.
    fn records(&self) -> usize {
        match (self.what, self.is_session()) {
            (What::Read, true) => STORED,
            (What::Read, false) => 300,
            (What::Append, true) => INPUTS,
            (What::Append, false) => 2,
        }
    }

    fn ask(&self) -> Ask {
        let count = self.records();
        let ask = match (self.what, self.encoding) {
            (What::Read, encoding) => {
                read(self.stream(), &format!("seq_num=0&count={count}"), encoding)
            }
            (What::Append, Encoding::Frames) => {
                let one = frame(&input([record(&[], "one input")]));
                let batch = input([record(&[], "")]);
                let ask = append(self.stream(), Encoding::Frames, Packed::Not, &batch);
                ask.raw(one.repeat(count))
            }
            (What::Append, encoding) => {
                let batch = input([record(&[], "first"), record(&[], "second")]);
                append(self.stream(), encoding, Packed::Not, &batch)
            }
        };
        placed(ask, self.is_plain)
    }

    /// Why the outcome of a cut answer is wrong.
    fn mistake(&self, outcome: &Outcome) -> Option<String> {
        let is_success = outcome.is_success(self.encoding);
        let is_complete = is_success && self.is_complete(outcome);
        if is_success && !is_complete {
            return Some("success with something missing".to_owned());
        }
        if outcome.resets.contains(&0) && !outcome.is_whole {
            return Some("RST_STREAM(NO_ERROR) in the middle".to_owned());
        }
        if outcome.counted == "ok" && !is_complete {
            return Some("counted as ok".to_owned());
        }
        let answer = outcome.answer.as_ref()?;
        let says_no_effect = [502, 503, 429].contains(&answer.status);
        (self.what == What::Append && says_no_effect)
            .then(|| format!("{} promises no effect", answer.status))
    }

    /// Whether a success has everything.
    fn is_complete(&self, outcome: &Outcome) -> bool {
        let answer = outcome.answer.as_ref().unwrap();
        outcome.decodes(self.encoding)
            && match self.what {
                What::Read => self.has_every_record(outcome),
                What::Append => self.has_every_ack(answer),
            }
    }

    fn has_every_record(&self, outcome: &Outcome) -> bool {
        let bodies = outcome.bodies(self.encoding);
        let mut numbered = bodies.iter().enumerate();
        let in_order = numbered.all(|(at, body)| *body == format!("record {at}"));
        in_order && bodies.len() == self.records()
    }

    fn has_every_ack(&self, answer: &Answer) -> bool {
        if self.is_session() {
            return Frame::all(&answer.body).len() == INPUTS;
        }
        let ack = ack(self.encoding, answer);
        let (Some(start), Some(end), Some(tail)) = (ack.start, ack.end, ack.tail) else {
            return false;
        };
        end.seq_num == start.seq_num + 2 && tail.seq_num >= end.seq_num
    }

    /// The places where its answer from upstream is cut.
    fn places(&self, answer: &Answer) -> Vec<Place> {
        let is_framed = self.encoding == Encoding::Frames || self.is_sealed_read();
        let after_head = match (is_framed, self.what) {
            // One frame is the whole answer to a read that is no session.
            (true, What::Read) if !self.is_session() => {
                vec![Place::Messages(0, 2), Place::Messages(0, 5_000)]
            }
            (true, _) => vec![
                Place::Messages(0, 9),
                Place::Messages(1, 0),
                Place::Messages(1, 9),
            ],
            // The proxy passes this answer on as it is.
            (false, What::Read) => {
                let text = answer.text();
                let event = text.find("\n\n").map_or(1, |at| at + 2);
                vec![Place::Frames(1), Place::Bytes(event), Place::Bytes(5_000)]
            }
            (false, What::Append) => vec![Place::Bytes(2), Place::Bytes(18)],
        };
        [vec![Place::Head], after_head].concat()
    }

    /// Whether the proxy reads an S2S session upstream for it, and writes the answer by itself.
    fn is_sealed_read(&self) -> bool {
        !self.is_plain && self.what == What::Read
    }
}

/// A deployment with all streams, which the proxy knows already.
async fn deployed() -> Relayed {
    let relayed = Relayed::start().await;
    for is_plain in [false, true] {
        relayed.fill("read", is_plain, STORED).await;
        relayed.fill("appended", is_plain, STORED_BEFORE).await;
    }
    relayed
}

/// The whole answer, which nothing disturbs.
async fn whole(relayed: &Relayed, row: &Row) -> Answer {
    let outcome = relayed.see(row.version, row.ask()).await;
    assert!(outcome.is_success(row.encoding), "{outcome:?}");
    assert!(row.is_complete(&outcome), "{}: {outcome:?}", row.name);
    assert_eq!(outcome.counted, "ok", "{}", row.name);
    outcome.answer.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_answer_never_looks_complete() {
    let halves = ROWS.chunks(ROWS.len().div_ceil(2));
    let checked = halves.map(|rows| tokio::spawn(cut_answers_of(rows)));
    let mut mistakes = Mistakes::default();
    for half in futures_util::future::join_all(checked).await {
        mistakes.merge(half.unwrap());
    }
    mistakes.assert_none();
}

async fn cut_answers_of(rows: &'static [Row]) -> Mistakes {
    let relayed = deployed().await;
    let mut mistakes = Mistakes::default();
    for row in rows {
        let answer = whole(&relayed, row).await;
        for at in row.places(&answer) {
            for code in RESET_CODES {
                let outcome = cut(&relayed, row, at, Fault::Reset(code)).await;
                if let Some(mistake) = row.mistake(&outcome) {
                    mistakes.add(format!("{} at {at:?}, {mistake}", row.name), code);
                }
            }
        }
    }
    mistakes
}

async fn cut(relayed: &Relayed, row: &Row, at: Place, fault: Fault) -> Outcome {
    let fired = relayed.back.stats().fired;
    let way = Way::Down;
    relayed.back.set(Rule { way, at, fault });
    let outcome = relayed.see(row.version, row.ask()).await;
    let is_found = relayed.back.stats().fired == fired + 1;
    // A read that has what it wants may not wait for the end.
    assert!(
        is_found || at == Place::End,
        "{}: {at:?} is nowhere",
        row.name
    );
    relayed.back.clear();
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_answer_followed_by_a_reset_stays_whole() {
    let relayed = deployed().await;
    let mut mistakes = Mistakes::default();
    for row in ROWS {
        for code in RESET_CODES {
            let outcome = cut(&relayed, row, Place::End, Fault::Reset(code)).await;
            let is_success = outcome.is_success(row.encoding);
            if !is_success || !row.is_complete(&outcome) || outcome.counted != "ok" {
                let said = (outcome.is_whole, outcome.counted);
                mistakes.add(format!("{}: {said:?}", row.name), code);
            }
        }
    }
    mistakes.assert_none();
}
