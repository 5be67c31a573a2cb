//! The report, for people and for programs.

use std::fmt::Display;

use serde::Serialize;
use serde_json::{Value, json};

use super::{super::range::Ranges, findings::Findings};

/// What is known of the stream.
pub(super) struct Report {
    pub(super) stream: String,
    /// As the endpoint says.
    pub(super) cipher: Option<String>,
    /// Whether the endpoint gave sealed records, which were opened here.
    pub(super) is_opened_here: bool,
    pub(super) tail: u64,
    /// As a client reads it.
    pub(super) read: Findings,
    /// As it is stored.
    pub(super) stored: Option<Findings>,
}

impl Report {
    /// Everything that is not as it should be.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut add = |count: u64, what: &str| {
            if count > 0 {
                problems.push(format!("{what}: {count}"));
            }
        };
        add(self.read.unreadable.count, "records that do not decrypt");
        add(self.read.gaps.count, "records that are missing");
        if self.is_opened_here || self.cipher.is_some() {
            add(self.raw().plain.count, "records stored in clear");
        }
        // Their heads may differ: it is trimmed at any time.
        let differs = |stored: &Findings| {
            stored.last != self.read.last || stored.gaps.ranges != self.read.gaps.ranges
        };
        if self.stored.as_ref().is_some_and(differs) {
            problems.push("the store has other records than the endpoint shows".to_owned());
        }
        problems
    }

    /// For people: a line for each finding.
    pub(super) fn text(&self) -> String {
        let read = &self.read;
        let well = match self.problems().as_slice() {
            [] => "yes",
            _ => "no",
        };
        let mut lines = vec![
            ("stream", self.stream.clone()),
            ("cipher", self.cipher_text()),
            ("records", self.span_text()),
            ("unreadable", listed(&read.unreadable, |why| why.reason)),
            ("missing", listed(&read.gaps, |_| "")),
        ];
        if self.is_opened_here || self.stored.is_some() {
            let raw = self.raw();
            lines.push(("in clear", listed(&raw.plain, |_| "")));
            lines.push(("encrypted", listed(&raw.layouts, ToString::to_string)));
        }
        if self.is_raw() {
            let count = read.look_sealed;
            let note =
                format!("{count} records look encrypted; with --key-file they are decrypted");
            lines.push(("note", note));
        }
        lines.push(("hash", read.hash().unwrap_or_else(|| "none".to_owned())));
        lines.push(("all well", well.to_owned()));
        let lines = lines
            .iter()
            .map(|(name, value)| format!("{name:<12}{value}\n"));
        lines.collect()
    }

    fn cipher_text(&self) -> String {
        match &self.cipher {
            _ if self.is_opened_here => "none: encrypted records were decrypted here".to_owned(),
            Some(cipher) => cipher.clone(),
            None => "none".to_owned(),
        }
    }

    fn span_text(&self) -> String {
        let Findings {
            records, commands, ..
        } = self.read;
        let span = match (self.read.first, self.read.last) {
            (Some(first), Some(last)) => format!(", seq_num {first}-{last}"),
            _ => String::new(),
        };
        let tail = self.tail;
        format!("{records}{span}; {commands} commands; tail {tail}")
    }

    /// For programs: one JSON object on a line.
    pub(super) fn json(&self) -> String {
        let read = &self.read;
        let mut report = json!({
            "stream": self.stream,
            "cipher": self.cipher,
            "decrypted_here": self.is_opened_here,
            "tail": self.tail,
            "records": read.records,
            "first_seq_num": read.first,
            "last_seq_num": read.last,
            "commands": read.commands,
            "unreadable": value(&read.unreadable),
            "missing": value(&read.gaps),
            "hash": read.hash(),
            "problems": self.problems(),
            "ok": self.problems().is_empty(),
        });
        if self.is_opened_here || self.stored.is_some() {
            let raw = self.raw();
            report["in_clear"] = value(&raw.plain);
            report["encrypted"] = value(&raw.layouts);
        }
        format!("{report}\n")
    }

    /// What shows how records are stored.
    fn raw(&self) -> &Findings {
        self.stored.as_ref().unwrap_or(&self.read)
    }

    /// Whether this seems to be the store beneath a proxy, and no key was given.
    fn is_raw(&self) -> bool {
        self.cipher.is_none() && self.read.look_sealed > 0
    }
}

fn value<T: Serialize>(ranges: &Ranges<T>) -> Value {
    serde_json::to_value(ranges).unwrap_or_default()
}

/// `12: 3-9 (why), 20-24 (why)`.
fn listed<T: PartialEq, S: Display>(ranges: &Ranges<T>, what: impl Fn(&T) -> S) -> String {
    if ranges.is_empty() {
        return "none".to_owned();
    }
    let shown = ranges.ranges.iter().map(|range| {
        let (numbers, what) = (range.numbers(), what(&range.what).to_string());
        if what.is_empty() {
            numbers.to_string()
        } else {
            format!("{numbers} ({what})")
        }
    });
    let shown: Vec<_> = shown.collect();
    let more = if ranges.truncated { ", …" } else { "" };
    format!("{}: seq_num {}{more}", ranges.count, shown.join(", "))
}
