//! S2S frames: however a body is cut into chunks it holds the same frames, and those are S2's.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::{DecodeError as ProstError, Message};
use s2_api::v1::stream::s2s::{FrameDecoder as ApiDecoder, SessionMessage};
use streamseal::wire::{
    DecodeError,
    s2s::{self, Compression, Frame, FrameDecoder, MAX_PAYLOAD_BYTES},
};
use tokio_util::codec::Decoder as _;

/// What a body holds, and how it ends.
type Decoded = (Vec<Frame>, Result<(), DecodeError>);

/// The first byte says how to cut; the rest is the body of a session.
pub fn s2s_frames(data: &[u8]) {
    let Some((cuts, body)) = data.split_first() else {
        return;
    };
    let body = Bytes::copy_from_slice(body);
    let whole = decode([body.clone()]);
    assert_eq!(decode(chunks(body.clone(), u32::from(*cuts))), whole);
    if body.len() < 300 {
        assert_eq!(decode((0..body.len()).map(|at| body.slice(at..=at))), whole);
    }
    as_in_s2(&whole, &body);
    for frame in &whole.0 {
        again(frame);
    }
}

fn decode(chunks: impl IntoIterator<Item = Bytes>) -> Decoded {
    let mut decoder = FrameDecoder::new();
    let mut frames = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        loop {
            match decoder.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, decoder.finish())
}

/// Chunks of uneven sizes, some of them empty.
fn chunks(mut body: Bytes, seed: u32) -> Vec<Bytes> {
    let (mut state, mut chunks) = (seed, Vec::new());
    while !body.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = (state >> 16) as usize % (2 + seed as usize);
        chunks.push(body.split_to(length.min(body.len())));
    }
    chunks
}

/// S2's own decoder makes the same of the same bytes, to the text of the error.
fn as_in_s2((ours, end): &Decoded, body: &Bytes) {
    // S2 takes zstd windows of up to 128 MiB. No payload needs them, and somebody has to pay for them.
    const WINDOW: &str = "Frame requires too much memory for decoding";
    let mut rest = BytesMut::from(&body[..]);
    for frame in ours {
        let theirs = ApiDecoder.decode(&mut rest).expect("S2 refuses a frame");
        match (frame, theirs.expect("S2 wants more")) {
            (
                Frame::Message {
                    payload,
                    reconnect_advised,
                },
                SessionMessage::Regular(theirs),
            ) => {
                assert_eq!(*reconnect_advised, theirs.reconnect_advised());
                let theirs: Raw = theirs.try_into_proto().expect("S2 refuses a payload");
                assert_eq!(payload, &theirs.0);
            }
            (Frame::Terminal { status, body }, SessionMessage::Terminal(theirs)) => {
                assert_eq!((*status, body), (theirs.status, &theirs.body));
            }
            (ours, theirs) => panic!("{ours:?} but {theirs:?}"),
        }
    }
    let theirs = match ApiDecoder.decode_eof(&mut rest) {
        Ok(None) => Ok(()),
        Ok(Some(SessionMessage::Regular(message))) => message.try_into_proto::<Raw>().map(|_| ()),
        Ok(Some(SessionMessage::Terminal(_))) => panic!("S2 has more"),
        Err(error) => Err(error),
    };
    match (end, theirs) {
        (Ok(()), Ok(())) => {}
        (Err(DecodeError::Frame(ours)), _) if ours == WINDOW => {}
        (Err(DecodeError::Frame(ours)), Err(theirs)) => assert_eq!(*ours, theirs.to_string()),
        (ours, theirs) => panic!("{ours:?} but {theirs:?}"),
    }
}

/// A frame survives being written and read.
fn again(frame: &Frame) {
    let encoded: Vec<Bytes> = match frame {
        Frame::Message {
            payload,
            reconnect_advised,
        } => {
            assert!(payload.len() <= MAX_PAYLOAD_BYTES);
            let all = [Compression::None, Compression::Gzip, Compression::Zstd];
            let encode = |how| s2s::encode_message(how, payload.clone(), *reconnect_advised);
            all.map(|how| encode(how).expect("it came in a frame").concat().into())
                .into()
        }
        Frame::Terminal { status, body } => vec![s2s::encode_terminal(*status, body)],
    };
    for encoded in encoded {
        assert_eq!(decode([encoded]), (vec![frame.clone()], Ok(())));
    }
}

/// A payload as it is: a message that decodes from everything.
#[derive(Debug, Default)]
struct Raw(Bytes);

impl Message for Raw {
    fn decode(mut buf: impl Buf) -> Result<Self, ProstError> {
        Ok(Self(buf.copy_to_bytes(buf.remaining())))
    }

    fn encode_raw(&self, _: &mut impl BufMut) {}

    fn merge_field(
        &mut self,
        _: u32,
        _: prost::encoding::WireType,
        _: &mut impl Buf,
        _: prost::encoding::DecodeContext,
    ) -> Result<(), ProstError> {
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0.clear();
    }
}
