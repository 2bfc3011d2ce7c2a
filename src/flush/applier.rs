//! How a node applies batches, and the bytes that ask its script to.

use super::{Certainty, Increment};
use crate::resp::encode;

/// How a node applies batches.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub enum Applier {
    /// By the flush script.
    Script {
        /// Its name on the node.
        sha: Vec<u8>,
        /// The script itself, for when the node forgets it.
        body: Vec<u8>,
    },
    /// By a transaction for each, on a connection that carries nothing else: see [`super::Call`].
    Transaction,
}

impl Applier {
    /// How the script is named in a call; `None` where there is none.
    pub(super) fn script(&self, with_body: bool) -> Option<Script<'_>> {
        match self {
            Self::Script { body, .. } if with_body => Some(Script::Body(body)),
            Self::Script { sha, .. } => Some(Script::Name(sha)),
            Self::Transaction => None,
        }
    }
}

/// A call of the flush script: a batch, or, without increments, the call that takes a series over.
/// The documentation of [`super`] says what each argument means.
pub(super) struct ScriptCall<'a> {
    pub(super) marker: &'a [u8],
    pub(super) epoch: u64,
    /// The number of the batch; to take the series over, that of the last one sealed.
    pub(super) number: u64,
    pub(super) certainty: Certainty,
    pub(super) increments: &'a [Increment],
    /// Every key's deadline is asked for, whatever its increment says.
    pub(super) asks_all: bool,
}

impl ScriptCall<'_> {
    /// Appends the call; `script` is the script's name on the node, or its body.
    pub(super) fn append(&self, script: Script<'_>, out: &mut Vec<u8>) {
        let keys = self.increments.len();
        encode::array(out, 3 + 1 + keys + 4 + keys);
        let (command, script): (&[u8], _) = match script {
            Script::Name(sha) => (b"EVALSHA", sha),
            Script::Body(body) => (b"EVAL", body),
        };
        encode::bulk(out, command);
        encode::bulk(out, script);
        encode::number(out, keys + 1);
        encode::bulk(out, self.marker);
        for increment in self.increments {
            encode::bulk(out, increment.key.as_bytes());
        }
        encode::number(out, self.epoch);
        encode::number(out, self.number);
        encode::bulk(out, self.certainty.word());
        encode::bulk(out, MARKER_MS);
        for increment in self.increments {
            let asks = increment.asks || self.asks_all;
            if increment.deadline.is_none() && increment.delta != 0 && !asks {
                encode::decimal(out, increment.delta);
            } else {
                encode::bulk(out, words(increment, asks).as_bytes());
            }
        }
    }
}

/// How a call names the script.
#[derive(Clone, Copy)]
pub(super) enum Script<'a> {
    /// By its name; the node has it.
    Name(&'a [u8]),
    /// The script itself, which the node remembers from then on.
    Body(&'a [u8]),
}

/// The four words about a key, where there is more to say than its delta.
fn words(increment: &Increment, asks: bool) -> String {
    let Increment { delta, last, .. } = increment;
    let flag = match (increment.due, asks) {
        (false, false) => 'n',
        (false, true) => 'a',
        (true, false) => 'd',
        (true, true) => 'b',
    };
    match increment.deadline {
        Some(deadline) => format!("{delta} {deadline} {last} {flag}"),
        None => format!("{delta} - {last} {flag}"),
    }
}

/// How long a marker outlives its process's last flush: a week, so that a process that comes back
/// after a long weekend finds it.
pub(super) const MARKER_MS: &[u8] = b"604800000";
