//! Why a node takes no command, in the words that its clients get.

use std::sync::Arc;
use std::time::Duration;

/// Why a command can not be appended now. No state was changed.
#[derive(Clone, Debug)]
pub enum Refused {
    /// The error for the client, code first: the node is away ([`unreachable()`]), or a script keeps
    /// it busy.
    Failed(Arc<str>),
    /// Too much is in flight; the waker that was given is woken when there is room.
    Full,
}

/// The error of a command whose node is away, after `-`.
pub fn unreachable(name: &str, reason: &str) -> String {
    format!("ERR node {name} is unreachable ({reason})")
}

/// The error of a command that waits for another one's reply, which does not come in time, after
/// `-`.
pub fn not_sent(name: &str, timeout: Duration) -> String {
    format!(
        "ERR node {name} gave no answer within {timeout:?} to what the command waits for; it was \
         not sent"
    )
}

/// The error of a command that was sent and is not answered in time, after `-`.
pub fn no_answer(name: &str, timeout: Duration) -> String {
    format!("ERR node {name} gave no answer within {timeout:?}; the command may still be executed")
}
