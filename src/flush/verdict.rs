//! What the answers to batches mean.

use super::{Increment, Reading, Refusal};
use crate::key::Key;

/// What an answer means.
#[derive(Debug)]
pub enum Verdict {
    /// These batches are settled, the lowest number first; the keys of the one that was answered
    /// are as read.
    Settled(Settled),
    /// Not applied, nothing is settled; the series says when to send again.
    Again(Option<Refusal>),
    /// The node has forgotten so many batches that it had acknowledged; the others go on.
    Forgotten(u64),
    /// No one knows whether these increments were applied, or no one may apply them any more; they
    /// are given up.
    Doubt(Vec<Increment>),
}

/// What is to be done about a node that came back with less than it had.
#[derive(Debug)]
pub struct Forgotten {
    /// What is sent again, under the same numbers; it was settled before.
    pub again: Vec<Increment>,
    /// How many batches are not known any more.
    pub lost: u64,
}

/// Batches that are settled by one answer.
#[derive(Debug)]
pub struct Settled {
    /// Each increment, with the reason if it was not applied as usual.
    pub increments: Vec<(Increment, Option<Cause>)>,
    /// The keys of the batch that was answered, as they were right after it.
    pub readings: Vec<(Key, Reading)>,
    /// The node's time, in milliseconds since 1970.
    pub time_ms: u64,
}

/// Why an increment was not applied, or how.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// The key holds no string.
    WrongType,
    /// The key holds no integer.
    NotAnInteger,
    /// The sum would leave 64 bits.
    Overflow,
    /// The key's deadline had passed: the increments died with it.
    Expired,
    /// Applied, although the deadline had passed: somebody had moved it.
    AfterDeadline,
}

impl Cause {
    /// As the script names it.
    pub(super) fn of(kind: u8) -> Self {
        match kind {
            b'w' => Self::WrongType,
            b'o' => Self::Overflow,
            b'x' => Self::Expired,
            b'a' => Self::AfterDeadline,
            _ => Self::NotAnInteger,
        }
    }

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::WrongType => "wrong type",
            Self::NotAnInteger => "not an integer",
            Self::Overflow => "overflow",
            Self::Expired => "expired",
            Self::AfterDeadline => "after the deadline",
        }
    }

    /// Whether the node refused to apply the increment.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::WrongType | Self::NotAnInteger | Self::Overflow)
    }
}
