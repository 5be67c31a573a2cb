//! What a wrapped data key is bound to: it unwraps for one stream and one epoch, and nowhere else.

use crate::stream::StreamPath;

/// What the keys wrapped here are for. Part of the format: it never changes.
const PURPOSE: &str = "streamseal/v1/data-key";

/// The stream and the epoch that a data key is for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) stream: &'a StreamPath,
    pub(super) epoch: u32,
}

impl Context<'_> {
    /// As names and values, for AWS. They appear in CloudTrail, and key policies can ask for them.
    pub(super) fn pairs(&self) -> [(&'static str, String); 3] {
        [
            ("streamseal:purpose", PURPOSE.to_owned()),
            ("streamseal:stream", self.stream.to_string()),
            ("streamseal:epoch", self.epoch.to_string()),
        ]
    }

    /// As bytes to authenticate, for Vault: the same three, a zero byte between them. No name holds one.
    pub(super) fn bytes(&self) -> Vec<u8> {
        format!("{PURPOSE}\0{}\0{}", self.stream, self.epoch).into_bytes()
    }
}
