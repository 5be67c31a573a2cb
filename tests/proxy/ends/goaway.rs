//! A GOAWAY below a request says that it was not processed: it is sent again, or refused without a doubt.

use super::exchange::{Mistakes, Outcome, Relayed, Version, placed};
use crate::harness::{
    Ask, Encoding, Fault, Frame, Goaway, Last, Packed, Place, Rule, Way, append, input, read,
    record,
};
use Version::{Http1, Http2};

/// Error codes of GOAWAY that servers send.
const CODES: [u32; 4] = [0x0, 0x1, 0x2, 0xb];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Append,
    Read,
    List,
}

struct Row {
    name: &'static str,
    version: Version,
    is_plain: bool,
    encoding: Encoding,
    what: What,
}

#[rustfmt::skip]
const ROWS: &[Row] = &[
    Row { name: "JSON append",           version: Http2, is_plain: false, encoding: Encoding::Json,   what: What::Append },
    Row { name: "protobuf append",       version: Http1, is_plain: false, encoding: Encoding::Proto,  what: What::Append },
    Row { name: "append session",        version: Http2, is_plain: false, encoding: Encoding::Frames, what: What::Append },
    Row { name: "plain append",          version: Http2, is_plain: true,  encoding: Encoding::Json,   what: What::Append },
    Row { name: "plain append session",  version: Http2, is_plain: true,  encoding: Encoding::Frames, what: What::Append },
    Row { name: "JSON read",             version: Http1, is_plain: false, encoding: Encoding::Json,   what: What::Read },
    Row { name: "S2S read session",      version: Http2, is_plain: false, encoding: Encoding::Frames, what: What::Read },
    Row { name: "SSE read session",      version: Http1, is_plain: false, encoding: Encoding::Events, what: What::Read },
    Row { name: "plain JSON read",       version: Http2, is_plain: true,  encoding: Encoding::Json,   what: What::Read },
    Row { name: "plain S2S read session", version: Http2, is_plain: true, encoding: Encoding::Frames, what: What::Read },
    Row { name: "list of streams",       version: Http2, is_plain: false, encoding: Encoding::Json,   what: What::List },
];

impl Row {
    fn ask(&self) -> Ask {
        let ask = match self.what {
            What::Append => {
                let batch = input([record(&[], "x")]);
                append("s", self.encoding, Packed::Not, &batch)
            }
            What::Read => read("s", "seq_num=0&count=2", self.encoding),
            What::List => Ask::get("/v1/streams"),
        };
        placed(ask, self.is_plain)
    }

    /// Whether the proxy has the whole request when it sends it, and so can send it again.
    fn is_in_memory(&self) -> bool {
        self.what != What::Append || !self.is_plain && self.encoding != Encoding::Frames
    }

    fn mistake(&self, outcome: &Outcome, stored: u64) -> Option<String> {
        let is_success = outcome.is_success(self.encoding);
        let wanted = u64::from(is_success && self.what == What::Append);
        if stored != wanted {
            return Some(format!("{stored} stored, success: {is_success}"));
        }
        if is_success || !self.is_in_memory() && says_no_effect(self.encoding, outcome) {
            return None;
        }
        let answer = outcome.answer.as_ref();
        let answer = answer.map(|answer| (answer.status, answer.text()));
        Some(format!("{answer:?}, counted as {}", outcome.counted))
    }
}

/// Whether the answer is an error that clients may repeat the request after.
fn says_no_effect(encoding: Encoding, outcome: &Outcome) -> bool {
    let Some(answer) = &outcome.answer else {
        return false;
    };
    let frames = match encoding {
        Encoding::Frames if answer.status == 200 => Frame::all(&answer.body),
        _ => Vec::new(),
    };
    let status = match frames.last() {
        Some(Frame::Terminal { status, .. }) => *status,
        _ => answer.status,
    };
    outcome.is_whole && [429, 502].contains(&status)
}

#[tokio::test(flavor = "multi_thread")]
async fn goaway_below_the_request_is_no_doubt() {
    let relayed = Relayed::start().await;
    for is_plain in [false, true] {
        relayed.fill("s", is_plain, 2).await;
    }
    let mut mistakes = Mistakes::default();
    for row in ROWS {
        for (code, close) in CODES
            .into_iter()
            .flat_map(|code| [(code, false), (code, true)])
        {
            let before = relayed.stored("s", row.is_plain).await;
            let fired = relayed.back.stats().fired;
            relayed.back.set(below(code, close));
            let outcome = relayed.see(row.version, row.ask()).await;
            assert_eq!(relayed.back.stats().fired, fired + 1, "{}", row.name);
            relayed.stack.lite.quiet().await;
            let stored = relayed.stored("s", row.is_plain).await - before;
            if let Some(mistake) = row.mistake(&outcome, stored) {
                mistakes.add(format!("{}, {mistake}", row.name), (code, close));
            }
        }
    }
    mistakes.assert_none();
}

fn below(code: u32, close: bool) -> Rule {
    let last = Last::Below;
    Rule {
        way: Way::Down,
        at: Place::Opening,
        fault: Fault::Goaway(Goaway { last, code, close }),
    }
}
