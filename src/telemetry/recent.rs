//! The last errors, for the status page: a few lines of memory that cost nothing while nothing goes wrong.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use super::label::{Fault, Operation};

/// Errors that are remembered.
const MAX_ERRORS: usize = 100;
/// Longest text of a name or a message, in bytes: with [`MAX_ERRORS`] and four texts, some 200 kB in all.
const MAX_TEXT_BYTES: usize = 512;

/// A request that failed. Like the log it holds names and reasons, and never a key or what is in a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// When it had failed.
    pub at: SystemTime,
    /// The error code of S2, or the status of the upstream's answer.
    pub code: String,
    /// Whose fault it is.
    pub fault: Fault,
    /// What was asked for.
    pub operation: Operation,
    /// The request's id, where it has one.
    pub request_id: Option<String>,
    /// The stream as `basin/stream`, or the basin, where it is about one.
    pub stream: Option<String>,
    /// What went wrong.
    pub message: String,
}

/// The last errors.
#[derive(Debug, Default)]
pub struct Recent(Mutex<VecDeque<Failed>>);

impl Recent {
    /// Remembers an error in place of the oldest. Texts are cut to 512 bytes.
    pub fn push(&self, mut failed: Failed) {
        let texts = [&mut failed.code, &mut failed.message].into_iter();
        for text in texts
            .chain(&mut failed.request_id)
            .chain(&mut failed.stream)
        {
            cut(text);
        }
        let mut errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if errors.len() >= MAX_ERRORS {
            errors.pop_front();
        }
        errors.push_back(failed);
    }

    /// The last errors, the newest first: at most 100.
    pub fn list(&self) -> Vec<Failed> {
        let errors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        errors.iter().rev().cloned().collect()
    }
}

/// Cuts a text between two characters, with a sign that it goes on.
fn cut(text: &mut String) {
    if text.len() > MAX_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_TEXT_BYTES));
        text.push('…');
    }
    text.shrink_to_fit();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hundred_are_kept_and_their_texts_are_bounded() {
        let recent = Recent::default();
        for at in 0..250 {
            recent.push(Failed {
                at: SystemTime::UNIX_EPOCH,
                code: at.to_string(),
                fault: Fault::Client,
                operation: Operation::Append,
                request_id: None,
                stream: Some("é".repeat(5000)),
                message: "x".repeat(5000),
            });
        }
        let errors = recent.list();
        assert_eq!(errors.len(), 100);
        assert_eq!((&*errors[0].code, &*errors[99].code), ("249", "150"));
        let longest = MAX_TEXT_BYTES + '…'.len_utf8();
        assert_eq!(errors[0].message.len(), longest);
        assert!(
            errors[0]
                .stream
                .as_ref()
                .is_some_and(|text| text.len() <= longest)
        );
    }
}
