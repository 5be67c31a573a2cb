//! The streams of one connection: how far each has come, and where its fault is.

use std::collections::HashMap;

use super::{Place, Rule, Shared, frame::Http2Frame};
use crate::harness::Way;

/// All streams of a connection.
#[derive(Default)]
pub(super) struct Streams {
    streams: HashMap<u32, Stream>,
    /// Streams above it are not processed, once a GOAWAY said so.
    pub(super) last_processed: Option<u32>,
    pub(super) last_opened: u32,
}

/// One stream.
#[derive(Default)]
pub(super) struct Stream {
    /// Until it found its place.
    rule: Option<Rule>,
    /// DATA frames and bytes in the rule's direction.
    frames: usize,
    bytes: usize,
    messages: Messages,
    /// It was reset: its DATA does not pass.
    pub(super) is_reset: bool,
    /// The direction whose END_STREAM does not pass.
    pub(super) endless: Option<Way>,
}

/// The rule that found its place, and whether something of the frame remains to pass behind it.
pub(super) type Found = (Rule, bool);

impl Streams {
    pub(super) fn stream(&mut self, id: u32) -> &mut Stream {
        self.streams.entry(id).or_default()
    }

    /// Takes off `frame` what passes before its stream's fault, and finds the fault.
    pub(super) fn find(
        &mut self,
        shared: &Shared,
        way: Way,
        frame: &mut Http2Frame,
    ) -> (Option<Http2Frame>, Option<Found>) {
        let is_new = way == Way::Up && frame.is_head() && frame.stream > self.last_opened;
        if is_new {
            self.last_opened = frame.stream;
            self.stream(frame.stream).rule = shared.rule();
        }
        let stream = self.stream(frame.stream);
        let Some(rule) = stream.rule.filter(|_| frame.stream != 0) else {
            return (Some(frame.clone()), None);
        };
        match stream.passed(rule, way, is_new, frame) {
            Passed::All => (Some(frame.clone()), None),
            Passed::UpToFault(front, remains) => {
                stream.rule = None;
                (front, Some((rule, remains)))
            }
        }
    }
}

/// How much of a frame passes before a fault.
enum Passed {
    All,
    /// This, then the fault, then the rest of the frame if there is one.
    UpToFault(Option<Http2Frame>, bool),
}

impl Stream {
    fn passed(&mut self, rule: Rule, way: Way, is_new: bool, frame: &mut Http2Frame) -> Passed {
        if rule.at == Place::Opening && is_new {
            return Passed::UpToFault(None, true);
        }
        if way != rule.way {
            return Passed::All;
        }
        let (bytes, frames) = (self.bytes, self.frames);
        if frame.is_data() {
            self.messages.read(&frame.payload);
            self.bytes += frame.payload.len();
            self.frames += 1;
        }
        let at = match rule.at {
            Place::Messages(whole, part) => match self.messages.end_of(whole) {
                Some(end) => Place::Bytes(end + part),
                None => return Passed::All,
            },
            at => at,
        };
        match at {
            Place::Head if frame.ends_head() => Passed::UpToFault(Some(frame.clone()), false),
            Place::End if frame.ends_stream() => Passed::UpToFault(Some(frame.clone()), false),
            Place::Frames(place) if frame.is_data() && frames + 1 == place => {
                let front = frame.split_to(frame.payload.len());
                Passed::UpToFault(Some(front), frame.ends_stream())
            }
            Place::Bytes(place) if frame.is_data() && self.bytes >= place => {
                let front = frame.split_to(place - bytes);
                let remains = frame.ends_stream() || !frame.payload.is_empty();
                Passed::UpToFault(Some(front), remains)
            }
            _ => Passed::All,
        }
    }
}

/// Where the S2S frames in a stream's DATA end.
#[derive(Default)]
struct Messages {
    ends: Vec<usize>,
    /// Bytes of lengths and frames that were read.
    read: usize,
    length: Vec<u8>,
}

impl Messages {
    fn read(&mut self, mut data: &[u8]) {
        loop {
            // The frame that is being read ends here, once its length is known.
            let known = self.ends.last().copied().unwrap_or_default();
            let inside = known.saturating_sub(self.read).min(data.len());
            data = &data[inside..];
            self.read += inside;
            let Some((byte, rest)) = data.split_first() else {
                return;
            };
            data = rest;
            self.read += 1;
            self.length.push(*byte);
            if let [high, middle, low] = *self.length {
                let length = u32::from_be_bytes([0, high, middle, low]);
                self.ends.push(self.read + length as usize);
                self.length.clear();
            }
        }
    }

    /// Where this many frames end, if the length of the last is known.
    fn end_of(&self, count: usize) -> Option<usize> {
        match count.checked_sub(1) {
            Some(last) => self.ends.get(last).copied(),
            None => Some(0),
        }
    }
}
